//go:build !linux

package threads

func lower() {}

func prompt() bool { return false }
