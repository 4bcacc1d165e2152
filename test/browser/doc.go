// Package browser holds the tests that use the page as people do: a real Chromium, driven
// over its debugging protocol, against the built binary with a real Redis and a real Kafka
// where they are there, else those of `penstock dev`. They leave pictures of every page in
// test/.run/screens. `test/browser.sh` installs Chromium.
package browser
