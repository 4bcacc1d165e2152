package forward

import (
	"sync"

	"penstock/archive"
)

// knownMax is how many deliveries' fields are kept for whoever comes to ask: half a second
// of a busy gateway, which is how far the index is behind. They take some 2 MB.
const knownMax = 4096

// known hands over what the pump has read of deliveries: the index wants the fields of those
// whose outcome is not there yet, and to read an event twice was 3 % of a busy gateway's CPU.
type known struct {
	mu   sync.Mutex // guards ring
	ring []knownFields
}

type knownFields struct {
	seq    uint64
	fields archive.Fields
}

func (k *known) put(seq uint64, f archive.Fields) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil {
		k.ring = make([]knownFields, knownMax)
	}
	k.ring[seq%knownMax] = knownFields{seq, f}
}

// Known gives the fields of an accepted delivery's first event, as Fields would, if the pump
// has read it not long ago.
func (p *Pump) Known(seq uint64) (archive.Fields, bool) {
	k := &p.known
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil || seq == 0 {
		return archive.Fields{}, false
	}
	at := &k.ring[seq%knownMax]
	return at.fields, at.seq == seq
}
