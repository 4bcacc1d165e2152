package notify

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"
)

// The states of a message.
const (
	StateFiring    = "firing"
	StateRecovered = "recovered"
	StateEvent     = "event"
	StateTest      = "test"
)

// Message is what one channel gets. Templates see its fields.
type Message struct {
	ID       string    `json:"id"` // the same over every attempt
	Rule     string    `json:"rule"`
	When     string    `json:"when"`
	State    string    `json:"state"`
	Node     string    `json:"node,omitempty"`
	At       time.Time `json:"at"`
	Since    time.Time `json:"since"`
	Count    int       `json:"count"` // of what was counted
	Lines    []string  `json:"lines"`
	More     int       `json:"more,omitempty"` // lines that are left out
	Link     string    `json:"link,omitempty"`
	Delivery string    `json:"delivery,omitempty"`

	Template string `json:"template,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
}

// Title is the first line, and the subject of a mail.
func (m *Message) Title() string {
	switch m.State {
	case StateRecovered:
		return "recovered: " + m.Rule
	case StateTest:
		return "test: " + m.Rule
	case StateEvent:
		if m.Count > 1 {
			return fmt.Sprintf("%s: %d events", m.Rule, m.Count)
		}
		return m.Rule
	}
	return "firing: " + m.Rule
}

const defaultTemplate = `{{.Title}}{{if .Node}} ({{.Node}}){{end}}
{{range .Lines}}{{.}}
{{end}}{{if .More}}and {{.More}} more
{{end}}{{if eq .State "recovered"}}was so since {{date .Since}}
{{end}}{{if .Link}}{{.Link}}
{{end}}`

// TemplateFuncs are what a template may call beside the language's own.
var TemplateFuncs = template.FuncMap{
	"cut":   func(n int, s string) string { return clean(s, n) },
	"join":  func(sep string, list []string) string { return strings.Join(list, sep) },
	"upper": strings.ToUpper,
	"date":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
}

// maxText is below what every channel takes: Discord's 2000 characters are the least.
const maxText = 1900

// text renders the message. A template that fails must not cost the message.
func (m *Message) text() string {
	body := m.Template
	if body == "" {
		body = defaultTemplate
	}
	out, err := render(body, m)
	if err != nil {
		out, _ = render(defaultTemplate, m)
	}
	return cutLines(maskPANs(out), maxText)
}

func render(text string, m *Message) (string, error) {
	t, err := template.New("message").Option("missingkey=error").Funcs(TemplateFuncs).Parse(text)
	if err != nil {
		return "", err
	}
	var b limited
	if err := t.Execute(&b, m); err != nil && !errors.Is(err, errLong) {
		return "", err
	}
	return strings.TrimSpace(printable(b.String())), nil
}

// checkTemplate says whether a template can be rendered.
func checkTemplate(text string) error {
	if text == "" {
		return nil
	}
	_, err := render(text, &Message{Rule: "rule", State: StateFiring, Lines: []string{"line"}, Count: 1})
	return err
}

// limited is a buffer with an end.
type limited struct{ strings.Builder }

var errLong = errors.New("longer than a message may be")

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > 4*maxText {
		n, _ := l.Builder.Write(p[:max(4*maxText-l.Len(), 0)])
		return n, errLong
	}
	return l.Builder.Write(p)
}

// printable takes out what could hide or reorder text, and what is no UTF-8. Values come
// from outside.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// clean makes one short line of a value.
func clean(s string, most int) string {
	s = strings.Join(strings.Fields(printable(s)), " ")
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "..."
	}
	return s
}

func cutLines(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-4]) + "\n..."
}

// maskPANs hides what reads as a card number: 13 to 19 digits, with single blanks or
// hyphens between them or not, whose check digit is right.
func maskPANs(s string) string {
	b := []byte(s)
	for i := 0; i < len(b); {
		if b[i] < '0' || b[i] > '9' {
			i++
			continue
		}
		var at []int
		j := i
		for j < len(b) {
			if b[j] >= '0' && b[j] <= '9' {
				at = append(at, j)
			} else if (b[j] != ' ' && b[j] != '-') || j+1 >= len(b) || b[j+1] < '0' || b[j+1] > '9' {
				break
			}
			j++
		}
		if len(at) >= 13 && len(at) <= 19 && luhn(b, at) {
			for _, k := range at[6 : len(at)-4] {
				b[k] = '*'
			}
		}
		i = j
	}
	return string(b)
}

func luhn(b []byte, at []int) bool {
	sum := 0
	for i, k := range at {
		d := int(b[k] - '0')
		if (len(at)-i)%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// human writes a duration as people say it.
func human(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}

func bytesOf(n uint64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
