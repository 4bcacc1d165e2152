package provider

import (
	"fmt"
	"strings"
)

// TenantPlaces says where a delivery names its merchant, for a source that serves many:
// the field of the scheme's only merchant credential, else the places of event.tenant. The
// name selects the credentials that are tried and proves nothing.
type TenantPlaces struct {
	// Credential is the merchant credential whose field names the merchant, nil where the
	// event's own places do.
	Credential *Credential
	// Paths are dotted paths of the document, or header:Name; the first that is there counts.
	Paths []string
	// List is the path of the batch ("events") whose every element is looked at, and must
	// name the same merchant: one signature proves them all. "" = the document.
	List string
}

// TenantPlaces finds the places. An error says why no credentials could be selected.
func (d *Definition) TenantPlaces() (TenantPlaces, error) {
	var p TenantPlaces
	if names := d.ReadingCredentials(); len(names) > 0 {
		return p, fmt.Errorf("deliveries of %s are sealed with a credential (%s), and a source has one of it, not one for each merchant", d.Name, names[0])
	}
	for _, c := range d.EffectiveCredentials() {
		if c.Role != "merchant" {
			continue
		}
		if p.Credential != nil {
			return p, fmt.Errorf("%s names a merchant in two credentials (%s, %s), so none of them can select", d.Name, p.Credential.Name, c.Name)
		}
		p.Credential = &c
	}
	switch {
	case p.Credential != nil && strings.HasPrefix(p.Credential.Field, "claim:"):
		return p, fmt.Errorf("a delivery of %s names the merchant inside its token, which is read only when it is proved, so it cannot select", d.Name)
	case p.Credential != nil && p.Credential.Field == d.Signature.Field:
		return p, fmt.Errorf("a delivery of %s names the merchant inside its signature, several at once, so none can select", d.Name)
	case p.Credential != nil && d.Each != "":
		p.List = d.Each
	case p.Credential != nil:
	case d.Each != "":
		return p, fmt.Errorf("%s signs every item of a delivery and has no merchant credential that could select", d.Name)
	default:
		return d.eventTenant()
	}
	p.Paths = []string{p.Credential.Field}
	return p, nil
}

// eventTenant takes the places of event.tenant that can be read before anything is proved.
func (d *Definition) eventTenant() (p TenantPlaces, err error) {
	v := &d.Event.Tenant
	if v.IsZero() || len(v.Map) > 0 || v.Default != "" || v.Cut != "" || v.After != "" {
		return p, fmt.Errorf("no field of a delivery of %s names the merchant as it stands (event.tenant), so none can select", d.Name)
	}
	for _, rd := range d.Document {
		if rd.Form != "" || rd.Kind == "xml" || rd.Kind == "multipart" {
			return p, fmt.Errorf("the document of a delivery of %s is wrapped, so the merchant in it cannot select before it is proved", d.Name)
		}
	}
	for i := range v.Path {
		r := &v.Path[i]
		name := r.name
		switch {
		case r.root == rootHeader:
			name = "header:" + name
		case r.root == rootDoc, r.root == rootItem && len(d.Items) == 0:
			name = strings.TrimPrefix(strings.TrimPrefix(r.text, "$"), ".")
		case r.root == rootItem && len(d.Items) == 1 && len(v.Path) == 1 && len(d.Items[0].Unless) == 0:
			list, ok := strings.CutSuffix(strings.TrimPrefix(strings.TrimPrefix(d.Items[0].Path.text, "$"), "."), ".*")
			if !ok || !plainPath(list) {
				return p, d.noTenant(r)
			}
			p.List, name = list, r.text
		default:
			return p, d.noTenant(r)
		}
		if r.root != rootHeader && !plainPath(name) {
			return p, d.noTenant(r)
		}
		p.Paths = append(p.Paths, name)
	}
	return p, nil
}

func (d *Definition) noTenant(r *Ref) error {
	return fmt.Errorf("the place of the merchant in a delivery of %s (%s) cannot be read before it is proved, so it cannot select", d.Name, r.text)
}

// plainPath: members and indexes with dots between them, nothing that searches.
func plainPath(s string) bool {
	return s != "" && !strings.ContainsAny(s, "*[]{}^$=:") && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".")
}
