package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"penstock/provider"
)

// sampler makes deliveries to sign: the definition's samples, each an event of its own,
// or one given body.
type sampler struct {
	def  *provider.Definition
	typ  string
	body []byte
	live bool
	run  string // makes ids of one run different from those of another
}

func newSampler(def *provider.Definition, typ, bodyFile string, live bool) (*sampler, error) {
	run, err := randomHex(4)
	if err != nil {
		return nil, err
	}
	s := &sampler{def: def, typ: typ, live: live, run: run}
	if bodyFile != "" {
		if s.body, err = os.ReadFile(bodyFile); err != nil {
			return nil, err
		}
		return s, nil
	}
	if len(def.SampleTypes()) > 0 {
		if _, err := def.Sample(typ, provider.SampleParams{}); err != nil {
			return nil, fmt.Errorf("%w; `penstock providers show %s` lists them", err, def.Name)
		}
		return s, nil
	}
	if len(def.Fields) == 0 {
		return nil, fmt.Errorf("provider %s has no samples: give --body FILE", def.Name)
	}
	return s, nil
}

// next gives the i-th delivery, unsigned, and its query.
func (s *sampler) next(i int) (*provider.Request, string, error) {
	if s.body != nil {
		return &provider.Request{Method: "POST", Body: s.body}, "", nil
	}
	if len(s.def.SampleTypes()) == 0 {
		return s.fromFields(i)
	}
	r, err := s.def.Sample(s.typ, provider.SampleParams{
		OrderID: fmt.Sprintf("order-%s-%d", s.run, i+1), Now: time.Now(), AmountMinor: int64(1000 + i%90000), Currency: "EUR", Livemode: s.live,
	})
	if err != nil {
		return nil, "", err
	}
	_, query, _ := bytes.Cut(r.Target, []byte{'?'})
	return r, string(query), nil
}

// fromFields makes a document for a definition that has fields but no samples, as one
// that a user wrote into a configuration.
func (s *sampler) fromFields(i int) (*provider.Request, string, error) {
	id := fmt.Sprintf("%s-%d", s.run, i+1)
	doc := map[string]string{}
	for _, f := range s.def.Fields {
		name := strings.ToLower(f.Path)
		switch {
		case strings.Contains(name, "."):
			return nil, "", fmt.Errorf("provider %s has no samples, and field %s stands too deep to make one up: give --body FILE", s.def.Name, f.Path)
		case strings.Contains(name, "amount"):
			doc[f.Path] = fmt.Sprintf("%d.00", 100+i%900)
		case strings.Contains(name, "currency"):
			doc[f.Path] = "EUR"
		default:
			doc[f.Path] = name + "-" + id
		}
	}
	if _, ok := doc["status"]; !ok {
		doc["status"] = "success"
	}
	if s.typ != "" {
		doc["status"] = s.typ
	}
	if s.def.Body == "form" {
		v := url.Values{}
		for k, x := range doc {
			v.Set(k, x)
		}
		return &provider.Request{Method: "POST", Body: []byte(v.Encode())}, "", nil
	}
	b, err := json.Marshal(doc)
	return &provider.Request{Method: "POST", Body: b}, "", err
}
