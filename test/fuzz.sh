#!/usr/bin/env bash
# Runs each fuzz target for the given time (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."
for pkg in $(go list ./...); do
	for f in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $f"
		go test "$pkg" -run '^$' -fuzz "^$f\$" -fuzztime "${1:-30s}" -fuzzminimizetime 5s
	done
done
