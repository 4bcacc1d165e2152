package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"penstock/config"
	"penstock/provider"
)

func providersCommand() *command {
	return &command{name: "providers", short: "what is supported, and how to set it up at the provider",
		sub: []*command{{name: "list", short: "list them", setup: setupListProviders}, {name: "show", args: "NAME", short: "how to set one up",
			setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
				asJSON := fs.Bool("json", false, "print JSON")
				return func(_ context.Context, args []string) int {
					if len(args) != 1 {
						return a.usageError("providers show", "name one provider")
					}
					return a.showProvider(args[0], *asJSON)
				}
			}}},
		long:  "`penstock providers` lists them. One that is not among them can be described in the\nconfiguration, in the same format as those here.",
		setup: setupListProviders}
}

func setupListProviders(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
	asJSON := fs.Bool("json", false, "print JSON")
	return func(_ context.Context, args []string) int {
		if len(args) > 0 {
			return a.usageError("providers", "unexpected argument %q; did you mean providers show %s?", args[0], args[0])
		}
		return a.listProviders(*asJSON)
	}
}

// providerRow is what is told of a provider; the JSON of `providers --json`.
type providerRow struct {
	Name         string          `json:"name"`
	Title        string          `json:"title"`
	Scheme       string          `json:"scheme"`
	Algorithm    string          `json:"algorithm,omitempty"`
	Docs         string          `json:"docs,omitempty"`
	Setup        string          `json:"setup,omitempty"`
	Methods      []string        `json:"methods"`
	Credentials  []credentialRow `json:"credentials"`
	MaxBody      int64           `json:"max_body,omitempty"`
	RetryHorizon string          `json:"retry_horizon,omitempty"`
	Retries      string          `json:"retries"`
	Verification []string        `json:"verification"` // in words
	Answer       string          `json:"answer"`       // in words
	Events       []eventRow      `json:"events"`
	IPRefreshed  bool            `json:"ip_ranges_refreshed,omitempty"`
	IPRanges     []string        `json:"ip_ranges,omitempty"`
	IPDate       string          `json:"ip_ranges_date,omitempty"`
	IPNone       string          `json:"ip_ranges_none,omitempty"` // why there is no list
	Weaknesses   []string        `json:"weaknesses,omitempty"`
	SampleTypes  []string        `json:"sample_types"`
}

// eventRow is one canonical type and the provider's words that become it.
type eventRow struct {
	Type string   `json:"type"`
	From []string `json:"from"`
}

type credentialRow struct {
	Name     string `json:"name"`
	Secret   bool   `json:"secret"`
	Required bool   `json:"required"`
	AnyOf    string `json:"any_of,omitempty"`
	About    string `json:"about,omitempty"`
}

func providerInfo(d *provider.Definition) providerRow {
	r := providerRow{Name: d.Name, Title: d.Title, Scheme: d.Scheme.Scheme, Algorithm: d.Algorithm, Docs: d.Docs, Setup: d.Setup,
		Methods: d.Methods(), MaxBody: d.MaxBody(), Weaknesses: d.Weaknesses, Credentials: []credentialRow{}, SampleTypes: []string{},
		Retries: d.RetrySchedule(), Verification: d.Verification(), Answer: d.Answer(), Events: []eventRow{}, IPRefreshed: len(d.Addresses.Refresh) > 0}
	for _, e := range d.CanonicalEvents() {
		r.Events = append(r.Events, eventRow(e))
	}
	if h := d.RetryHorizon(); h > 0 {
		r.RetryHorizon = config.FormatDuration(h)
	}
	ranges, date := d.IPRanges()
	for _, p := range ranges {
		r.IPRanges = append(r.IPRanges, p.String())
	}
	r.IPNone = d.Addresses.None
	if len(ranges) > 0 {
		r.IPDate = date
	} else if r.IPNone == "" {
		r.IPNone = "none that we know of"
	}
	for _, c := range d.CredentialSpecs() {
		r.Credentials = append(r.Credentials, credentialRow{c.Name, c.Secret, c.Required, c.AnyOf, c.About})
	}
	for _, e := range d.SampleTypes() {
		r.SampleTypes = append(r.SampleTypes, e.Type)
	}
	return r
}

