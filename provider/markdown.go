package provider

import (
	"fmt"
	"sort"
	"strings"
)

// Markdown is the provider's page of docs/providers and of `providers show`: what is
// verified, what to enter where, and how its events are understood, row by row with its
// source.
func (d *Definition) Markdown() string {
	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	w("# %s (`%s`)\n\n", firstOf(d.Title, d.Name), d.Name)
	if d.Docs != "" {
		w("Provider's documentation: <%s>\n\n", d.Docs)
	}
	w("## Set it up\n\n")
	if d.Setup != "" {
		w("%s\n\n", strings.TrimSpace(d.Setup))
	}
	w("The address to enter there: `https://YOUR-HOST/in/NAME`, with the name of your source.\n\n")
	d.markCredentials(w)
	d.markVerification(w)
	d.markDelivery(w)
	d.markEvent(w)
	d.markMapping(w)
	d.markFailures(w)
	if len(d.Weaknesses) > 0 {
		w("## What the scheme does not protect from\n\n")
		for _, s := range d.Weaknesses {
			w("- %s\n", s)
		}
		w("\n")
	}
	if types := d.SampleTypes(); len(types) > 0 {
		w("## Samples\n\n`penstock send %s --type TYPE` with one of:\n\n", d.Name)
		for _, s := range types {
			w("- `%s`\n", s.Type)
		}
		w("\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

type writef func(format string, args ...any)

func (d *Definition) markCredentials(w writef) {
	specs := d.CredentialSpecs()
	if len(specs) == 0 {
		return
	}
	w("## Credentials\n\n| name | secret | needed | what it is |\n| --- | --- | --- | --- |\n")
	for _, s := range specs {
		need := "no"
		switch {
		case s.AnyOf != "":
			need = "one of " + s.AnyOf
		case s.Required:
			need = "yes"
		}
		w("| `%s` | %s | %s | %s |\n", s.Name, yesNo(s.Secret), need, cell(s.About))
	}
	w("\n")
}

func (d *Definition) markVerification(w writef) {
	w("## Verification\n\n")
	for _, s := range d.Verification() {
		w("- %s\n", s)
	}
	if d.Signed != "" {
		w("- In the format of definitions: `signed: %s`.\n", d.Signed)
	}
	w("\n")
}

func (d *Definition) markDelivery(w writef) {
	w("## Delivery\n\n- methods: %s\n", strings.Join(d.Methods(), ", "))
	if d.BodyLimit > 0 {
		w("- body up to %d bytes\n", d.BodyLimit)
	}
	w("- answered: %s\n", d.Answer())
	w("- repeats: %s", d.RetrySchedule())
	if d.Retry.Source != "" {
		w(" (%s)", d.Retry.Source)
	}
	w("\n")
	if n := d.DedupeWindow(); n > 0 {
		w("- suggested dedupe window: %s\n", shortDuration(n))
	}
	if a := d.Addresses; len(a.Ranges) > 0 {
		w("- addresses as of %s (%s): `%s`\n", a.Date, a.Source, strings.Join(a.Ranges, "`, `"))
		if len(a.Test) > 0 {
			w("- its sandbox: `%s`\n", strings.Join(a.Test, "`, `"))
		}
		for _, r := range a.Refresh {
			w("- refreshed from <%s> while a source says `allow_ips: [provider]`\n", r.URL)
		}
	} else {
		w("- addresses: %s\n", firstOf(a.None, "none that we know of"))
	}
	w("\n")
}

func (d *Definition) markEvent(w writef) {
	w("## The event\n\n| field | where it stands | proved |\n| --- | --- | --- |\n")
	d.markPlan(w, d.prog.base, nil)
	w("\n")
	for i, s := range d.prog.shapes {
		if !d.differs(s.plan, d.prog.base) {
			continue
		}
		w("%s, where %s:\n\n| field | where it stands | proved |\n| --- | --- | --- |\n", upperFirst(s.name), conditionText(d.Shapes[i].When))
		d.markPlan(w, s.plan, d.prog.base)
		w("\n")
	}
	base := identityText(d.prog.base.identity)
	w("Dedupe identity: %s\n\n", base)
	for i, s := range d.prog.shapes {
		if own := identityText(s.plan.identity); own != base {
			w("Dedupe identity of %s, where %s: %s\n\n", s.name, conditionText(d.Shapes[i].When), own)
		}
	}
	for i := range d.Once {
		o := &d.Once[i]
		w("Once per %s: %s", composedText(o.Per), strings.Join(o.Is, ", "))
		if len(o.When) > 0 {
			w(" (%s)", conditionText(o.When))
		}
		w("; said again under another id it goes out as `%s`.\n\n", d.OwnType("<type>"))
	}
	if d.Rerendered {
		w("Retries are rendered anew: other bytes under one id are the same event.\n\n")
	}
	if len(d.SecretFields) > 0 {
		names := make([]string, len(d.SecretFields))
		for i, r := range d.SecretFields {
			names[i] = r.String()
		}
		w("Never leaves the archive: `%s`.\n\n", strings.Join(names, "`, `"))
	}
}

// identityText says in a sentence what tells two events apart.
func identityText(id Identity) string {
	switch id.Rule {
	case "id":
		return "the event's id; it stands inside the signed bytes."
	case "id+content":
		return "the event's id, which is not signed, with the hash of the signed content."
	case "fields":
		return "the signed fields " + composedText(id.Fields) + "."
	case "fields+content":
		return composedText(id.Fields) + ", which are not signed, with the hash of the signed content."
	case "received":
		return "none. The provider says the same every time, so every delivery is an event, a repeat too."
	}
	return "the hash of the signed content."
}

// markPlan writes a plan's fields; of a shape those that differ from the base.
func (d *Definition) markPlan(w writef, pl, base *plan) {
	old := map[string]string{}
	if base != nil {
		for name, row := range planRows(d, base) {
			old[name] = row
		}
	}
	rows := planRows(d, pl)
	names := make([]string, 0, len(rows))
	for n := range rows {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if old[n] != rows[n] {
			w("| `%s` | %s\n", n, rows[n])
		}
	}
}

// differs says whether a shape has a row that the base has not.
func (d *Definition) differs(pl, base *plan) bool {
	old := planRows(d, base)
	for name, row := range planRows(d, pl) {
		if old[name] != row {
			return true
		}
	}
	return false
}

func planRows(d *Definition, pl *plan) map[string]string {
	rows := map[string]string{}
	for _, p := range pl.places() {
		if p.name == "" || p.name == "id" || p.value.IsZero() || rows[p.name] != "" {
			continue
		}
		rows[p.name] = valueText(*p.value) + " | " + yesNo(d.provesValue(*p.value)) + " |"
	}
	if len(pl.ID) > 0 {
		proved := true
		for _, v := range pl.ID {
			proved = proved && d.provesValue(v)
		}
		rows["id"] = composedText(pl.ID) + " | " + yesNo(proved) + " |"
	}
	if a, ok := rows["amount"]; ok && pl.Amount.Unit != "" {
		rows["amount"] = strings.Replace(a, " |", " ("+pl.Amount.Unit+" unit) |", 1)
	}
	return rows
}

func (d *Definition) markMapping(w writef) {
	w("## Canonical types\n\nThe first row that fits; whatever fits none passes as `%s`. [V]: read in the provider's documentation or code; [V2]: in two\nindependent places; [U]: not confirmed there.", d.OwnType("<type>"))
	if d.IgnoreCase {
		w(" Compared without regard to case.")
	}
	w("\n\n| their type | their status | where | becomes | source |\n| --- | --- | --- | --- | --- |\n")
	for i := range d.prog.rows {
		r := &d.prog.rows[i]
		is := string(r.Is)
		if is == "provider" {
			is = d.OwnType("<type>")
		}
		source := r.Source
		if r.Note != "" {
			source = strings.TrimPrefix(source+"; "+r.Note, "; ")
		}
		w("| %s | %s | %s | `%s` | %s |\n", wordsText(r.Type), wordsText(r.Status), conditionText(r.When), is, cell(source))
	}
	w("\n")
}

func (d *Definition) markFailures(w writef) {
	if len(d.Failure.Reasons) == 0 {
		if d.Failure.Source != "" {
			w("## Why something failed\n\nEvery failure is `other`. Source: %s.\n\n", d.Failure.Source)
		}
		return
	}
	w("## Why something failed\n\nFrom %s; what is not listed is `other`.", valueText(d.Failure.Code))
	if d.Failure.Source != "" {
		w(" Source: %s.", d.Failure.Source)
	}
	w("\n\n| reason | their codes |\n| --- | --- |\n")
	names := make([]string, 0, len(d.Failure.Reasons))
	for n := range d.Failure.Reasons {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		w("| `%s` | %s |\n", n, wordsText(d.Failure.Reasons[n]))
	}
	w("\n")
}

func valueText(v Value) string {
	var parts []string
	for _, r := range v.Path {
		parts = append(parts, "`"+r.String()+"`")
	}
	if v.Default != "" {
		parts = append(parts, "\""+v.Default+"\"")
	}
	return cell(strings.Join(parts, ", else "))
}

func composedText(c Composed) string {
	parts := make([]string, len(c))
	for i, v := range c {
		parts[i] = valueText(v)
	}
	return strings.Join(parts, " + ")
}

func wordsText(words Words) string {
	if len(words) == 0 {
		return ""
	}
	return cell("`" + strings.Join(words, "`, `") + "`")
}

func conditionText(cs Conditions) string {
	keys := make([]string, 0, len(cs))
	for k := range cs {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var parts []string
	for _, k := range keys {
		m, name := cs[k], "`"+k+"`"
		if len(m.Is) > 0 {
			parts = append(parts, name+" is "+strings.Join(m.Is, " or "))
		}
		if len(m.Not) > 0 {
			parts = append(parts, name+" is not "+strings.Join(m.Not, " or "))
		}
		if m.Present != nil && *m.Present {
			parts = append(parts, name+" is there")
		}
		if m.Present != nil && !*m.Present {
			parts = append(parts, name+" is absent")
		}
		if m.Above != "" {
			parts = append(parts, name+" above "+m.Above)
		}
		if m.Below != "" {
			parts = append(parts, name+" below "+m.Below)
		}
		if !m.Differs.IsZero() {
			parts = append(parts, name+" differs from `"+m.Differs.String()+"`")
		}
	}
	return cell(strings.Join(parts, "; "))
}

func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", "\\|")
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
