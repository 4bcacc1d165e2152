package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// tenantsKey stands among a source's credentials for the merchants that have their own.
const tenantsKey = "tenants"

// Bounds of the files of merchants: a hundred thousand fit, an accident does not.
const (
	maxTenantsFile  = 64 << 20
	maxTenants      = 200_000
	maxTenantWarned = 10 // warnings of one source's merchants; the rest is counted
)

// tenants reads the merchants of a source: file:PATH, dir:PATH with a file for each, or
// written out. A file maps a merchant's name to its credentials; in a directory the file's
// name without .yaml is the merchant's.
func (d *decoder) tenants(s *Source, n ast.Node, path string, info ProviderInfo) {
	if info.TenantError != "" {
		d.fail(placeOf(n), path, info.TenantError, "give each merchant a source of its own")
		return
	}
	s.Tenants = map[string]map[string][]Secret{}
	n, ok := d.unwrap(n, path)
	if !ok {
		return
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		d.tenantList(s, n, path, info)
		return
	case *ast.StringNode:
	default:
		d.wrongType(n, path, "file:PATH, dir:PATH or a mapping of merchants")
		return
	}
	text, _, ok := d.text(n, path)
	if !ok {
		return
	}
	file, isFile := strings.CutPrefix(text, "file:")
	dir, isDir := strings.CutPrefix(text, "dir:")
	if !isFile && !isDir || file == "" && dir == "" {
		d.fail(placeOf(n), path, "names no file", "write file:PATH for one file, dir:PATH for a file per merchant, or {} where the API puts them")
		return
	}
	if info, err := os.Stat(file); isFile && err == nil && info.IsDir() {
		dir, isDir = file, true
	}
	if isDir {
		d.tenantDir(s, placeOf(n), path, dir, info)
		return
	}
	d.tenantFile(s, placeOf(n), path, file, info, func(sub *decoder, body ast.Node) { sub.tenantList(s, body, "", info) })
}

// tenantFile reads one file with a decoder of its own, so that its mistakes have places in
// it.
func (d *decoder) tenantFile(s *Source, at place, path, file string, info ProviderInfo, read func(sub *decoder, body ast.Node)) {
	d.files = append(d.files, file)
	b, err := readBounded(file, maxTenantsFile)
	if err != nil {
		d.fail(at, path, describe(file, err).Error(), "create it, or correct the path (it is relative to the working directory)")
		return
	}
	d.depends(string(b))
	s.tenantTexts = append(s.tenantTexts, tenantText{file, string(b)})
	sub := newDecoder(file)
	if len(strings.TrimSpace(string(b))) == 0 {
		sub.fail(place{1, 1}, "", "is empty, or was half written", "for no merchant at all write {}")
	} else if body, ok := sub.parse(b); ok {
		read(sub, body)
	}
	for _, e := range sub.list {
		if len(d.list) < maxErrors {
			d.list = append(d.list, e)
		}
	}
	d.files = append(d.files, sub.files...)
	d.warnings = append(d.warnings, sub.warnings...)
	d.depends(string(sub.sum.Sum(nil)))
}

// tenantDir reads a directory: every NAME.yaml in it is the merchant NAME. Names that begin
// with a dot are passed over: mounted secrets keep their versions so.
func (d *decoder) tenantDir(s *Source, at place, path, dir string, info ProviderInfo) {
	d.files = append(d.files, dir)
	list, err := os.ReadDir(dir)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		d.fail(at, path, fmt.Sprintf("directory %s cannot be read: %v", dir, err), "create it, or correct the path (it is relative to the working directory)")
		return
	}
	for _, f := range list {
		id, isYAML := strings.CutSuffix(f.Name(), ".yaml")
		if strings.HasPrefix(f.Name(), ".") || !isYAML {
			continue
		}
		if _, twice := s.Tenants[id]; twice {
			continue
		}
		d.tenantFile(s, at, path, filepath.Join(dir, f.Name()), info, func(sub *decoder, body ast.Node) {
			sub.tenant(s, id, place{1, 1}, body, "", info)
		})
	}
}

func (d *decoder) tenantList(s *Source, n ast.Node, path string, info ProviderInfo) {
	before := len(d.warnings)
	if pairs, ok := n.(*ast.MappingNode); ok && len(pairs.Values) > maxTenants {
		d.fail(placeOf(n), path, fmt.Sprintf("has more than %d merchants", maxTenants), "")
		return
	}
	d.entries(n, path, func(id string, at place, value ast.Node) {
		d.tenant(s, id, at, value, join(path, id), info)
	})
	if more := len(d.warnings) - before - maxTenantWarned; more > 0 {
		d.warnings = d.warnings[:before+maxTenantWarned]
		d.warn(placeOf(n), path, fmt.Sprintf("and %d warnings more of its merchants", more), "")
	}
}

// tenant reads one merchant's credentials. The one that names the merchant may be left
// out: the key says it.
func (d *decoder) tenant(s *Source, id string, at place, value ast.Node, path string, info ProviderInfo) {
	if value == nil || isNil(value) {
		d.fail(at, path, "has no credentials", "")
		return
	}
	creds, given := map[string][]Secret{}, map[string]bool{info.Tenant: true}
	d.at[path] = at
	value, ok := d.unwrap(value, path)
	if !ok {
		return
	}
	if !d.entries(value, path, func(key string, at place, value ast.Node) {
		p := join(path, key)
		given[key] = true
		i := slices.IndexFunc(info.Credentials, func(c CredentialSpec) bool { return c.Name == key })
		if i < 0 {
			d.fail(at, p, fmt.Sprintf("%s has no such credential", info.Name), credentialCure(key, info))
			return
		}
		creds[key] = d.credential(value, p, info.Credentials[i], s.Mode)
	}) {
		return
	}
	d.missing(path, info, given)
	s.Tenants[id] = creds
}

// tenantText is a file of merchants as it was read, to tell a half written one.
type tenantText struct{ file, text string }

// halfTenants names a file of merchants that is only the beginning of what it was: a YAML
// text that has lost its end is often valid, and the merchants that stood there would be
// refused.
func halfTenants(old, next *Config) string {
	was := map[string]string{}
	for i := range old.Sources {
		for _, t := range old.Sources[i].tenantTexts {
			was[t.file] = t.text
		}
	}
	for i := range next.Sources {
		for _, t := range next.Sources[i].tenantTexts {
			before := was[t.file]
			if len(t.text) < len(before) && strings.HasPrefix(before, t.text) || strings.HasSuffix(before, "\n") && !strings.HasSuffix(t.text, "\n") {
				return t.file
			}
		}
	}
	return ""
}
