package iplist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"penstock/keep"
)

// kept is a last good list on disk.
type kept struct {
	Date   string         `json:"date"`
	Ranges []netip.Prefix `json:"ranges"`
}

func (k *Keeper) dir() keep.Dir { return keep.Dir(k.o.Dir) }

// load reads a kept list; none is no error.
func (k *Keeper) load(name string) ([]netip.Prefix, string, error) {
	if k.o.Dir == "" {
		return nil, "", nil
	}
	b, err := k.dir().Read(name + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	var l kept
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, "", fmt.Errorf("read %s.json: %w", name, err)
	}
	return l.Ranges, l.Date, nil
}

// save keeps a list so that after a crash the old one or the new one is whole.
func (k *Keeper) save(name string, list []netip.Prefix, day string) error {
	if k.o.Dir == "" {
		return nil
	}
	b, err := json.Marshal(kept{Date: day, Ranges: list})
	if err != nil {
		return err
	}
	return k.dir().Write(name+".json", b)
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
