package cli

import "os"

// Version is what `penstock version` prints; the build sets it by -ldflags -X.
var Version = "devel"

// Terminal says whether f is a terminal that wants colour (https://no-color.org).
func Terminal(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
