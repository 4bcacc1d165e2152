package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestOIDC(t *testing.T) {
	const text = "admin: {listen: '0.0.0.0:8081', public_url: 'https://p.example.com/', oidc: {issuer: 'https://login.example.com/realms/x', client_id: penstock, " +
		"client_secret: 0123456789abcdef, roles: {viewer: [staff], operator: [ops, root]}}}\n" + least
	c, err := Parse("o.yaml", []byte(text), providers())
	if err != nil {
		t.Fatal(err)
	}
	o := c.Admin.OIDC
	if o.RedirectURL != "https://p.example.com/login/oidc/callback" || o.Roles.Claim != "groups" || !slices.Equal(o.Roles.Operator, []string{"ops", "root"}) || o.Scopes != nil {
		t.Errorf("oidc: %+v", o)
	}
	if s := fmt.Sprintf("%+v", o); strings.Contains(s, "0123456789") {
		t.Errorf("the secret is printed: %s", s)
	}
	other, err := Parse("o.yaml", []byte(strings.Replace(text, "staff", "guests", 1)), providers())
	if err != nil {
		t.Fatal(err)
	}
	if got := Diff(c, other); !slices.Equal(got, []string{"admin.oidc.roles.viewer"}) {
		t.Errorf("a change wants a restart for %v", got)
	}
	// A provider on this machine needs no TLS: that is how one tries it.
	local := strings.Replace(text, "https://login.example.com/realms/x", "http://127.0.0.1:8085", 1)
	if _, err := Parse("o.yaml", []byte(local), providers()); err != nil {
		t.Error(err)
	}
}
