//go:build race

package verify

// raceOn: the race detector empties pools at random, so allocations cannot be counted.
const raceOn = true
