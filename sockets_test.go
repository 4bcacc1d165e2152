package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fdOf gives a copy of a socket's descriptor, as execve would.
func fdOf(t *testing.T, s interface{ File() (*os.File, error) }) int {
	t.Helper()
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// TestInheritSockets: what the process before left is taken over, once, and by the process
// that it was meant for.
func TestInheritSockets(t *testing.T) {
	in, adm := listenTCP(t), listenTCP(t)
	caller, err := net.Dial("tcp", in.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	idle, err := in.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LISTEN_FDS", "")
	t.Setenv(socketsVar, fmt.Sprintf("%d ingest=%d admin=%d idle=%d", os.Getpid(), fdOf(t, in), fdOf(t, adm), fdOf(t, idle.(*net.TCPConn))))
	s, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if s.ingest.Addr().String() != in.Addr().String() || s.admin.Addr().String() != adm.Addr().String() || len(s.idle) != 1 ||
		s.idle[0].RemoteAddr().String() != caller.LocalAddr().String() {
		t.Errorf("took %v, %v and %d connections", s.ingest.Addr(), s.admin.Addr(), len(s.idle))
	}
	if v, there := os.LookupEnv(socketsVar); there {
		t.Errorf("a child would inherit %q", v)
	}
	for name, value := range map[string]string{socketsVar: "1 ingest=7", "LISTEN_PID": "1"} { // another process's
		t.Setenv("LISTEN_FDS", "1")
		t.Setenv(name, value)
		if s, err := inheritSockets(); err != nil || s.ingest != nil {
			t.Errorf("%s=%s: %v, %v", name, value, s.ingest, err)
		}
	}
}

// TestInheritSystemd goes wrong in every way that a unit file can be wrong.
func TestInheritSystemd(t *testing.T) {
	for _, c := range [][3]string{
		{"0", "", "LISTEN_FDS"}, {"x", "", "LISTEN_FDS"}, {"3", "ingest:admin:more", "one ListenStream"},
		{"2", "", "FileDescriptorName"}, {"2", "penstock.socket:admin", `named "penstock.socket"`},
	} {
		t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		t.Setenv("LISTEN_FDS", c[0])
		t.Setenv("LISTEN_FDNAMES", c[1])
		if _, err := inheritSockets(); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("LISTEN_FDS=%s LISTEN_FDNAMES=%s: %v, want %q", c[0], c[1], err, c[2])
		}
	}
}

// TestInheritWrongSockets: a connection where a listener should be (Accept=yes), one of
// the file system, and two of one name are refused by name.
func TestInheritWrongSockets(t *testing.T) {
	ln := listenTCP(t)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unix, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	for want, list := range map[string][]string{
		"Accept=no":           {fmt.Sprint("ingest=", fdOf(t, c.(*net.TCPConn)))},
		"address and a port":  {fmt.Sprint("ingest=", fdOf(t, unix.(*net.UnixListener)))},
		"two sockets":         {fmt.Sprint("ingest=", fdOf(t, ln)), "ingest=99"},
		`holds "ingest=x"`:    {"ingest=x"},
		"socket ingest: bad":  {"ingest=9999"},
		`socket 9 is named "`: {"other=9"},
	} {
		var s sockets
		if err := s.takeOwn(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", list, err, want)
		}
		s.close()
	}
}
