#!/usr/bin/env bash
# Builds of the archive that are broken on purpose, one place each: a test must find every
# one of them out, within 10,000 simulated crashes where it is a test of crashes, or the
# tests prove nothing. It prints which test did, and at which crash of its run.
#
#   archive/sabotage.sh [NAME...]     all, or those named; SEED, CRASHES (default 10000)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PENSTOCK_CRASHES=${CRASHES:-10000}
[ -z "${SEED:-}" ] || export PENSTOCK_SEED=$SEED
only="$*"
failed=0

# try NAME FILE TESTS FROM TO: FROM, which stands once in the file, becomes TO.
try() {
	local name=$1 file=$2 tests=$3 out=$work/$1.log
	case " ${only:-$name} " in *" $name "*) ;; *) return 0 ;; esac
	FROM=$4 TO=$5 perl -0777 -pe 'BEGIN { $n = 0 } $n += s/\Q$ENV{FROM}\E/$ENV{TO}/g; END { exit($n == 1 ? 0 : 1) }' "archive/$file" >"$work/broken.go" || {
		echo "$name: what is to be broken is not once in archive/$file" >&2
		failed=1
		return 0
	}
	printf '{"Replace": {"%s": "%s"}}' "$PWD/archive/$file" "$work/broken.go" >"$work/overlay.json"
	if ! go test -c -ldflags="-s -w" -o "$work/archive.test" -overlay "$work/overlay.json" ./archive >"$out" 2>&1; then
		echo "$name: does not build:"
		cat "$out"
		failed=1
		return 0
	fi
	if (cd archive && "$work/archive.test" -test.timeout 15m -test.failfast -test.run "^($tests)\$") >"$out" 2>&1; then
		echo "$name: NOT FOUND OUT by $tests"
		failed=1
		return 0
	fi
	# Found out by a test, not by a run that broke for another reason.
	if ! grep -q '^ *--- FAIL: ' "$out"; then
		echo "$name: the run failed, and not by a test:"
		tail -n 15 "$out"
		failed=1
		return 0
	fi
	local crash
	crash=$(grep -oE '\(([^()]*; )?[0-9]+ of the run\)' "$out" | grep -oE '[0-9]+ of' | head -1 | cut -d' ' -f1 || true)
	printf '%-24s %-28s %s\n' "$name" "$(grep -oE -- '--- FAIL: [A-Za-z]+' "$out" | head -1 | cut -d' ' -f3)" \
		"${crash:+crash $crash: }$(grep -E '_test.go:[0-9]+: ' "$out" | grep -v ': seed [0-9]*$' | head -1 | sed -E 's/^ *[a-z_]*.go:[0-9]*: //' | cut -c1-140)"
}

# The log: written, synced, named, cut.
try no-fdatasync commit.go TestCrashes 'if err := syncGrown(seg.file, grew); err != nil {' '_ = grew; if err := error(nil); err != nil {'
try grown-synced-once fs.go TestCrashes 'if err == nil && grew {' 'if err == nil && false {'
try ack-before-sync commit.go TestCrashes 'b.wg.Wait()' '_ = b'
try ack-after-failure commit.go 'TestCrashes|TestEveryFault' 'v.settle(lost)' 'v.settle(nil); _ = lost'
try synced-mark-early commit.go TestNobodyReadsPastTheSyncedMark 'j.extend(seg, b.off+int64(b.size))' 'j.extend(seg, b.off+int64(b.size)); j.synced.Store(b.last)'
try synced-point-early journal.go TestCrashes 'endFrame(b.buf[start:], 0, b.tag, seq, b.off, typ)' 'endFrame(b.buf[start:], 0, b.tag, seq, b.off+int64(start), typ)'
try failed-file-goes-on commit.go 'TestCrashes|TestEveryFault' 'j.nextSegment()
	j.committing' 'j.committing'
