//go:build !linux

package threads

func lower() {}

func prompt() {}
