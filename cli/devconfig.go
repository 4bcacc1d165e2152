package cli

import (
	"fmt"
	"path/filepath"
	"sort"

	"github.com/goccy/go-yaml"
)

const devHeader = `# Written by penstock dev at every start: the whole configuration in force. Credentials are
# made up, kept in credentials.json beside this file, and in plain text so that any program
# can sign. For anything but development copy it, and put references (env:, file:) in.
`

// devWindow is longer than any provider of the catalogue repeats itself.
const devWindow = "60d"

// writeConfig writes the configuration in force.
func (d *dev) writeConfig(s *devSecrets) error {
	b, err := yaml.MarshalWithOptions(d.document(s), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return fmt.Errorf("write %s: %w", devConfig(d.dir), err)
	}
	return replaceFile(devConfig(d.dir), append([]byte(devHeader), b...))
}

// document is the configuration: all providers that have credentials in s.
func (d *dev) document(s *devSecrets) yaml.MapSlice {
	var sources []yaml.MapSlice
	names := make([]string, 0, len(s.Credentials))
	for name := range s.Credentials {
		if _, ok := d.app.w.Providers.Get(name); ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		creds := yaml.MapSlice{}
		keys := make([]string, 0, len(s.Credentials[name]))
		for k := range s.Credentials[name] {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			creds = append(creds, yaml.MapItem{Key: k, Value: s.Credentials[name][k]})
		}
		sources = append(sources, yaml.MapSlice{{Key: "name", Value: name}, {Key: "provider", Value: name}, {Key: "credentials", Value: creds}})
	}
	return yaml.MapSlice{
		{Key: "ingest", Value: yaml.MapSlice{{Key: "listen", Value: d.ingest}, {Key: "public_url", Value: baseURL(d.ingest, false)}}},
		{Key: "admin", Value: yaml.MapSlice{{Key: "listen", Value: d.admin}, {Key: "tokens", Value: []yaml.MapSlice{
			{{Key: "name", Value: "dev"}, {Key: "role", Value: "operator"}, {Key: "token", Value: s.AdminToken}}}}}},
		{Key: "archive", Value: yaml.MapSlice{{Key: "dir", Value: filepath.ToSlash(d.archiveDir())}}},
		{Key: "dedupe", Value: yaml.MapSlice{{Key: "window", Value: devWindow}, {Key: "redis", Value: yaml.MapSlice{{Key: "addresses", Value: []string{d.redis}}}}}},
		{Key: "forward", Value: yaml.MapSlice{{Key: "kafka", Value: yaml.MapSlice{
			{Key: "brokers", Value: []string{d.kafka}},
			{Key: "create_topics", Value: yaml.MapSlice{{Key: "partitions", Value: 6}, {Key: "replication", Value: 1}}}}}}},
		{Key: "log", Value: yaml.MapSlice{{Key: "level", Value: "warn"}, {Key: "format", Value: "console"}}},
		{Key: "sources", Value: sources},
	}
}
