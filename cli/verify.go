package cli

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"penstock/config"
	"penstock/provider"
	"penstock/vault"
	"penstock/verify"
)

// maxCase bounds a case file: a body of the largest size in base64, and its headers.
const maxCase = 400 << 20

func verifyCommand() *command {
	return &command{name: "verify", args: "CASE.json", short: "why is this refused? the signed bytes, both signatures", long: `
CASE.json is a case of the vectors' format or its request alone; - reads standard input.
"penstock deliveries show ID --case" prints one. The clock is the case's own, unless
--now says otherwise; without either it is this machine's. Exit code 0: accepted (or a
challenge answered), 1: refused. Secrets are never printed, only their fingerprints.

penstock verify --vectors PATH...   runs whole vector files or folders, and ends with
"vectors: N passed, M failed, K providers, D disputed"; 1 when M > 0.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			file := configFlag(fs)
			source := fs.String("source", "", "`NAME` of the source whose credentials verify")
			now := fs.Int64("now", 0, "verify at this `UNIX` time")
			vectors := fs.Bool("vectors", false, "the arguments are vector files or folders")
			asJSON := fs.Bool("json", false, "print JSON")
			return func(_ context.Context, args []string) int {
				if *vectors {
					if len(args) == 0 {
						return a.usageError("verify", "--vectors wants files or folders")
					}
					return a.runVectors(args)
				}
				if len(args) != 1 || *source == "" {
					return a.usageError("verify", "give --source NAME and one CASE.json, or --vectors PATH...")
				}
				return a.verifyCase(*file, *source, args[0], *now, *asJSON)
			}
		}}
}

func (a *app) verifyCase(file, source, path string, now int64, asJSON bool) int {
	c, ok := a.load(file)
	if !ok {
		return exitUsage
	}
	s, err := findSource(c, source, "")
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	kept, err := readVault(c)
	if err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	v, err := NewVerifier(s, kept, nil)
	if err != nil {
		return a.fail(exitUsage, "source %s: %v", s.Name, err)
	}
	vc, err := a.readCase(path)
	if err != nil {
		return a.fail(exitUsage, "%s: %v", path, err)
	}
	at, err := vc.At()
	if err != nil {
		return a.fail(exitUsage, "%s: %v", path, err)
	}
	if now != 0 {
		at = time.Unix(now, 0)
	}
	if at.IsZero() {
		at = time.Now()
	}
	r, err := vc.Delivery(at)
	if err != nil {
		return a.fail(exitUsage, "%s: %v", path, err)
	}
	if !strings.Contains(r.PublicURL, "://") {
		// A delivery shown by the API knows its target alone.
		r.PublicURL = s.URLOf(r.PublicURL)
	}
	e := v.ExplainAmong(r, at, Surroundings(c, s, r, kept))
	if asJSON {
		if code := a.printJSON(explanationJSON(e)); code != exitOK {
			return code
		}
	} else {
		a.printExplanation(e)
	}
	if e.Verdict == verify.Rejected {
		return exitFound
	}
	return exitOK
}

// Surroundings are the other sources and what the delivery says of itself; kept may be nil.
// Where a source has many merchants, which of them a stray delivery might be of is not tried.
func Surroundings(c *config.Config, s *config.Source, r *provider.Request, kept *vault.Vault) verify.Surroundings {
	def := s.Definition.(*provider.Definition)
	around := verify.Surroundings{Methods: def.Methods()}
	for i := range c.Sources {
		if n := &c.Sources[i]; n.Name != s.Name && n.Tenants == nil {
			made, err := NewVerifier(n, kept, nil)
			if v, one := made.(*verify.Verifier); err == nil && one {
				around.Neighbours = append(around.Neighbours, verify.Neighbour{Source: n.Name, Provider: n.Provider, Verifier: v})
			}
		}
	}
	if evs, err := def.Events(r); err == nil && len(evs) > 0 {
		around.Livemode = evs[0].Livemode
	}
	return around
}

func (a *app) readCase(path string) (*verify.Case, error) {
	in := a.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxCase))
	if err != nil {
		return nil, err
	}
	return verify.ParseCase(b)
}

// runVectors runs vector files against the catalogue.
func (a *app) runVectors(paths []string) int {
	res, err := verify.RunVectors(paths, a.w.Providers, a.Stdout)
	switch {
	case err != nil:
		return a.fail(exitUsage, "%v", err)
	case res.Failed > 0:
		return exitFound
	case res.Passed+res.Disputed == 0:
		return a.fail(exitUsage, "there is no vector in %s", strings.Join(paths, ", "))
	}
	return exitOK
}

// shownSigned bounds how much of the signed bytes is printed.
const shownSigned = 4096

func (a *app) printExplanation(e verify.Explanation) {
	w := a.Stdout
	word, color := verdictWord(e.Verdict), green
	if e.Verdict == verify.Rejected {
		word, color = word+": "+e.Reason, red
	}
	fmt.Fprintln(w, a.paint(color, word))
	field := func(k, v string) {
		if v != "" {
			fmt.Fprintf(w, "  %-12s %s\n", k, printable(v))
		}
	}
	field("provider", e.Provider)
	field("scheme", strings.TrimSpace(e.Scheme+" "+e.Algorithm))
	field("verified by", e.VerifiedBy)
	field("looked at", e.Where)
	field("template", e.Template)
	if e.Timestamp != "" {
		field("timestamp", fmt.Sprintf("%s, %s old; %s are allowed", e.Timestamp, e.Age.Round(time.Second), tolerance(e.Tolerance)))
	}
	if e.Signed != nil {
		shown := e.Signed[:min(len(e.Signed), shownSigned)]
		fmt.Fprintf(w, "signed bytes (%d):\n%s\n", len(e.Signed), printableLines(shown))
		if len(shown) < len(e.Signed) {
			fmt.Fprintf(w, "... %d more\n", len(e.Signed)-len(shown))
		}
	}
	for _, r := range e.Received {
		field("received", r)
	}
	for _, k := range e.Keys {
		mark := "  "
		if k.Match {
			mark = "* "
		}
		expected := k.Expected
		if expected == "" {
			expected = "(only its owner can make the signature)"
		}
		field("expected", mark+expected+"  by "+k.Credential+" "+k.Fingerprint)
	}
	for _, h := range e.Hints {
		field("hint", h)
	}
}

func tolerance(d time.Duration) string {
	if d == 0 {
		return "any age"
	}
	return d.String()
}

func verdictWord(v verify.Verdict) string {
	switch v {
	case verify.Accepted:
		return "accepted"
	case verify.Challenge:
		return "challenge"
	}
	return "rejected"
}

func explanationJSON(e verify.Explanation) map[string]any {
	keys := []map[string]any{}
	for _, k := range e.Keys {
		keys = append(keys, map[string]any{"credential": k.Credential, "fingerprint": k.Fingerprint, "expected": k.Expected, "match": k.Match})
	}
	return map[string]any{
		"verdict": verdictWord(e.Verdict), "reason": e.Reason, "verified_by": e.VerifiedBy, "provider": e.Provider,
		"scheme": e.Scheme, "algorithm": e.Algorithm, "where": e.Where, "template": e.Template,
		"signed_b64": base64.StdEncoding.EncodeToString(e.Signed), "received": e.Received, "keys": keys,
		"timestamp": e.Timestamp, "age_s": e.Age.Seconds(), "tolerance_s": e.Tolerance.Seconds(), "hints": e.Hints,
	}
}
