package provider

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Verification says in words what is checked, one sentence an entry: for people who have
// never seen the format of definitions.
func (d *Definition) Verification() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	d.sayScheme(say)
	d.sayFields(say)
	if d.ID != nil {
		say("The message id stands in header %s.", d.ID.Header)
	}
	d.sayClock(say)
	for _, name := range sortedKeysOf(d.Require) {
		if v := d.Require[name]; v != "" {
			say("Header %s must be %q.", name, v)
		} else {
			say("Header %s must be there once.", name)
		}
	}
	for _, c := range d.EffectiveCredentials() {
		if c.Role == "merchant" && c.Field != "" {
			say("Deliveries whose %s is not the configured %s are refused%s.", c.Field, c.Name, map[bool]string{true: ", where one is configured"}[c.Optional])
		}
	}
	if len(d.Challenge) > 0 {
		say("Handshakes of the provider are answered by themselves (%s).", strings.Join(d.ChallengeMethods(), ", "))
	}
	return out
}

func (d *Definition) sayScheme(say func(string, ...any)) {
	alg := strings.ToUpper(strings.ReplaceAll(d.Algorithm, "sha", "sha-"))
	alg = strings.ReplaceAll(alg, "SHA-3-256", "SHA3-256")
	if alg == "" && len(d.Algorithms) > 0 {
		alg = "the hash that the delivery names (" + strings.Join(sortedKeysOf(d.Algorithms), ", ") + ")"
	}
	what := "the signed fields"
	if d.Signed != "" {
		what = templateWords(d.Signed)
	}
	at := d.signaturePlace()
	switch d.Scheme.Scheme {
	case "hmac":
		say("HMAC-%s over %s, keyed with the shared secret%s; it stands in %s.", alg, what, keyWords(d.Key), at)
	case "hash", "hash_concat":
		pos := map[string]string{"prefix": "in front", "both": "in front and at the end"}[d.KeyPosition]
		say("%s over %s with the secret %s; it stands in %s.", alg, what, firstOf(pos, "at the end"), at)
	case "rsa", "ecdsa":
		say("%s with %s over %s, checked with the provider's public key; it stands in %s.", strings.ToUpper(d.Scheme.Scheme), alg, what, at)
	case "ed25519":
		say("Ed25519 over %s, checked with the provider's public key; it stands in %s.", what, at)
	case "standard_webhooks":
		pre := "webhook"
		if len(d.Prefixes) > 0 {
			pre = d.Prefixes[0]
		}
		say("Standard Webhooks: HMAC-SHA-256 (v1) or Ed25519 (v1a) over the message id, a dot, the timestamp, a dot, and the raw body; headers %s-id, %s-timestamp, %s-signature.", pre, pre, pre)
	case "token":
		at = "the configured place"
		if t := d.Token; t != nil {
			at = firstOf(prefixed("header ", t.Header), prefixed("query parameter ", t.Query), prefixed("body field ", t.Field))
		}
		say("Nothing is signed: a shared token in %s must be the configured one.", at)
	case "basic":
		say("Nothing is signed: user name and password come with HTTP Basic authentication.")
	case "none":
		say("Nothing is verified: anybody can send this. Ask the provider before anyone books.")
	case "jwt":
		d.sayJWT(say)
	default:
		say("A scheme of its own (%s)%s.", d.Scheme.Scheme, prefixed("; the signature stands in ", at))
	}
	for _, name := range d.ownPieces() {
		say("{own:%s} is %s.", name, OwnPieces[name].About)
	}
	for i := range d.Older {
		o := &d.Older[i]
		say("Where no newer signature is sent, an older scheme is asked: %s with %s over %s, in header %s.", o.Scheme, o.Algorithm, templateWords(o.Signed), o.Signature.Header)
	}
	if p := d.Published; p != nil && len(p.Hosts) > 0 {
		say("Keys and certificates are fetched from %s, and from nowhere else; while none is to be had the answer is 503.", strings.Join(p.Hosts, ", "))
	}
}