try poison-forgotten commit.go 'TestRefusedStaysRefused|TestFailedSyncPoisonsTheSegment' 'seg.poisoned = true' 'seg.poisoned = false'
try no-header-sync roll.go TestCrashes 'if err := f.Sync(); err != nil {
		return fmt.Errorf("sync header' 'if err := error(nil); err != nil {
		return fmt.Errorf("sync header'
try no-segment-dirsync roll.go TestCrashes 'if err := j.o.FS.SyncDir(j.dir); err != nil {
		// It has' 'if err := error(nil); err != nil {
		// It has'
try no-dirsync-at-start settle.go 'TestCrashes|TestKillThenPowerCut' 'if err := n.fs.SyncDir(n.dir); err != nil {' 'if err := error(nil); err != nil {'
try wrong-end roll.go TestCrashes 'end: old.end.Load()' 'end: old.size.Load()'

# Recovery.
try tail-cut-too-far carry.go TestCrashes 'seg.end.Store(t.synced)' 'seg.end.Store(segmentHead)'
try no-carry carry.go TestCrashes 'r.carryOver(seg, f, &t, docs)' '_, _ = docs, f'
try carry-above-synced carry.go TestCrashes 'off: t.synced, end: t.end, salvage: true' 'off: segmentHead, end: t.end, salvage: true'
try torn-is-damage carry.go TestCrashes 'if bad.off >= t.synced {' 'if bad.off > t.end {'
try seqs-again carry.go TestCrashes 'r.lastSeq = max(r.lastSeq, t.last, seg.head.first)' 'r.lastSeq = max(r.lastSeq, seg.head.first)'
try orphan-is-read recover.go TestCrashes 'if t := scanTail(f, seg, nil); t.synced > segmentHead {' 'if t := scanTail(f, seg, nil); t.end > segmentHead {'
try empty-removed-always carry.go 'TestCrashes|TestRefusedStaysRefused' 'if seg.head.pred.poisoned {' 'if false {'

# Positions.
try state-no-sync state.go TestCrashes 'return syncGrown(s.file, grew)' '_ = grew; return nil'
try state-no-file-sync state.go TestCrashes 'if err := f.Sync(); err != nil {' 'if err := error(nil); err != nil {'
try state-no-dirsync state.go TestCrashes 'return s.fs.SyncDir(s.dir)' 'return nil'
try state-goes-on state.go 'TestCrashes|TestStateLeavesAFailedFile' 's.giveUp()
		return err' 'return err'

# Retention, thinning, pins.
try removes-what-waits retain.go 'TestThin|TestThinCrashes' 'if prev == nil && len(waits) == 0 && len(released) == 0 {' 'if prev == nil {'
try thins-what-waits thin.go 'TestThin|TestThinCrashes' 'if _, ok := t.waits[f.seq]; ok {' 'if _, ok := t.waits[f.seq]; ok && f.seq%2 == 0 {'
try floor-not-noted floor.go 'TestThinCrashes|TestThinKillThenPowerCut' 'if err := a.state.Commit(note); err != nil {' 'if _, err := note, error(nil); err != nil {'
try thin-no-sync thin.go TestThinCrashes 'if err := t.out.Sync(); err != nil {' 'if err := error(nil); err != nil {'
try thin-no-dirsync thin.go TestThinCrashes 'syncErr := j.o.FS.SyncDir(j.dir)' 'syncErr := error(nil)'
try thin-drops-outcomes thin.go 'TestThin.*' 'return t.j.has(o.Delivery)' 'return false'
try floor-not-settled recover.go TestThinKillThenPowerCut 'if !r.look && r.settleFloor() {' 'if !r.look {'
try pin-no-dirsync pins.go 'TestPin.*' 'return p.fs.SyncDir(p.dir)' 'return nil'
try pin-not-settled pins.go 'TestPin.*' 'return p.made.settle()' 'return nil'

# A full disk.
try floor-not-synced floor.go TestFullDiskCrashes 'n.name, n.number = name, number
	return n.fs.SyncDir(n.dir)' 'n.name, n.number = name, number
	return nil'
try floor-not-read recover.go TestFullDiskCrashes 'r.floor = max(floor, r.noted.number)' 'r.floor = floor'
try floor-numbers-again recover.go TestFloorFile 'r.lastNo = max(r.lastNo, r.noted.number)' '_ = r.lastNo'
try full-no-note retain.go TestFullDiskCrashes 'if err := a.noteFloor(j, number); err != nil {' 'if err := a.commitFloor(j, number); err != nil {'
try full-no-spare thin.go TestFullDiskCrashes 'if !done && diskFull(err) {' 'if _ = done; false {'
try spare-not-held roll.go TestFullDiskCrashes 'return p.takeAbove(p.held)' 'return p.takeAbove(0)'
try spare-not-synced retain.go TestSpareOfASegment 'if err := j.o.FS.SyncDir(j.dir); err != nil {
		return errors.Join' 'if err := error(nil); err != nil {
		return errors.Join'
try thin-spare-not-cut thin.go TestFullDiskCrashes 'if t.failed != nil { // what' 'if false { // what'

# Counts of what is refused.
try refused-uncounted quarantine.go 'TestLost.*' 'q.sampler.drop(k.source, k.reason)' '_ = k'
try counts-not-repeated quarantine.go TestLostCountsAreSaidAgain '	q.sampler.unsaved(b.said)' ''
try counts-late commit.go TestCountsRideWithWhatIsKept 'if j.o.Departs != nil {' 'if false {'

# Compression.
try pack-no-sync packer.go TestPackCrashes 'if err := out.Sync(); err != nil {' 'if err := error(nil); err != nil {'
try pack-no-dirsync packer.go TestPackCrashes 'syncErr := j.o.FS.SyncDir(j.dir)' 'syncErr := error(nil)'
try spare-while-read packer.go TestFileInUseIsNoSpare 'if idle := seg.letGo(); old' 'if idle := seg.letGo() || true; old'
try recycled-while-read retain.go TestFileInUseIsNoSpare 'if idle && !seg.poisoned' 'if !seg.poisoned && (idle || true)'

# Keys.
try keyring-no-sync keyring_file.go 'TestKeyringCrashes|TestSealedCrashes' 'err = f.Sync()' 'err = nil'
try keyring-no-dirsync keyring_file.go 'TestKeyringCrashes|TestSealedCrashes' 'return k.fs.SyncDir(k.dir)' 'return nil'
try keyring-copy-stale keyring.go TestEraseThatWasInterrupted '(second.old || !first.says(second))' 'second.old'
try rekey-is-damage keyring.go TestRekeyCrashes 'case errors.Is(err2, ErrWrongKey):' 'case false:'
try rekey-leaves-copy keyring_file.go TestRekeyCrashes '	for _, name := range []string{keyringName, keyringCopy} {
		if err := k.replace' '	for _, name := range []string{keyringName} {
		if err := k.replace'
try rekey-not-atomic keyring_file.go TestRekeyCrashes 'if err := k.fs.Rename(tmp, filepath.Join(k.dir, name)); err != nil {' '_ = k.fs.Remove(filepath.Join(k.dir, name)); if err := k.fs.Rename(tmp, filepath.Join(k.dir, name)); err != nil {'

# Damage.
try no-checksum frame.go 'TestManyFlips' 'if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {' 'if false {'
try digest-unchecked check.go TestAlteredAndMended 'digest != next.head.pred.digest' 'false'
try newer-after-recovery open.go TestNewerVersion 'if err := refuseNewer(o.FS, dir); err != nil {' 'if err := error(nil); err != nil {'
try newer-keyring-damaged keyring_file.go TestNewerVersion 'version > keyringVersion' 'version > 200'
try newer-pin-read pins.go TestNewerVersion 'version > pinVersion' 'version > 200'
try index-ahead index.go 'TestIndex.*' 'p > last && (last != 0 || x.tip != nil)' 'p > last && false'
exit $failed