func (a *app) listProviders(asJSON bool) int {
	rows := []providerRow{}
	for _, name := range a.w.Providers.Names() {
		if d, ok := a.w.Providers.Get(name); ok {
			rows = append(rows, providerInfo(d))
		}
	}
	if asJSON {
		return a.printJSON(map[string]any{"providers": rows})
	}
	var cells [][]string
	for _, r := range rows {
		var names []string
		for _, c := range r.Credentials {
			names = append(names, c.Name)
		}
		cells = append(cells, []string{r.Name, r.Title, strings.TrimSpace(r.Scheme + " " + r.Algorithm), strings.Join(names, ", ")})
	}
	a.table(a.Stdout, []string{"NAME", "PROVIDER", "SCHEME", "CREDENTIALS"}, cells, nil)
	fmt.Fprintf(a.Stdout, "\n%d providers; penstock providers show NAME tells how to set one up\n", len(rows))
	return exitOK
}

func (a *app) showProvider(name string, asJSON bool) int {
	d, ok := a.w.Providers.Get(name)
	if !ok {
		return a.fail(exitFound, "%v", unknownProvider(name, a.w.Providers.Names()))
	}
	r := providerInfo(d)
	if asJSON {
		return a.printJSON(r)
	}
	w := a.Stdout
	title := r.Title
	if title == "" {
		title = r.Name
	}
	fmt.Fprintln(w, a.paint(bold, title))
	if r.Docs != "" {
		fmt.Fprintf(w, "  %s\n", r.Docs)
	}
	printSetup(w, r)
	head := func(text string) { fmt.Fprintln(w, "\n"+a.paint(bold, text)) }
	head("What is verified")
	for _, s := range r.Verification {
		fmt.Fprintf(w, "  - %s\n", s)
	}
	head("How it delivers")
	field := func(k, v string) { fmt.Fprintf(w, "  %-10s %s\n", k, v) }
	field("methods", strings.Join(r.Methods, ", "))
	field("answer", r.Answer)
	field("repeats", r.Retries)
	if len(r.IPRanges) > 0 {
		fresh := "shipped"
		if r.IPRefreshed {
			fresh = "refreshed daily"
		}
		field("addresses", fmt.Sprintf("%d networks as of %s, %s; allow_ips: [provider] lets in nobody else:", len(r.IPRanges), r.IPDate, fresh))
		fmt.Fprintf(w, "             %s\n", strings.ReplaceAll(strings.ReplaceAll(strings.Join(r.IPRanges, " ")+" ", "/32 ", " "), "/128 ", " "))
	} else {
		field("addresses", r.IPNone)
	}
	head("Events")
	rest := "whatever it sends"
	for _, e := range r.Events {
		fmt.Fprintf(w, "  %-24s %s\n", e.Type, strings.Join(e.From, "; "))
		rest = "whatever else it sends"
	}
	fmt.Fprintf(w, "  %-24s %s\n", d.OwnType("<type>"), rest)
	if len(r.Weaknesses) > 0 {
		head("What its scheme does not protect from")
		for _, x := range r.Weaknesses {
			fmt.Fprintf(w, "  - %s\n", x)
		}
	}
	if len(r.SampleTypes) > 0 {
		head("Try it")
		fmt.Fprintf(w, "  penstock send %s --type %q\n  penstock send %s --list     shows all %d events that can be sent\n", r.Name, r.SampleTypes[0], r.Name, len(r.SampleTypes))
	}
	return exitOK
}

func printSetup(w io.Writer, r providerRow) {
	if r.Setup != "" {
		fmt.Fprintf(w, "\nAt the provider:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(r.Setup), "\n", "\n  "))
	}
	fmt.Fprintf(w, "\nIn penstock.yaml:\n  sources:\n    - name: %s\n      provider: %s\n      credentials:\n", r.Name, r.Name)
	for _, c := range r.Credentials {
		note := c.About
		if !c.Required {
			kind := "optional"
			if c.AnyOf != "" {
				kind = "one of the group " + c.AnyOf
			}
			note = strings.TrimPrefix(note+" ("+kind+")", " ")
		}
		env := strings.ToUpper(r.Name + "_" + c.Name)
		fmt.Fprintf(w, "        %s: env:%s   # %s\n", c.Name, env, note)
	}
	fmt.Fprintf(w, "\nThe address to enter at the provider: https://YOUR-HOST/in/%s\n", r.Name)
}
