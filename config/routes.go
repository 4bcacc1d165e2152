package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// Route sends the events that its expression is true of to a topic of its own, or drops
// them.
type Route struct {
	Name  string `yaml:"name" check:"name" doc:"in outcomes and metrics; unset = its number in the list, from 1"`
	When  string `yaml:"when" required:"true" check:"when" doc:"expression over the event, such as order_id startsWith \"ticket:\"; docs/routing.md lists the names"`
	Topic string `yaml:"topic" check:"topic" doc:"where the events go; placeholders as in forward.kafka.topic"`
	Key   string `yaml:"key" check:"key" doc:"their Kafka key; placeholders as in forward.kafka.key; unset = as without a route"`
	Drop  bool   `yaml:"drop" default:"false" doc:"true: they are kept and not published, and no later route sees them"`
}

// maxRoutes bounds a list: every event is held against all of it.
const maxRoutes = 100

// routes checks the lists of routes; cat knows what an expression may say.
func (d *decoder) routes(c *Config, cat Catalogue) {
	if c.Forward != nil {
		d.routeList(c, c.Forward.Routes, "forward.routes", cat)
	}
	for i := range c.Sources {
		d.routeList(c, c.Sources[i].Routes, fmt.Sprintf("sources[%d].routes", i), cat)
	}
}

func (d *decoder) routeList(c *Config, list []Route, path string, cat Catalogue) {
	if len(list) > maxRoutes {
		d.fail(d.where(path), path, fmt.Sprintf("has more than %d routes", maxRoutes), "every event is held against each of them")
		return
	}
	if len(list) > 0 && c.Forward == nil {
		d.warn(d.where(path), path, "has no effect without forward", "add forward.kafka")
	}
	names := map[string]int{}
	for i := range list {
		r, p := &list[i], fmt.Sprintf("%s[%d]", path, i)
		d.route(c, r, p)
		if j, dup := names[r.Name]; dup && r.Name != "" {
			d.fail(d.where(p+".name"), p+".name", fmt.Sprintf("%q is the name of %s[%d] too", r.Name, path, j), "give each its own")
		}
		names[r.Name] = i
		if n, ok := d.raw[p+".when"]; ok {
			d.when(n, p+".when", r.When, cat.Route)
		}
	}
}

func (d *decoder) route(c *Config, r *Route, path string) {
	_, hasTopic := d.at[path+".topic"]
	switch {
	case r.Drop && hasTopic:
		d.fail(d.where(path+".topic"), path+".topic", "and drop exclude each other", "remove one")
	case r.Drop && r.Key != "":
		d.fail(d.where(path+".key"), path+".key", "has no effect beside drop", "remove one")
	case !r.Drop && !hasTopic:
		d.fail(d.where(path), path, "says neither topic nor drop", "say where the events go, or drop: true")
	}
	if c.Forward != nil && c.Forward.Kafka != nil && r.Topic != "" && r.Topic == c.Forward.Kafka.DeadLetterTopic {
		d.fail(d.where(path+".topic"), path+".topic", "is the dead letter topic", "give it another name")
	}
}

// wheres checks the conditions of notifications.
func (d *decoder) wheres(c *Config, cat Catalogue) {
	for i := range c.Notify.Rules {
		p := fmt.Sprintf("notify.rules[%d].where", i)
		if n, ok := d.raw[p]; ok {
			d.when(n, p, c.Notify.Rules[i].Where, cat.Where)
		}
	}
}

// when checks an expression; what is wrong inside it is reported at its place in the file.
func (d *decoder) when(n ast.Node, path, when string, check func(string) error) {
	if strings.TrimSpace(when) == "" {
		d.fail(placeOf(n), path, "is empty", "write an expression; true takes every event")
		return
	}
	err := check(when)
	if err == nil {
		return
	}
	at, msg := placeOf(n), err.Error()
	if m := placedMessage.FindStringSubmatch(msg); m != nil {
		msg = m[3]
		var line, col int
		_, _ = fmt.Sscan(m[1]+" "+m[2], &line, &col) // the pattern has digits alone
		if inside, ok := within(n, when, line, col); ok {
			at = inside
		} else {
			msg += fmt.Sprintf(" (line %d, column %d of the expression)", line, col)
		}
	}
	d.fail(at, path, strings.Join(strings.Fields(msg), " "), "")
}

// within is the place in the file of a place inside a scalar's text; false where the text
// does not stand there as it is: on several lines, with escapes, behind env:.
func within(n ast.Node, text string, line, col int) (place, bool) {
	s, ok := n.(*ast.StringNode)
	if !ok || line != 1 || strings.ContainsRune(text, '\n') {
		return place{}, false
	}
	tk := s.GetToken()
	origin := strings.TrimLeft(tk.Origin, " ")
	at := strings.Index(origin, text)
	if at < 0 || at > 1 {
		return place{}, false
	}
	p := placeOfToken(tk)
	p.col += at + col - 1
	return p, true
}

// placeholders of topics, and what a key may have beside.
var (
	topicPlaceholders = []string{"provider", "source", "tenant", "family", "type"}
	keyPlaceholders   = append([]string{"entity"}, topicPlaceholders...)
)

// insideError is a mistake at an offset, in characters, of a scalar's text.
type insideError struct {
	at int
	error
}

// fillTemplate gives a template with x in the place of every placeholder.
func fillTemplate(s string, known []string) (plain, cure string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		switch s[i] {
		case '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return "", "close it, as in {source}", insideError{utf8.RuneCountInString(s[:i]), errors.New("a { has no }")}
			}
			name := s[i+1 : i+end]
			found := false
			for _, k := range known {
				found = found || k == name
			}
			if !found {
				cure = suggest(name, known)
				if cure == "" {
					cure = "known here: {" + strings.Join(known, "}, {") + "}"
				}
				return "", cure, insideError{utf8.RuneCountInString(s[:i]), fmt.Errorf("unknown placeholder {%s}", name)}
			}
			b.WriteByte('x')
			i += end + 1
		case '}':
			return "", "remove it", insideError{utf8.RuneCountInString(s[:i]), errors.New("a } has no {")}
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String(), "", nil
}

func checkTopic(s string) (string, error) {
	plain, cure, err := fillTemplate(s, topicPlaceholders)
	if err != nil {
		return cure, err
	}
	if !topicName.MatchString(plain) || plain == "." || plain == ".." {
		return "letters, digits, . _ - and the placeholders {provider}, {source}, {tenant}, {family}, {type}; 249 at most", fmt.Errorf("%q is no topic name", s)
	}
	return "", nil
}

const maxKeyTemplate = 500

func checkKey(s string) (string, error) {
	if s == "" || len(s) > maxKeyTemplate {
		return fmt.Sprintf("write a template such as {tenant}:{entity}, %d bytes at most", maxKeyTemplate), fmt.Errorf("%q is no key", s)
	}
	_, cure, err := fillTemplate(s, keyPlaceholders)
	return cure, err
}
