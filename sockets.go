package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"penstock/ingest"
)

// socketsVar names the sockets that the process before left, of the same PID as it was:
// "PID ingest=7 admin=9 idle=12 idle=13". idle ones are connections.
const socketsVar = "PENSTOCK_SOCKETS"

// sockets are the open sockets that this process was started with: by systemd's socket
// activation, or by itself when it took a new binary (handover.go). A socket that is held
// open while nobody accepts has its callers wait in the kernel's queue, so that a restart
// refuses nobody.
type sockets struct {
	ingest, admin net.Listener // nil = not given
	idle          []net.Conn   // keep-alive connections without a request
}

// inheritSockets takes over what the environment names and forgets the names: a child of
// this process must not think that they are its own.
func inheritSockets() (s sockets, err error) {
	own, pid := os.Getenv(socketsVar), os.Getenv("LISTEN_PID")
	count, names := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{socketsVar, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return s, err
		}
	}
	self := strconv.Itoa(os.Getpid())
	switch mine, fds, _ := strings.Cut(own, " "); {
	case mine == self:
		err = s.takeOwn(strings.Fields(fds))
	case pid == self && count != "":
		err = s.takeSystemd(count, names)
	}
	if err != nil {
		s.close()
		return sockets{}, fmt.Errorf("inherited sockets: %w", err)
	}
	return s, nil
}

// firstFD is where systemd's sockets begin.
const firstFD = 3

// takeSystemd reads systemd's protocol (sd_listen_fds): count sockets from firstFD on,
// named by FileDescriptorName= of their units. Without names, a single one is ingest's.
func (s *sockets) takeSystemd(count, names string) error {
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > 2 {
		return fmt.Errorf("LISTEN_FDS is %q; one socket for ingest and one for admin can be taken, each with one ListenStream", count)
	}
	list := strings.Split(names, ":")
	for i := range n {
		name := ""
		if i < len(list) {
			name = list[i]
		}
		if n == 1 && name != "admin" {
			name = "ingest"
		}
		if err := s.listener(name, firstFD+i); err != nil {
			return err
		}
	}
	return nil
}

func (s *sockets) takeOwn(list []string) error {
	for _, item := range list {
		name, num, _ := strings.Cut(item, "=")
		fd, err := strconv.Atoi(num)
		if err != nil || fd < firstFD {
			return fmt.Errorf("%s holds %q", socketsVar, item)
		}
		if name == "idle" {
			s.conn(fd)
			continue
		}
		if err := s.listener(name, fd); err != nil {
			return err
		}
	}
	return nil
}

func (s *sockets) listener(name string, fd int) error {
	var to *net.Listener
	switch name {
	case "ingest":
		to = &s.ingest
	case "admin":
		to = &s.admin
	default:
		return fmt.Errorf("socket %d is named %q; set FileDescriptorName=ingest or admin in its unit", fd, name)
	}
	if *to != nil {
		return fmt.Errorf("two sockets are named %s; give it one ListenStream", name)
	}
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return fmt.Errorf("socket %s: %d is no file descriptor", name, fd)
	}
	defer f.Close() // FileListener works on a copy
	if listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil {
		return fmt.Errorf("socket %s: %w", name, err)
	} else if listens == 0 {
		return fmt.Errorf("socket %s does not listen; its unit wants ListenStream= and Accept=no", name)
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("socket %s: %w", name, err)
	}
	if _, ok := ln.(*net.TCPListener); !ok {
		return errors.Join(fmt.Errorf("socket %s is at %s; ListenStream= wants an address and a port", name, ln.Addr()), ln.Close())
	}
	*to = ln
	return nil
}

// conn takes over an idle connection; one that has broken meanwhile is nobody's loss.
func (s *sockets) conn(fd int) {
	f := os.NewFile(uintptr(fd), "idle")
	if f == nil {
		return
	}
	defer f.Close()
	if c, err := net.FileConn(f); err == nil {
		s.idle = append(s.idle, c)
	}
}

// open opens what was not inherited, as the configuration says. The admin's is open before
// ingest's.
func (s *sockets) open(admin string, edge *ingest.Server) (err error) {
	if s.admin == nil {
		if s.admin, err = net.Listen("tcp", admin); err != nil {
			s.close()
			return fmt.Errorf("listen for admins on %s: %w", admin, err)
		}
	}
	if s.ingest == nil {
		if s.ingest, err = edge.Listen(); err != nil {
			s.close()
			return err
		}
	}
	return nil
}

// close lets go of all that was not used.
func (s *sockets) close() {
	for _, ln := range []net.Listener{s.ingest, s.admin} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	for _, c := range s.idle {
		_ = c.Close()
	}
}
