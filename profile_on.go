//go:build profile

package main

import "penstock/bench/profile"

func init() { profile.OnSignal() }
