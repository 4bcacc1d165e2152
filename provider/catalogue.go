package provider

import (
	"embed"
	"errors"
	"fmt"
	"sort"
	"strings"
)

//go:embed definitions
var definitionFiles embed.FS

// Catalogue is a set of definitions by name.
type Catalogue struct {
	byName map[string]*Definition
	names  []string
}

// Builtin compiles the definitions that come with the program. An error is a mistake in
// one of them.
func Builtin() (*Catalogue, error) {
	entries, err := definitionFiles.ReadDir("definitions")
	if err != nil {
		return nil, fmt.Errorf("read the built-in definitions: %w", err)
	}
	c := &Catalogue{byName: make(map[string]*Definition, len(entries))}
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".yaml")
		if !ok {
			continue
		}
		d, err := builtin(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.byName[name] = d
		c.names = append(c.names, name)
	}
	sort.Strings(c.names)
	return c, errors.Join(errs...)
}

func builtin(name string) (*Definition, error) {
	file := "definitions/" + name + ".yaml"
	text, err := definitionFiles.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	d, err := Parse(file, text)
	if err != nil {
		return nil, err
	}
	if d.Name != name {
		return nil, fmt.Errorf("%s: name is %q", file, d.Name)
	}
	samples, err := builtinSamples(name)
	if err != nil {
		return nil, err
	}
	if len(samples.Events) > 0 {
		d.Samples = samples
		if err := d.compileSamples(); err != nil {
			return nil, fmt.Errorf("samples/%s.yaml: %w", name, err)
		}
	}
	return d, nil
}

// Get returns the definition called name.
func (c *Catalogue) Get(name string) (*Definition, bool) {
	d, ok := c.byName[name]
	return d, ok
}

// Names lists the definitions, sorted.
func (c *Catalogue) Names() []string { return append([]string(nil), c.names...) }