func (d *Definition) sayJWT(say func(string, ...any)) {
	say("A JSON Web Token, signed with %s.", strings.Join(d.JWT.Algorithms, " or "))
	for _, c := range d.JWT.Claims {
		switch {
		case c.SHA256 != "":
			say("Its claim %s must be the SHA-256 of the %s.", c.Claim, c.SHA256)
		case c.Equals != "":
			say("Its claim %s must be the %s that was called.", c.Claim, c.Equals)
		case len(c.Is) > 0:
			say("Its claim %s must be %s.", c.Claim, strings.Join(c.Is, " or "))
		}
	}
}

func prefixed(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func keyWords(key string) string {
	switch key {
	case "base64":
		return " (decoded from base64)"
	case "hex":
		return " (decoded from hex)"
	case "whsec":
		return " (the part after whsec_, decoded from base64)"
	}
	return ""
}

func (d *Definition) signaturePlace() string {
	g := &d.Signature
	place := firstOf(prefixed("header ", g.Header), prefixed("body field ", g.Field), prefixed("query parameter ", g.Query))
	if place == "" {
		return ""
	}
	how := map[string]string{"hex": "in hex", "hex_lower": "in lower-case hex", "HEX": "in upper-case hex", "base64": "in base64", "base64url": "in base64url"}[g.Encoding]
	if g.Key != "" {
		how = strings.TrimSpace(how + " behind the label " + g.Key)
	}
	if g.Prefix != "" {
		how = strings.TrimSpace(how + " after " + strconv.Quote(g.Prefix))
	}
	return strings.TrimSpace(place + " " + how)
}

func (d *Definition) sayFields(say func(string, ...any)) {
	if len(d.Fields) == 0 {
		return
	}
	names := make([]string, len(d.Fields))
	for i, f := range d.Fields {
		names[i] = f.Path
	}
	join := "joined without a separator"
	if d.Separator != "" {
		join = "joined by " + strconv.Quote(d.Separator)
	}
	say("The signed fields are %s, in this order, %s. Whatever else the body says is not proved.", strings.Join(names, ", "), join)
}

func (d *Definition) sayClock(say func(string, ...any)) {
	switch {
	case d.Tolerance > 0:
		where := ""
		if t := d.Timestamp; t != nil {
			where = firstOf(prefixed("header ", t.Header), prefixed("label ", t.Key), prefixed("field ", t.JSON), prefixed("field ", t.Form), prefixed("parameter ", t.Query))
			where = prefixed(" (", where) + map[bool]string{true: ")"}[where != ""]
		}
		say("The signed time%s may be %s from this machine's clock, in both directions.", where, shortDuration(d.Tolerance))
	case d.Scheme.Scheme != "none":
		say("No time is checked: deduplication stops replays.")
	}
}

var templatePiece = regexp.MustCompile(`\{[^{}]*\}|[^{}]+`)

// templateWords says what a template of signed bytes stands for.
func templateWords(signed string) string {
	var parts []string
	for _, p := range templatePiece.FindAllString(signed, -1) {
		if p[0] != '{' {
			parts = append(parts, strconv.Quote(p))
			continue
		}
		kind, name, _ := strings.Cut(strings.Trim(p, "{}"), ":")
		word, ok := map[string]string{"body": "the raw body", "ts": "the timestamp", "id": "the message id", "url": "the URL as it was entered at the provider", "method": "the method",
			"path": "the path", "query": "the query", "key": "the secret", "all": "all fields in the provider's order", "php_serialize": "the form as PHP serializes it",
			"h": "header " + name, "q": "query parameter " + name, "json": "field " + name, "form": "field " + name, "base64_without": "base64 of the body without " + name}[kind]
		if !ok {
			word = p
		}
		parts = append(parts, word)
	}
	return strings.Join(parts, " + ")
}

// Answer says what a good delivery is answered.
func (d *Definition) Answer() string {
	a := d.Ack
	if a == nil {
		return "200 with an empty body"
	}
	status := strconv.Itoa(max(a.Status, 200))
	if a.Status == 0 {
		status = "200"
	}
	switch {
	case a.Builder != "":
		return status + " with a body that is computed and signed as the provider wants it"
	case a.Body != "":
		return status + " with the body " + a.Body
	}
	return status + " with an empty body"
}

// CanonicalEvent is a canonical type and the provider's words that become it.
type CanonicalEvent struct {
	Type string
	From []string
}

// CanonicalEvents lists what the provider's events become.
func (d *Definition) CanonicalEvents() []CanonicalEvent {
	words := map[string][]string{}
	for i := range d.prog.rows {
		r := &d.prog.rows[i]
		is := string(r.Is)
		if is == "provider" {
			continue
		}
		var parts []string
		if len(r.Type) > 0 {
			parts = append(parts, strings.Join(r.Type, ", "))
		}
		if len(r.Status) > 0 {
			parts = append(parts, "status "+strings.Join(r.Status, ", "))
		}
		if len(r.When) > 0 {
			parts = append(parts, "where "+strings.ReplaceAll(conditionText(r.When), "`", ""))
		}
		if word := strings.Join(parts, ", "); !contains(words[is], word) {
			words[is] = append(words[is], firstOf(word, "everything"))
		}
	}
	var out []CanonicalEvent
	for _, is := range sortedKeysOf(words) {
		out = append(out, CanonicalEvent{is, words[is]})
	}
	return out
}

// RetrySchedule says how the provider repeats itself.
func (d *Definition) RetrySchedule() string {
	r := d.Retry
	var parts []string
	if r.Schedule != "" {
		parts = append(parts, r.Schedule)
	} else {
		parts = append(parts, "not known to us")
	}
	if r.Horizon > 0 {
		parts = append(parts, "over "+shortDuration(r.Horizon))
	}
	if r.Timeout > 0 {
		parts = append(parts, "waits "+shortDuration(r.Timeout)+" for an answer")
	}
	return strings.Join(parts, "; ")
}

func shortDuration(t time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case t >= 2*day && t%day == 0:
		return strconv.Itoa(int(t/day)) + " days"
	case t >= time.Hour && t%time.Hour == 0:
		return strconv.Itoa(int(t/time.Hour)) + " h"
	case t >= time.Minute && t%time.Minute == 0:
		return strconv.Itoa(int(t/time.Minute)) + " min"
	}
	return t.String()
}

