package verify

import (
	"maps"
	"slices"
	"testing"

	"penstock/provider"
)

// Definitions are checked by names that package provider lists; each must have its code.
func TestOwnSchemes(t *testing.T) {
	if got, want := slices.Sorted(maps.Keys(ownSchemes)), slices.Sorted(slices.Values(provider.OwnSchemes)); !slices.Equal(got, want) {
		t.Errorf("schemes with code %v, names that a definition may use %v", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(ackBuilders)), slices.Sorted(slices.Values(provider.AckBuilders)); !slices.Equal(got, want) {
		t.Errorf("ack builders %v, names that a definition may use %v", got, want)
	}
}

// Pieces and handshakes of their own are named by definitions in the same way.
func TestOwnPieces(t *testing.T) {
	if got, want := slices.Sorted(maps.Keys(ownPieces)), slices.Sorted(maps.Keys(provider.OwnPieces)); !slices.Equal(got, want) {
		t.Errorf("pieces with code %v, names that a definition may use %v", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(challengeBuilders)), slices.Sorted(slices.Values(provider.ChallengeBuilders)); !slices.Equal(got, want) {
		t.Errorf("handshakes with code %v, names that a definition may use %v", got, want)
	}
}
