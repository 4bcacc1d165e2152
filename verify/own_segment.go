package verify

import (
	"bytes"
	"encoding/json"

	"penstock/provider"
)

// segmentBody is the body, or of a batch its first event, as it stands and as JSON without
// blanks: Segment signs JSON.stringify of the first event and nothing of the others.
// Source: segmentio/segment-docs src/connections/destinations/catalog/actions-webhook.
func segmentBody(_ *Verifier, r *provider.Request, sc *scratch, n int) string {
	if n == 0 {
		sc.parts = append(sc.parts, r.Body)
		return ""
	}
	first, ok := firstElement(r.Body)
	if !ok {
		return skipVariant
	}
	if n == 2 {
		var out bytes.Buffer
		if json.Compact(&out, first) != nil || out.Len() == len(first) {
			return skipVariant
		}
		first = out.Bytes()
	}
	sc.parts = append(sc.parts, first)
	return ""
}

// firstElement is the text of a JSON array's first element.
func firstElement(body []byte) ([]byte, bool) {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '[' || !json.Valid(body) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil || !dec.More() {
		return nil, false
	}
	var first json.RawMessage
	if dec.Decode(&first) != nil {
		return nil, false
	}
	return first, true
}