func sortedKeysOf[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Markdown is the overview of the catalogue: docs/providers/README.md.
func (c *Catalogue) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The catalogue\n\n%d providers. Made from `provider/definitions`; `penstock providers show NAME` prints the same in words.\n\n", len(c.names))
	b.WriteString("Signed: what the signature covers. Clock: how old a delivery may be; without one deduplication alone stops replays. Money: the families of canonical\nevents. Repeats: from the first attempt to the last. Addresses: the day on which the published list was read, * where it is refreshed.\n\n")
	b.WriteString("| provider | name | scheme | signed | clock | money | repeats | addresses |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, name := range c.names {
		d := c.byName[name]
		fmt.Fprintf(&b, "| [%s](%s.md) | `%s` | %s | %s | %s | %s | %s | %s |\n", cell(firstOf(d.Title, name)), name, name,
			cell(strings.TrimSpace(d.Scheme.Scheme+" "+d.Algorithm)), d.signedCell(), d.clockCell(), d.familiesCell(), d.repeatsCell(), d.addressesCell())
	}
	return b.String()
}

func (d *Definition) signedCell() string {
	switch {
	case d.Scheme.Scheme == "standard_webhooks":
		return "body"
	case len(d.Fields) > 0:
		return strconv.Itoa(len(d.Fields)) + " fields"
	case d.Scheme.Scheme == "token" || d.Scheme.Scheme == "basic" || d.Scheme.Scheme == "none":
		return "nothing"
	case strings.Contains(d.Signed, "{body}"):
		return "body"
	case d.Signed == "":
		return "its own way"
	}
	return cell("`" + d.Signed + "`")
}

func (d *Definition) clockCell() string {
	if d.Tolerance == 0 {
		return "-"
	}
	return shortDuration(d.Tolerance)
}

func (d *Definition) familiesCell() string {
	var out []string
	for _, e := range d.CanonicalEvents() {
		if family, _, _ := strings.Cut(e.Type, "."); !contains(out, family) {
			out = append(out, family)
		}
	}
	return firstOf(strings.Join(out, ", "), "-")
}

func (d *Definition) repeatsCell() string {
	if d.Retry.Horizon == 0 {
		return "-"
	}
	return shortDuration(d.Retry.Horizon)
}

func (d *Definition) addressesCell() string {
	switch {
	case len(d.Addresses.Ranges) == 0:
		return "-"
	case len(d.Addresses.Refresh) > 0:
		return d.Addresses.Date + " *"
	}
	return d.Addresses.Date
}
