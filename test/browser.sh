#!/usr/bin/env bash
# Chromium for the tests of the page (test/browser). Does nothing where one is installed.
# PENSTOCK_CHROMIUM names another one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for name in "${PENSTOCK_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
	if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
run=${PENSTOCK_RUN:-$here/.run}
mkdir -p "$run"
exec 9>"$run/browser.lock" # two that start at once must not both ask apt
flock 9
command -v chromium >/dev/null && exit 0
echo "installing chromium" >&2
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
# The fonts: without any, pictures of pages show boxes.
install() { $sudo apt-get update -q && $sudo apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; }
for wait in 5 20 0; do # a mirror may be away for a moment
	install >"$run/browser.log" 2>&1 && exit 0
	sleep "$wait"
done
{ tail -n 20 "$run/browser.log" >&2; echo "browser.sh: cannot install chromium (see $run/browser.log)" >&2; exit 1; }
