package ingest

import (
	"io"
	"net"
	"testing"
	"time"
)

// timed is a connection that answers Reads from a list and notes which deadlines hold then.
type timed struct {
	net.Conn
	parts       []string
	asked, sent []time.Time // when a Read was begun, when the last answer was out
	until       []time.Time // what held in each Read
	read, write time.Time
	writeUntil  []time.Time
	set         int
}

func (l *timed) Read(p []byte) (int, error) {
	l.asked, l.until = append(l.asked, time.Now()), append(l.until, l.read)
	if len(l.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.parts[0])
	l.parts = l.parts[1:]
	return n, nil
}

func (l *timed) Write(p []byte) (int, error) {
	l.sent, l.writeUntil = append(l.sent, time.Now()), append(l.writeUntil, l.write)
	return len(p), nil
}
func (l *timed) SetReadDeadline(t time.Time) error  { l.set++; l.read = t; return nil }
func (l *timed) SetWriteDeadline(t time.Time) error { l.set++; l.write = t; return nil }
func (l *timed) Close() error                       { return nil }
func (l *timed) RemoteAddr() net.Addr               { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }
func (l *timed) LocalAddr() net.Addr                { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 2} }

func serveTimed(t *testing.T, o Options, parts []string) *timed {
	t.Helper()
	s := newBenchServer(t, o)
	l := &timed{parts: parts}
	c, err := s.wrap(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.http.ServeConn(c); err != nil {
		t.Fatal(err)
	}
	return l
}

func repeat(raw string, n int) (parts []string) {
	for range n {
		parts = append(parts, raw)
	}
	return parts
}

// TestDeadlinesHold: in every Read and Write a deadline holds that is neither earlier than
// it should be nor later than its slack.
func TestDeadlinesHold(t *testing.T) {
	const n = 50
	o := Options{ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, WriteTimeout: 20 * time.Second}
	raw := string(signedRequest("key", ""))
	l := serveTimed(t, o, repeat(raw, n))
	if len(l.sent) != n {
		t.Fatalf("%d answers, want %d", len(l.sent), n)
	}
	within := func(what string, i int, by, from, to time.Time, limit, slack time.Duration) {
		t.Helper()
		if by.Before(from.Add(limit)) || by.After(to.Add(limit+slack)) {
			t.Errorf("%s %d: its deadline is %v after it could begin, want %v and at most %v more", what, i, by.Sub(from), limit, slack)
		}
	}
	if l.until[0].After(l.asked[0].Add(o.ReadTimeout)) {
		t.Errorf("the first byte may take until %v, %v after the Read", l.until[0], l.until[0].Sub(l.asked[0]))
	}
	for i := 1; i <= n; i++ { // the last one is told of the end
		within("wait for request", i, l.until[i], l.sent[i-1], l.asked[i], o.IdleTimeout, o.IdleTimeout/deadlineSlack)
	}
	for i := range n {
		within("answer", i, l.writeUntil[i], l.asked[i], l.sent[i], o.WriteTimeout, o.WriteTimeout/deadlineSlack)
	}
}

// TestDeadlineOfARequestIsExact: what comes piece by piece has the time of a request from
// its first byte on, and none of the slack that the wait for it has.
func TestDeadlineOfARequestIsExact(t *testing.T) {
	o := Options{ReadTimeout: 10 * time.Second, IdleTimeout: time.Hour}
	raw := string(signedRequest("key", ""))
	head, body := raw[:60], raw[len(raw)-500:]
	l := serveTimed(t, o, []string{raw, head, raw[60 : len(raw)-500], body, raw})
	if len(l.sent) != 3 {
		t.Fatalf("%d answers, want 3", len(l.sent))
	}
	for i := 2; i <= 3; i++ { // the Reads of its second and third piece
		if by := l.until[i]; by.Before(l.asked[1].Add(o.ReadTimeout)) || by.After(l.asked[2].Add(o.ReadTimeout)) {
			t.Errorf("piece %d may take until %v after the first was asked for, want %v", i, by.Sub(l.asked[1]), o.ReadTimeout)
		}
	}
	if !l.until[2].Equal(l.until[3]) {
		t.Errorf("the third piece has until %v, the second had until %v", l.until[3], l.until[2])
	}
	for read, before := range map[int]int{1: 0, 4: 1} {
		if by := l.until[read]; by.Before(l.sent[before].Add(o.IdleTimeout)) {
			t.Errorf("the wait in Read %d ends %v after the answer before it, want an hour", read, by.Sub(l.sent[before]))
		}
	}
}

// TestDeadlinesAreSetSeldom: a request that comes in one piece sets no timer.
func TestDeadlinesAreSetSeldom(t *testing.T) {
	const n = 1000
	// With a slack of a minute the machine may be as slow as it likes.
	l := serveTimed(t, Options{IdleTimeout: deadlineSlack * time.Minute, WriteTimeout: deadlineSlack * time.Minute}, repeat(string(signedRequest("key", "")), n))
	if len(l.sent) != n {
		t.Fatalf("%d answers, want %d", len(l.sent), n)
	}
	if l.set > 10 {
		t.Errorf("%d deadlines set for %d requests, want a few", l.set, n)
	}
}
