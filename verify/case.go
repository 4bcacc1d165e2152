package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"penstock/provider"
)

// Case is one test vector, in the format of vectors/README.md: a request, the material to
// verify it with, the time, and what must come out.
type Case struct {
	Provider string         `json:"provider,omitempty"`
	Name     string         `json:"name,omitempty"`
	Why      string         `json:"why,omitempty"`
	Origin   string         `json:"origin,omitempty"`
	Basis    string         `json:"basis,omitempty"`
	Variant  string         `json:"variant,omitempty"`
	Level    string         `json:"level,omitempty"`
	Secrets  map[string]any `json:"secrets,omitempty"`
	Now      json.Number    `json:"now,omitempty"` // unix seconds
	Request  CaseRequest    `json:"request"`
	Expect   string         `json:"expect,omitempty"`
	Response *CaseReply     `json:"response,omitempty"`
	Ack      *CaseReply     `json:"ack,omitempty"`

	EventID       *string      `json:"event_id,omitempty"`
	EventType     *string      `json:"event_type,omitempty"`
	OrderID       *string      `json:"order_id,omitempty"`
	Status        *string      `json:"status,omitempty"`
	AmountMinor   *json.Number `json:"amount_minor,omitempty"`
	Currency      *string      `json:"currency,omitempty"`
	CanonicalType *string      `json:"canonical_type,omitempty"`
	// Captures is what the handshake hands over for keeping, in the vector's words.
	Captures map[string]string `json:"captures,omitempty"`

	FailureReason *string `json:"failure_reason,omitempty"`
	Livemode      *bool   `json:"livemode,omitempty"`

	file string
}

// CaseRequest is a request as vectors write it.
type CaseRequest struct {
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Headers [][2]string `json:"headers"`
	BodyB64 string      `json:"body_b64"`
}

// CaseReply is an answer that a vector prescribes. An empty content type is not prescribed.
type CaseReply struct {
	Status      int         `json:"status"`
	ContentType string      `json:"content_type"`
	Body        string      `json:"body"`
	Headers     [][2]string `json:"headers,omitempty"`
	// MerchantKey is the public half of the key that Body is signed with, where the vector
	// does not give the private one away.
	MerchantKey string `json:"merchant_public_key_pem,omitempty"`
}

// ParseCase reads a case, or its request alone.
func ParseCase(text []byte) (*Case, error) {
	var c Case
	if err := decodeCase(text, &c); err != nil {
		return nil, fmt.Errorf("read the case: %w", err)
	}
	if c.Request.Method == "" {
		if err := decodeCase(text, &c.Request); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
	}
	if c.Request.Method == "" || c.Request.URL == "" {
		return nil, errors.New("read the case: no request with method and url in it")
	}
	return &c, nil
}

func decodeCase(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}

// Delivery is the case's request as the edge would hand it over, received at now.
func (c *Case) Delivery(now time.Time) (*provider.Request, error) {
	body, err := base64.StdEncoding.DecodeString(c.Request.BodyB64)
	if err != nil {
		return nil, fmt.Errorf("case %s: body_b64: %w", c.Name, err)
	}
	return &provider.Request{
		Method: c.Request.Method, Target: []byte(targetOf(c.Request.URL)), PublicURL: c.Request.URL,
		Header: provider.MakeHeader(c.Request.Headers), Body: body, ReceivedAt: now,
	}, nil
}

// At is the case's clock; zero where it names none.
func (c *Case) At() (time.Time, error) {
	if c.Now == "" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(c.Now.String(), ".")
	s, err := json.Number(whole).Int64()
	if err != nil {
		return time.Time{}, fmt.Errorf("case %s: now: %w", c.Name, err)
	}
	ns, err := json.Number((fraction + "000000000")[:9]).Int64()
	if err != nil {
		return time.Time{}, fmt.Errorf("case %s: now: %w", c.Name, err)
	}
	return time.Unix(s, ns), nil
}

// targetOf is the request target of a URL, as raw as it stands.
func targetOf(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			if rest[i] == '?' {
				return "/" + rest[i:]
			}
			return rest[i:]
		}
		return "/"
	}
	return url
}
