package main

import (
	"context"
	"errors"
	"net/http"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"penstock/archive"
	"penstock/ingest"
	"penstock/provider"
	"penstock/verify"
)

// serveEdge is what stands before an ack and nothing else: the edge, the verifier and
// the archive, which follows no index. What `ack` costs beyond it happens behind the
// answer.
func serveEdge(addr, admin, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cat, err := provider.Builtin()
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	a, err := archive.Open(filepath.Join(dir, "archive"), archive.Options{NoIndex: true, Registerer: reg})
	if err != nil {
		return err
	}
	defer a.Close()
	metrics := http.Server{Addr: admin, Handler: promhttp.HandlerFor(reg, promhttp.HandlerOpts{})}
	defer metrics.Close()
	go func() {
		if err := metrics.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			fatal(err)
		}
	}()
	s, err := ingest.New(ingest.Options{Listen: addr, MaxConns: 8192, MaxConnsPerIP: 8192, Registerer: reg}, a)
	if err != nil {
		return err
	}
	var list []ingest.Source
	for _, name := range providers {
		d, _ := cat.Get(name)
		v, err := verify.New(d, provider.Credentials{"secrets": {secret}}, verify.Options{})
		if err != nil {
			return err
		}
		list = append(list, ingest.Source{Name: name, Provider: name, Methods: d.Methods(), Verifier: v})
	}
	if err := s.SetSources(list); err != nil {
		return err
	}
	return s.Run(ctx)
}
