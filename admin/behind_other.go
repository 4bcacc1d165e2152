//go:build !linux

package admin

// lowPriority does nothing: only Linux has priorities of threads.
func lowPriority() {}
