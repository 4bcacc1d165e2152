#!/usr/bin/env bash
# Every test there is, and a plain word on what it ran against.
set -euo pipefail
cd "$(dirname "$0")/.."
. test/.run/env
export PENSTOCK_REQUIRE_REAL=1
echo "tests run against: redis-server at $PENSTOCK_REDIS, Apache Kafka at $PENSTOCK_KAFKA"
# One package at a time: the fault tests stop brokers and freeze servers, and leases and time-outs
# are to be tried by what the test does, not by what its neighbour does to two cores.
go test -p 1 -count=1 -timeout 25m ./...
# The same test runs a few hundred of them above; a minute finds what one crash in ten thousand shows.
PENSTOCK_CRASHES=20000 go test -count=1 -timeout 25m ./archive -run '^TestCrashes$'
go test -count=1 ./verify -run '^TestVectors$' -v | grep -E '^(not in|vectors:|ok|FAIL|---|  )' | tail -8
echo "pictures of the page: $(find test/.run/screens -name '*.png' | wc -l) in test/.run/screens"
kafka=$(basename "$(ls test/kafka/target/dependency/kafka_2.13-*.jar)" .jar)
echo "ran against: $(redis-server --version | cut -d' ' -f1-3), Apache Kafka ${kafka#kafka_2.13-}, kcat $(kcat -V 2>&1 | grep -o 'Version [^ ]*' | head -1)"
