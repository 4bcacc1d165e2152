package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"penstock/config"
)

// checkWithin is what the next binary has to look at the configuration.
const checkWithin = 30 * time.Second

// successor is the process after this one: the same process with another program in it
// (execve), so that whoever watches over it keeps its PID, and so that no two processes
// ever want the archive. The sockets stay open in between.
type successor struct {
	path  string
	named []socket
}

type socket struct {
	name string
	file *os.File
}

// handOver waits until it is asked for, makes sure that the next process will be able to
// start, and ends this one by stop.
func (p *program) handOver(ctx context.Context, asked <-chan os.Signal, stop func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		}
		next, err := p.prepare(ctx)
		if err != nil {
			p.log.Error("nothing is handed over, this process goes on", zap.Error(err))
			continue
		}
		p.log.Info("handing over", zap.String("to", next.path))
		p.next = next
		p.ingest.HandOver()
		stop()
		<-ctx.Done()
		return
	}
}

// prepare finds the program as it was called, since its file or a link on the way to it
// may be another by now, and has it judge the configuration before anything is stopped.
func (p *program) prepare(ctx context.Context) (*successor, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}
	was := p.conf.Load()
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, "check", "-c", was.Path).CombinedOutput(); err != nil {
		out = bytes.TrimSpace(out)
		return nil, fmt.Errorf("%s check -c %s: %w: %s", path, was.Path, err, out[max(0, len(out)-2000):])
	}
	conf, err := config.Load(was.Path, p.cat)
	if err != nil {
		return nil, err
	}
	next := &successor{path: path}
	for _, s := range []struct {
		name    string
		ln      net.Listener
		was, is string
	}{{"ingest", p.sockets.ingest, p.listens.Ingest.Listen, conf.Ingest.Listen}, {"admin", p.sockets.admin, p.listens.Admin.Listen, conf.Admin.Listen}} {
		if s.was != s.is {
			continue // the next process opens the new one
		}
		ln, ok := s.ln.(*net.TCPListener)
		if !ok {
			next.close()
			return nil, fmt.Errorf("the %s listener is a %T", s.name, s.ln)
		}
		f, err := ln.File()
		if err != nil {
			next.close()
			return nil, fmt.Errorf("keep the %s socket: %w", s.name, err)
		}
		next.named = append(next.named, socket{s.name, f})
	}
	return next, nil
}

func (n *successor) close() {
	for _, s := range n.named {
		_ = s.file.Close()
	}
}

// exec puts the next program in this one's place. It returns only if that fails.
func (n *successor) exec(idle []*os.File) error {
	// Asked a second time before it has its handlers, it must not end by that.
	signal.Ignore(syscall.SIGUSR2, syscall.SIGHUP)
	for _, f := range idle {
		n.named = append(n.named, socket{"idle", f})
	}
	value := []string{fmt.Sprint(os.Getpid())}
	var errs []error
	for _, s := range n.named {
		fd, err := syscall.Dup(int(s.file.Fd())) // a copy that is not closed by execve
		if err != nil {
			errs = append(errs, fmt.Errorf("keep the %s socket: %w", s.name, err))
		} else {
			value = append(value, fmt.Sprintf("%s=%d", s.name, fd))
		}
		_ = s.file.Close()
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, socketsVar+"=") })
	err := syscall.Exec(n.path, os.Args, append(env, socketsVar+"="+strings.Join(value, " ")))
	return errors.Join(append(errs, fmt.Errorf("start %s: %w", n.path, err))...)
}
