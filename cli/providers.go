package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

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
	IPRanges     []string        `json:"ip_ranges,omitempty"`
	IPDate       string          `json:"ip_ranges_date,omitempty"`
	Weaknesses   []string        `json:"weaknesses,omitempty"`
	SampleTypes  []string        `json:"sample_types"`
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
		Methods: d.Methods(), MaxBody: d.MaxBody(), Weaknesses: d.Weaknesses, Credentials: []credentialRow{}, SampleTypes: []string{}}
	if h := d.RetryHorizon(); h > 0 {
		r.RetryHorizon = config.FormatDuration(h)
	}
	ranges, date := d.IPRanges()
	for _, p := range ranges {
		r.IPRanges = append(r.IPRanges, p.String())
	}
	if len(ranges) > 0 {
		r.IPDate = date
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
	field := func(k, v string) {
		if v != "" {
			fmt.Fprintf(w, "  %-14s %s\n", k, v)
		}
	}
	field("scheme", strings.TrimSpace(r.Scheme+" "+r.Algorithm))
	field("methods", strings.Join(r.Methods, ", "))
	if d.Tolerance > 0 {
		field("tolerance", time.Duration(d.Tolerance).String())
	}
	field("repeats for", r.RetryHorizon)
	if len(r.IPRanges) > 0 {
		field("addresses", fmt.Sprintf("%d networks published, read %s (allow_ips: [provider])", len(r.IPRanges), r.IPDate))
	}
	field("docs", r.Docs)
	printSetup(w, r)
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
	if len(r.SampleTypes) > 0 {
		fmt.Fprintf(w, "\nTo try it: penstock send %s --type %s   (types: %s)\n", r.Name, r.SampleTypes[0], strings.Join(r.SampleTypes, ", "))
	}
	if len(r.Weaknesses) > 0 {
		fmt.Fprintln(w, "\nWhat its signature does not protect from:")
		for _, x := range r.Weaknesses {
			fmt.Fprintf(w, "  - %s\n", x)
		}
	}
}
