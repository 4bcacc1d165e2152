package iplist

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
)

// kept is a last good list on disk.
type kept struct {
	Date   string         `json:"date"`
	Ranges []netip.Prefix `json:"ranges"`
}

func (k *Keeper) path(name string) string { return filepath.Join(k.o.Dir, name+".json") }

// load reads a kept list; none is no error.
func (k *Keeper) load(name string) ([]netip.Prefix, string, error) {
	if k.o.Dir == "" {
		return nil, "", nil
	}
	b, err := os.ReadFile(k.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	var l kept
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", k.path(name), err)
	}
	return l.Ranges, l.Date, nil
}

// save keeps a list so that after a crash the old one or the new one is whole.
func (k *Keeper) save(name string, list []netip.Prefix, day string) error {
	if k.o.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(k.o.Dir, 0o750); err != nil {
		return err
	}
	b, err := json.Marshal(kept{Date: day, Ranges: list})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(k.o.Dir, name+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), k.path(name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

type metrics struct {
	refreshes            *prometheus.CounterVec
	size, drift, checked *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_ip_list_refreshes_total",
			Help: "Looks at a provider's published addresses: unchanged, changed, failed (could not be had), refused (cannot be right)."}, []string{"provider", "result"}),
		size: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_ip_list_networks",
			Help: "Networks in force of a provider's published addresses."}, []string{"provider"}),
		drift: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_ip_list_drift_networks",
			Help: "Networks in force that the shipped list lacks (added), and the other way round (removed)."}, []string{"provider", "change"}),
		checked: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_ip_list_checked_timestamp_seconds",
			Help: "When a provider's published addresses were last had and believed."}, []string{"provider"}),
	}
	if reg != nil {
		reg.MustRegister(m.refreshes, m.size, m.drift, m.checked)
	}
	return m
}
