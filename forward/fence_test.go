package forward

import (
	"context"
	"testing"
)

// fencedSink has one partition that gave messages back.
type fencedSink struct {
	*fakeSink
	lifted int
}

func (s *fencedSink) Fenced(f func(string, int32)) { f("t", s.k.partition([]byte("key"))) }
func (s *fencedSink) Lift(string, int32)           { s.lifted++ }

// TestFenceWaitsForStragglers: as long as something of the partition is on a lane, it is
// newer than what came back, and the fence stays up.
func TestFenceWaitsForStragglers(t *testing.T) {
	s := &fencedSink{fakeSink: newFakeSink(newFakeKafka())}
	defer s.kill()
	c := newCore(context.Background(), &Pump{sink: s})
	mine, other := &Message{}, &Message{}
	c.sent[mine] = &parcel{topic: "t", key: []byte("key")}
	c.sent[other] = &parcel{topic: "another", key: []byte("key")}
	if c.liftFences(); s.lifted != 0 {
		t.Error("the fence is lifted while a message of the partition is on its way")
	}
	delete(c.sent, mine)
	if c.liftFences(); s.lifted != 1 {
		t.Errorf("the fence is lifted %d times with nothing on its way, want once", s.lifted)
	}
}
