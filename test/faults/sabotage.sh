#!/usr/bin/env bash
# Builds that are broken on purpose: the fault harness must find every one of them out, or
# it proves nothing. Each is a copy of the tree with one line changed.
#
#   test/faults/sabotage.sh [NAME...]     all, or those named; SEED, T (how long each, default 60s)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seed=${SEED:-1}
failed=0

# try NAME FILE FROM TO FAULTS: FROM, a whole piece of one line, becomes TO.
try() {
	local name=$1 file=$2 from=$3 to=$4 faults=$5 out=$work/$1.log
	case " ${only:-$name} " in *" $name "*) ;; *) return ;; esac
	rm -rf "$work/tree"
	mkdir "$work/tree"
	git ls-files -z | tar -c --null -T - | tar -x -C "$work/tree"
	[ "$(grep -cF -- "$from" "$work/tree/$file")" = 1 ] || { echo "$name: the line to break is not once in $file: $from" >&2; exit 1; }
	FROM=$from TO=$to perl -pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/' "$work/tree/$file"
	(cd "$work/tree" && CGO_ENABLED=0 go build -o "$work/penstock" .)
	PENSTOCK_BINARY=$work/penstock PENSTOCK_FAULTS=${T:-60s} PENSTOCK_SEED=$seed PENSTOCK_FAULTS_ONLY=$faults \
		go test -count=1 -timeout 30m -v -run '^TestFaults$' ./test/faults >"$out" 2>&1 && {
		echo "$name: NOT FOUND OUT (seed $seed)"
		failed=1
		return
	}
	# Found out by an equation, not by a run that broke for another reason.
	if grep -qE '_test.go:[0-9]+: (lost|altered|repeat|order|stranger|outcome|pending|answer): ' "$out"; then
		echo "$name: found out: $(grep -E '_test.go:[0-9]+: (lost|altered|repeat|order|stranger|outcome|pending|answer): ' "$out" | head -1 | sed 's/^ *[a-z_]*.go:[0-9]*: //' | cut -c1-150)"
	else
		echo "$name: the run failed, and not by an equation:"
		tail -n 15 "$out"
		failed=1
	fi
}
only="$*"

try no-fdatasync archive/fs_linux.go \
	'return syscall.Fdatasync(int(fd))' '_ = fd; return nil' 'power cut'
try cursor-early forward/commit.go \
	'cur := cursor{Seq: c.read}' 'cur := cursor{Seq: c.read}; return cur' 'gateway kill|kafka (SIGSTOP|acks|connections)'
try no-intent forward/kafka_send.go \
	'if !pt.keep(ctx, it, nil) {' 'if ctx.Err() != nil {' 'gateway kill|kafka (SIGSTOP|acks)'
try outcome-early forward/kafka_send.go \
	'res := f.fly(ctx)' 'at := pt.next; pt.ack(it, group, result{base: at}); pt.next = at; res := f.fly(ctx)' 'never got'
exit $failed
