package verify

import (
	"strings"
	"time"

	"penstock/provider"
)

// legacyVerifier is the older SHA-1 header of the GitHub family, asked only where the
// operator said so and the current header is not sent at all.
func legacyVerifier(name string, s provider.Scheme, creds provider.Credentials) (*Verifier, error) {
	s.Algorithm = "sha1"
	s.Signature.Header = strings.TrimSuffix(s.Signature.Header, "-256")
	s.Signature.Prefix = "sha1="
	s.Signature.Alternatives = nil
	return newVerifier(name, s, creds, Options{})
}

// compileOlder readies the schemes from before this one, each asked where the one in front
// of it finds none of its headers.
func (v *Verifier) compileOlder(creds provider.Credentials) error {
	for _, s := range v.s.Older {
		s.Credentials = v.s.EffectiveCredentials()
		o, err := newVerifier(v.name, s, creds, Options{Keys: v.source})
		if err != nil {
			return err
		}
		v.older = append(v.older, o)
	}
	return nil
}

// checkOlder asks the first older scheme whose headers are there.
func (v *Verifier) checkOlder(r *provider.Request, now time.Time, sc *scratch) (by, reason string) {
	current := v.sig.headers
	for _, o := range v.older {
		fits := true
		for i := range o.require {
			fits = fits && o.require[i].check(r) == ""
		}
		if fits {
			return o.checkLegacy(r, now, sc, current)
		}
	}
	return "", SignatureMissing
}

// checkLegacy is asked only where none of the current headers is sent at all: a present
// one that fails is never forgiven by an older one.
func (v *Verifier) checkLegacy(r *provider.Request, now time.Time, sc *scratch, current []string) (by, reason string) {
	for _, h := range current {
		if _, n := r.Header.Get(h); n > 0 {
			return "", SignatureMissing
		}
	}
	return v.checkSigned(r, now, sc)
}
