package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

func tenantsCommand() *command {
	return &command{name: "tenants", short: "merchants behind a source, and secrets that a handshake delivered, over the admin API",
		sub: []*command{tenantsListCommand(), tenantsPutCommand(), tenantsDeleteCommand(), capturedCommand()}}
}

// tenantsPath is the API's path of a source's merchants, or of one.
func tenantsPath(source string, id ...string) string {
	path := "/api/v1/sources/" + url.PathEscape(source) + "/tenants"
	for _, s := range id {
		path += "/" + url.PathEscape(s)
	}
	return path
}

func tenantsListCommand() *command {
	return &command{name: "list", args: "SOURCE [flags]", short: "list the merchants of a source; secrets by fingerprint",
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			asJSON := fs.Bool("json", false, "print JSON")
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("tenants list", "give one SOURCE")
				}
				return a.listTenants(ctx, client(), args[0], *asJSON)
			}
		}}
}

type tenantRow struct {
	ID           string              `json:"id"`
	From         string              `json:"from"`
	Fingerprints map[string][]string `json:"fingerprints"`
	At           string              `json:"at,omitempty"`
	By           string              `json:"by,omitempty"`
}

func (a *app) listTenants(ctx context.Context, c *adminClient, source string, asJSON bool) int {
	list := []tenantRow{}
	for after := ""; ; {
		q := url.Values{"limit": {"10000"}}
		if after != "" {
			q.Set("after", after)
		}
		b, err := c.get(ctx, http.MethodGet, tenantsPath(source), q)
		if err != nil {
			return a.fail(exitUsage, "%v", err)
		}
		var page struct {
			Tenants []tenantRow `json:"tenants"`
			Next    string      `json:"next"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return a.fail(exitUsage, "read the list of tenants: %v", err)
		}
		list = append(list, page.Tenants...)
		if after = page.Next; after == "" {
			break
		}
	}
	if asJSON {
		return a.printJSON(map[string]any{"tenants": list})
	}
	w := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tFROM\tCREDENTIALS\tAT\tBY")
	for _, t := range list {
		var creds []string
		for _, name := range slices.Sorted(maps.Keys(t.Fingerprints)) {
			creds = append(creds, name+"="+strings.Join(t.Fingerprints[name], ","))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(t.ID), t.From, printable(strings.Join(creds, " ")), t.At, printable(t.By))
	}
	if err := w.Flush(); err != nil {
		return a.fail(exitUsage, "%v", err)
	}
	return exitOK
}

func tenantsPutCommand() *command {
	return &command{name: "put", args: "SOURCE TENANT NAME=REF... [flags]", short: "keep the credentials of a merchant, sealed", long: `
Each credential is NAME=env:VARIABLE, NAME=file:PATH, or NAME=- (one line of standard
input): a secret in the command line could be read by others on this machine. The same
NAME again gives several values that are valid at once.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			return func(ctx context.Context, args []string) int {
				if len(args) < 3 {
					return a.usageError("tenants put", "give SOURCE, TENANT and NAME=REF for each credential")
				}
				creds := map[string][]string{}
				for _, arg := range args[2:] {
					name, value, err := a.credentialArg(arg)
					if err != nil {
						return a.usageError("tenants put", "%v", err)
					}
					creds[name] = append(creds[name], value)
				}
				body, err := json.Marshal(map[string]any{"credentials": creds})
				if err != nil {
					return a.fail(exitUsage, "%v", err)
				}
				if err := client().put(ctx, tenantsPath(args[0], args[1]), body); err != nil {
					return a.fail(exitUsage, "%v", err)
				}
				fmt.Fprintf(a.Stdout, "%s: tenant %s is kept and in force\n", printable(args[0]), printable(args[1]))
				return exitOK
			}
		}}
}

// maxCredentialFile bounds a file that a credential is read from.
const maxCredentialFile = 64 << 10

func (a *app) credentialArg(arg string) (name, value string, err error) {
	name, ref, ok := strings.Cut(arg, "=")
	if !ok || name == "" {
		return "", "", errors.New("write a credential as NAME=env:VARIABLE, NAME=file:PATH or NAME=-") // arg may be a secret
	}
	switch {
	case ref == "-":
		b, err := io.ReadAll(io.LimitReader(a.Stdin, maxCredentialFile))
		if err != nil {
			return "", "", fmt.Errorf("%s: read standard input: %w", name, err)
		}
		value = string(b)
	case strings.HasPrefix(ref, "env:"):
		if value = a.Getenv(ref[len("env:"):]); value == "" {
			return "", "", fmt.Errorf("%s: environment variable %s is not set", name, ref[len("env:"):])
		}
	case strings.HasPrefix(ref, "file:"):
		b, err := os.ReadFile(ref[len("file:"):])
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", name, err)
		}
		value = string(b)
	default:
		return "", "", fmt.Errorf("%s: give env:VARIABLE, file:PATH or -, not the secret itself: others on this machine could read it", name)
	}
	return name, strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r"), nil
}

func tenantsDeleteCommand() *command {
	return &command{name: "delete", args: "SOURCE TENANT [flags]", short: "take a merchant away that was put",
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			return func(ctx context.Context, args []string) int {
				if len(args) != 2 {
					return a.usageError("tenants delete", "give SOURCE and TENANT")
				}
				if _, err := client().get(ctx, http.MethodDelete, tenantsPath(args[0], args[1]), nil); err != nil {
					return a.fail(exitUsage, "%v", err)
				}
				fmt.Fprintf(a.Stdout, "%s: tenant %s is gone; its deliveries are refused\n", printable(args[0]), printable(args[1]))
				return exitOK
			}
		}}
}

func capturedCommand() *command {
	return &command{name: "captured", args: "SOURCE [flags]", short: "show the secret that a handshake delivered, or --clear it", long: `
Notion wants its verification token typed back: this shows it. The first handshake of a
source counts and no later one replaces it; after --clear the next is the first again.`,
		setup: func(a *app, fs *flag.FlagSet) func(context.Context, []string) int {
			client := adminFlags(a, fs)
			remove := fs.Bool("clear", false, "forget it")
			return func(ctx context.Context, args []string) int {
				if len(args) != 1 {
					return a.usageError("tenants captured", "give one SOURCE")
				}
				path := "/api/v1/sources/" + url.PathEscape(args[0]) + "/captured"
				if *remove {
					if _, err := client().get(ctx, http.MethodDelete, path, nil); err != nil {
						return a.fail(exitUsage, "%v", err)
					}
					fmt.Fprintf(a.Stdout, "%s: the captured secret is forgotten; the next handshake counts\n", printable(args[0]))
					return exitOK
				}
				b, err := client().get(ctx, http.MethodGet, path, nil)
				if err != nil {
					return a.fail(exitUsage, "%v", err)
				}
				var c struct {
					Secret string `json:"secret"`
				}
				if err := json.Unmarshal(b, &c); err != nil {
					return a.fail(exitUsage, "read the captured secret: %v", err)
				}
				fmt.Fprintln(a.Stdout, printable(c.Secret))
				return exitOK
			}
		}}
}

// put sends a body; everything but a 2xx is an error in words.
func (c *adminClient) put(ctx context.Context, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return c.refusal(resp, b)
	}
	return nil
}
