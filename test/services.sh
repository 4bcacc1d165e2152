#!/usr/bin/env bash
# Real services for the tests: a redis-server and an Apache Kafka broker (KRaft, one node).
#
#   test/services.sh up            start both unless they run, wait until they answer, write test/.run/env
#   test/services.sh down          end what `up` started, and nothing else
#   test/services.sh env           print the addresses as shell assignments
#   test/services.sh kafka-stop    end the broker in an orderly way; its data stays
#   test/services.sh kafka-kill    kill -9 it; its data stays
#   test/services.sh kafka-start   start it again on the same data and port, wait until it answers
#   test/services.sh redis-stop | redis-kill | redis-start      the same for Redis
#   test/services.sh wipe          down, and throw the data away
#
# PENSTOCK_RUN is the directory for data, logs and pid files (default test/.run). A second pair of services for
# tests that break things: give it another directory; the ports are chosen then.
# KAFKA_HEAP (default 512m) is the broker's heap. Several brokers are several directories with the same KAFKA_CLUSTER (22 letters) and
# KAFKA_VOTERS (1@HOST:PORT,2@... of the controllers), each its own KAFKA_NODE; KAFKA_MORE is a line more of configuration.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=${PENSTOCK_RUN:-$here/.run}
mkdir -p "$run"
run=$(cd "$run" && pwd)
jars=$here/kafka/target/dependency

say() { printf '%s\n' "$*" >&2; }
die() { say "services.sh: $*"; exit 1; }

# --- processes -----------------------------------------------------------------

# A pid file holds "pid starttime": a pid that was given to another process since then is not ours.
started() { awk '{sub(/^.*\) /, ""); print $20}' "/proc/$1/stat" 2>/dev/null || true; }
alive() { # name
	local pid start
	[ -f "$run/$1.pid" ] || return 1
	read -r pid start <"$run/$1.pid" || return 1
	[ -n "$start" ] && [ "$(started "$pid")" = "$start" ]
}
remember() { printf '%s %s\n' "$2" "$(started "$2")" >"$run/$1.pid"; }
stop() { # name signal
	local pid i
	alive "$1" || { rm -f "$run/$1.pid"; return 0; }
	read -r pid _ <"$run/$1.pid"
	kill "-$2" "$pid" 2>/dev/null || true
	for ((i = 0; i < 300; i++)); do
		alive "$1" || break
		sleep 0.1
		if [ "$i" = 250 ]; then kill -KILL "$pid" 2>/dev/null || true; fi
	done
	rm -f "$run/$1.pid"
}

# --- ports ---------------------------------------------------------------------

busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# port NAME FIRST: the port this directory's service has, else the first free one from FIRST.
port() {
	local p=$2
	if [ -f "$run/$1.port" ]; then cat "$run/$1.port"; return; fi
	while busy "$p" || grep -qsx "$p" "$run"/*.port; do p=$((p + 10)); done
	printf '%s\n' "$p" | tee "$run/$1.port"
}

# --- programs ------------------------------------------------------------------

need() { # command package
	command -v "$1" >/dev/null && return
	say "installing $2"
	local sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get install -y -q --no-install-recommends "$2" >"$run/apt.log" 2>&1 ||
		{ $sudo apt-get update -q >>"$run/apt.log" 2>&1 &&
			$sudo apt-get install -y -q --no-install-recommends "$2" >>"$run/apt.log" 2>&1; } ||
		die "cannot install $2 (see $run/apt.log)"
}
fetch_kafka() {
	# Services of several directories share the jars.
	mkdir -p "$here/kafka/target"
	exec 8>"$here/kafka/target/.lock"
	flock 8
	# The list of jars is finished only when maven is: a broken download must not pass for a broker.
	if [ ! -f "$jars/.complete" ] || [ "$here/kafka/pom.xml" -nt "$jars/.complete" ]; then
		need mvn maven
		say "fetching Apache Kafka with maven"
		rm -rf "$jars"
		(cd "$here/kafka" && mvn -q dependency:copy-dependencies >"$run/maven.log" 2>&1) ||
			{ tail -n 20 "$run/maven.log" >&2; die "maven could not fetch the broker"; }
		touch "$jars/.complete"
	fi
	exec 8>&-
}

# --- redis ---------------------------------------------------------------------

redis_start() {
	local p
	alive redis && return
	need redis-server redis-server
	p=$(port redis 16379)
	mkdir -p "$run/redis"
	setsid redis-server --port "$p" --bind 127.0.0.1 --dir "$run/redis" --save '' --appendonly no \
		--maxmemory-policy noeviction --daemonize no >"$run/redis.log" 2>&1 </dev/null &
	remember redis $!
}
redis_wait() {
	local p i
	p=$(port redis 16379)
	for ((i = 0; i < 100; i++)); do
		if [ "$(redis-cli -p "$p" ping 2>/dev/null)" = PONG ]; then return; fi
		alive redis || { tail -n 20 "$run/redis.log" >&2; die "redis-server ended"; }
		sleep 0.1
	done
	die "redis-server does not answer on port $p"
}

# --- kafka ---------------------------------------------------------------------

java_run() { # class args...: JAVA_OPTS first
	java ${JAVA_OPTS:-} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
		-Dlog4j2.configurationFile="$here/kafka/log4j2.yaml" -cp "$jars/*" "$@"
}
kafka_config() {
	local p c s
	p=$(port kafka 19092)
	c=$(port kafka-controller 19093)
	s=$(port kafka-sasl 19094)
	cat >"$run/kafka.properties" <<-END
		process.roles=broker,controller
		node.id=${KAFKA_NODE:-1}
		controller.quorum.voters=${KAFKA_VOTERS:-1@127.0.0.1:$c}
		controller.listener.names=CONTROLLER
		listeners=PLAIN://127.0.0.1:$p,LOGIN://127.0.0.1:$s,CONTROLLER://127.0.0.1:$c
		advertised.listeners=PLAIN://127.0.0.1:$p,LOGIN://127.0.0.1:$s
		listener.security.protocol.map=PLAIN:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
		inter.broker.listener.name=PLAIN
		sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
		listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_penstock="penstock-test-password";
		listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
		listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
		log.dirs=$run/kafka
		num.partitions=3
		auto.create.topics.enable=false
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=1
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		share.coordinator.state.topic.num.partitions=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=1
		group.initial.rebalance.delay.ms=0
		log.retention.hours=-1
		log.segment.bytes=67108864
		log.cleaner.dedupe.buffer.size=16777216
		log.cleaner.threads=1
		num.network.threads=2
		num.io.threads=4
		controlled.shutdown.enable=true
		${KAFKA_MORE:-}
	END
}
kafka_start() {
	alive kafka && return
	need java default-jre-headless
	fetch_kafka
	kafka_config
	if [ ! -f "$run/kafka/meta.properties" ]; then
		mkdir -p "$run/kafka"
		JAVA_OPTS=-Xmx128m java_run kafka.tools.StorageTool format --ignore-formatted \
			-t "${KAFKA_CLUSTER:-$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c1-22)}" -c "$run/kafka.properties" \
			--add-scram 'SCRAM-SHA-256=[name=penstock,password=penstock-test-password]' \
			--add-scram 'SCRAM-SHA-512=[name=penstock,password=penstock-test-password]' \
			>"$run/kafka-format.log" 2>&1 || { cat "$run/kafka-format.log" >&2; die "cannot format the broker's storage"; }
	fi
	local heap=${KAFKA_HEAP:-512m}
	# exec: the pid that is remembered must be java's own.
	(export JAVA_OPTS; exec setsid java "-Xmx$heap" "-Xms$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
		-Dlog4j2.configurationFile="$here/kafka/log4j2.yaml" -cp "$jars/*" \
		kafka.Kafka "$run/kafka.properties" >>"$run/kafka.log" 2>&1 </dev/null) &
	remember kafka $!
}
kafka_wait() {
	local p i
	p=$(port kafka 19092)
	for ((i = 0; i < 600; i++)); do
		if busy "$p" && kcat -b "127.0.0.1:$p" -L -m 2 >/dev/null 2>&1; then return; fi
		alive kafka || { tail -n 30 "$run/kafka.log" >&2; die "the broker ended (see $run/kafka.log)"; }
		sleep 0.1
	done
	die "the broker does not answer on port $p (see $run/kafka.log)"
}

# --- commands ------------------------------------------------------------------

write_env() {
	printf 'export PENSTOCK_REDIS=127.0.0.1:%s\nexport PENSTOCK_KAFKA=127.0.0.1:%s\nexport PENSTOCK_KAFKA_SASL=127.0.0.1:%s\nexport PENSTOCK_RUN=%q\n' \
		"$(port redis 16379)" "$(port kafka 19092)" "$(port kafka-sasl 19094)" "$run" >"$run/env.new"
	mv "$run/env.new" "$run/env"
}
lock() { exec 9>"$run/lock"; flock 9; }

case "${1:-}" in
up)
	lock
	began=$SECONDS
	need kcat kcat
	need promtool prometheus # it reads the alert rules
	# The services must not inherit the lock: they would hold it for their lives.
	redis_start 9>&-
	kafka_start 9>&-
	redis_wait
	kafka_wait
	write_env
	say "$(redis-server --version | cut -d' ' -f1-3) on 127.0.0.1:$(port redis 16379)"
	say "Apache Kafka $(basename "$jars"/kafka-server-[0-9]*.jar .jar | sed 's/kafka-server-//') on 127.0.0.1:$(port kafka 19092), java $(java -version 2>&1 | sed -n '1s/.*"\(.*\)".*/\1/p')"
	say "up after $((SECONDS - began)) s; addresses: $run/env"
	;;
down)
	lock
	stop kafka TERM
	stop redis TERM
	rm -f "$run/env"
	;;
wipe)
	lock
	stop kafka KILL
	stop redis KILL
	rm -rf "$run/kafka" "$run/redis" "$run"/*.port "$run"/*.log "$run/kafka.properties" "$run/env"
	;;
env)
	[ -f "$run/env" ] || die "nothing runs here: test/services.sh up"
	cat "$run/env"
	;;
kafka-stop) lock; stop kafka TERM ;;
kafka-kill) lock; stop kafka KILL ;;
kafka-start) lock; kafka_start 9>&-; kafka_wait ;;
redis-stop) lock; stop redis TERM ;;
redis-kill) lock; stop redis KILL ;;
redis-start) lock; redis_start 9>&-; redis_wait ;;
*)
	sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
	exit 2
	;;
esac
