package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"penstock/archive"
)

// contract checks answers against openapi.yaml, whose schemas are JSON Schemas (3.1). What
// a schema does not name may not be in an answer: the file is all that clients know.
type contract struct {
	mu       sync.Mutex // guards compiler and schemas
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
	paths    map[string]any
	shared   map[string]any // components.responses
}

var loadContract = sync.OnceValues(func() (*contract, error) {
	asJSON, err := yaml.YAMLToJSON(OpenAPI())
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, err
	}
	root := doc.(map[string]any)
	closed(root, false)
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, paths: root["paths"].(map[string]any),
		shared: root["components"].(map[string]any)["responses"].(map[string]any)}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	return c, c.compiler.AddResource("openapi.json", doc)
})

// closed closes every schema that names properties or another schema, except where it is
// a part of an allOf (which is closed as a whole) or a definition (which others are part of).
func closed(v any, part bool) {
	switch v := v.(type) {
	case map[string]any:
		_, names := v["properties"]
		_, refers := v["$ref"]
		_, all := v["allOf"]
		_, open := v["additionalProperties"]
		if (names || refers || all) && !part && !open {
			v["unevaluatedProperties"] = false
		}
		for key, child := range v {
			switch key {
			case "allOf":
				for _, p := range child.([]any) {
					closed(p, true)
				}
			case "schemas", "properties":
				for _, p := range child.(map[string]any) {
					closed(p, key == "schemas")
				}
			case "$ref":
			default:
				closed(child, false)
			}
		}
	case []any:
		for _, e := range v {
			closed(e, part)
		}
	}
}

func pointer(steps ...string) string {
	p := "openapi.json#"
	for _, s := range steps {
		p += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
	}
	return p
}

// check says where an answer is not what the file promises.
func (c *contract) check(pattern, path string, rec *httptest.ResponseRecorder) error {
	method, route, ok := strings.Cut(pattern, " ")
	item, _ := c.paths[route].(map[string]any)
	op, _ := item[strings.ToLower(method)].(map[string]any)
	media, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";")
	if !ok || op == nil {
		// No route, or none for this method: an error, and under the API a problem.
		if strings.HasPrefix(path, "/api/") {
			return c.validate(pointer("components", "schemas", "Problem"), rec.Body.Bytes())
		}
		return nil
	}
	steps := []string{"paths", route, strings.ToLower(method), "responses", fmt.Sprint(rec.Code)}
	responses := op["responses"].(map[string]any)
	answer, ok := responses[fmt.Sprint(rec.Code)].(map[string]any)
	if !ok {
		if answer, ok = responses["default"].(map[string]any); !ok || rec.Code < 400 {
			return fmt.Errorf("status %d is not described", rec.Code)
		}
		steps[len(steps)-1] = "default"
	}
	if ref, ok := answer["$ref"].(string); ok {
		name := ref[strings.LastIndexByte(ref, '/')+1:]
		steps, answer = []string{"components", "responses", name}, c.shared[name].(map[string]any)
	}
	content, ok := answer["content"].(map[string]any)
	if !ok {
		if rec.Body.Len() > 0 {
			return fmt.Errorf("status %d has a body, and none is described", rec.Code)
		}
		return nil
	}
	if content[media] == nil {
		return fmt.Errorf("status %d is %q, described are %v", rec.Code, media, content)
	}
	if rec.Code >= 400 && strings.HasPrefix(route, "/api/") && media != "application/problem+json" {
		return fmt.Errorf("status %d is %q and no problem", rec.Code, media)
	}
	at := pointer(append(steps, "content", media, "schema")...)
	switch media {
	case "application/json", "application/problem+json":
		return c.validate(at, rec.Body.Bytes())
	case "application/x-ndjson":
		for line := range bytes.Lines(rec.Body.Bytes()) {
			if err := c.validate(at, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *contract) validate(at string, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.schemas[at]
	if s == nil {
		var err error
		if s, err = c.compiler.Compile(at); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		c.schemas[at] = s
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// checkContract is run on every answer that a test of this package gets.
func (w *world) checkContract(r *http.Request, rec *httptest.ResponseRecorder) {
	w.t.Helper()
	c, err := loadContract()
	if err != nil {
		w.t.Fatalf("openapi.yaml: %v", err)
	}
	if err := c.check(r.Pattern, r.URL.Path, rec); err != nil {
		w.t.Errorf("%s %s is not as openapi.yaml says: %v\n%s", r.Method, r.URL, err, rec.Body)
	}
}

// The check itself: what it must find.
func TestContractIsChecked(t *testing.T) {
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	f := func(pattern string, status int, media, body string, good bool) {
		t.Helper()
		rec := httptest.NewRecorder()
		rec.Header().Set("Content-Type", media)
		rec.WriteHeader(status)
		_, _ = rec.WriteString(body)
		path := pattern[strings.IndexByte(pattern, ' ')+1:]
		if err := c.check(pattern, path, rec); (err == nil) != good {
			t.Errorf("%s %d %s: %v", pattern, status, body, err)
		}
	}
	const row = `"id":"x","seq":1,"received_at":"","source":"","provider":"","verdict":"","reason":"","outcome":"","duplicate_of":"","event_id":"","event_type":"","type":"","order_id":"","payment_id":"","tenant":"","request_id":"","idempotency_key":"","livemode":null,"status":"","amount_minor":null,"currency":"","remote_ip":"","method":"","path":"","size":1`
	const list, one = "GET /api/v1/deliveries", "GET /api/v1/deliveries/{id}"
	f(list, 200, "application/json", `{"deliveries":[{`+row+`}],"next":""}`, true)
	f(list, 200, "application/json", `{"deliveries":[{`+row+`,"secret":1}],"next":""}`, false) // not described
	f(list, 200, "application/json", `{"deliveries":[{`+strings.Replace(row, `"x"`, "7", 1)+`}],"next":""}`, false)
	f(list, 200, "application/json", `{"deliveries":[{`+strings.Replace(row, `"reason":"",`, "", 1)+`}],"next":""}`, false)
	f(list, 200, "application/json", `{"deliveries":[]}`, false)
	f(list, 200, "text/html", `{"deliveries":[],"next":""}`, false)
	f(list, 201, "application/json", `{"deliveries":[],"next":""}`, false)
	f(one, 200, "application/json", `{`+row+`,"headers":[],"history":[{"event":1}]}`, true)
	f(one, 200, "application/json", `{`+row+`,"headers":[],"history":[{"evnt":1}]}`, false)
	f(one, 200, "application/json", `{`+row+`,"more":1}`, false)
	f(one, 304, "", "", true)
	f(one, 304, "", "x", false)
	const problem = `{"type":"about:blank","title":"x","status":400,"code":"c","instance":"/x"}`
	f(one, 400, "application/problem+json", problem, true)
	f(one, 400, "application/json", problem, false)
	f(one, 400, "application/problem+json", `{"error":"x"}`, false)
	f("/api/v1/deliveries", 405, "application/problem+json", problem, true)
	f("/api/v1/deliveries", 405, "application/problem+json", `{}`, false)
}

func TestETags(t *testing.T) {
	w := newWorld(t, nil)
	for _, path := range []string{"/api/v1/deliveries/" + publishedID, "/api/v1/deliveries/" + publishedID + "/body", "/openapi.yaml"} {
		rec := w.call("GET", path, operatorToken, "")
		w.want(rec, 200)
		etag := rec.Header().Get("ETag")
		for _, have := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
			rec := w.call("GET", path, operatorToken, "", "If-None-Match", have)
			w.want(rec, 304)
			if rec.Body.Len() > 0 || rec.Header().Get("ETag") != etag {
				t.Fatalf("%s: 304 with %q and %v", path, rec.Body, rec.Header())
			}
		}
		w.want(w.call("GET", path, operatorToken, "", "If-None-Match", `"other"`), 200)
	}
	one := "/api/v1/deliveries/" + publishedID
	etag := w.call("GET", one, operatorToken, "").Header().Get("ETag")
	if masked := w.call("GET", one, viewerToken, "").Header().Get("ETag"); masked == etag {
		t.Fatal("what is masked has the tag of what is not")
	}
	w.archive.outcomes[publishedID] = append(w.archive.outcomes[publishedID], w.archive.outcomes[publishedID][0])
	w.want(w.call("GET", one, operatorToken, "", "If-None-Match", etag), 200) // a replay is news
	w.want(w.call("GET", one+"/body", viewerToken, "", "If-None-Match", "*"), 403)
}

// Every error under the API is a problem that names what was asked.
func TestProblems(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/api/v1/deliveries/no%20such", operatorToken, 404},
		{"GET", "/api/v1/nothing", operatorToken, 404},
		{"PUT", "/api/v1/replays", operatorToken, 405},
		{"GET", "/api/v1/deliveries", "", 401},
		{"POST", "/api/v1/reload", viewerToken, 403},
		{"GET", "/api/v1/deliveries?limit=0", viewerToken, 400},
	} {
		rec := w.call(c.method, c.path, c.token, "")
		path, _, _ := strings.Cut(c.path, "?")
		w.want(rec, c.status, `"instance":"`+path+`"`, fmt.Sprintf(`"status":%d`, c.status))
		if media := rec.Header().Get("Content-Type"); media != "application/problem+json" {
			t.Errorf("%s %s: %s", c.method, c.path, media)
		}
	}
}

// A query that cannot be read is refused as a whole: what net/http leaves out of it would
// make a filter wider, and a replay by it larger.
func TestQueryThatCannotBeRead(t *testing.T) {
	w := newWorld(t, nil)
	for _, query := range []string{"source=stripe&order_id=%zz", "source=stripe;order_id=1", "%"} {
		for _, path := range []string{"GET /api/v1/deliveries", "GET /api/v1/export", "GET /api/v1/stream", "POST /api/v1/replays", "POST /api/v1/reverify", "GET /"} {
			method, path, _ := strings.Cut(path, " ")
			w.want(w.call(method, path+"?"+query, operatorToken, ""), 400, "invalid_parameter", "query: ")
		}
		w.want(w.call("GET", "/readyz?"+query, "", ""), 200)
	}
	if did := w.work.last(); did != "" {
		t.Errorf("%q was done", did)
	}
}

// A body that says it is something else than JSON is not guessed at.
func TestBodyOfAnotherKind(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Tenants = fakeTenants{} })
	const ids, tenant = `{"ids":["x"]}`, `{"credentials":{"key":"0123456789abcdef"}}`
	for media, good := range map[string]bool{"": true, "application/json": true, "application/json; charset=utf-8": true, "application/merge-patch+json": true,
		"application/x-www-form-urlencoded": true, "text/xml": false, "application/jsonp": false, "/;": false} {
		status := 415
		if good {
			status = 202
		}
		w.want(w.call("POST", "/api/v1/replays", operatorToken, ids, "Content-Type", media), status)
		if good {
			status = 201
		}
		w.want(w.call("PUT", "/api/v1/sources/stripe/tenants/x", operatorToken, tenant, "Content-Type", media), status)
	}
	w.want(w.call("POST", "/api/v1/reverify", operatorToken, ids, "Content-Encoding", "gzip"), 415, "unsupported_media_type")
}

// Both ways: what the file names of an answer is what its struct has, field by field. That an
// answer holds nothing else is checked on every answer of every test.
func TestSchemasAreTheStructs(t *testing.T) {
	var doc struct {
		Components struct{ Schemas map[string]any }
	}
	if err := yaml.Unmarshal(OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	at := func(path ...string) map[string]any {
		var v any = doc.Components.Schemas
		for _, step := range path {
			switch node := v.(type) {
			case map[string]any:
				v = node[step]
			case []any:
				i, _ := strconv.Atoi(step)
				v = node[i]
			}
		}
		m, _ := v.(map[string]any)
		return m
	}
	for path, of := range map[string]any{
		"Row": archive.Row{}, "Page": archive.Page{}, "Page/properties/progress": archive.Progress{}, "Counts": archive.Counts{}, "CountRow": archive.CountRow{},
		"Outcome": history{}, "Step": step{}, "Problem": problem{}, "Job": Job{}, "Verification": Verification{}, "Explained": Explained{}, "Setup": Setup{}, "Sent": Sent{},
		"Tenant": Tenant{}, "Captured": Captured{}, "Audit/properties/entries/items": Act{}, "Events": eventsDoc{}, "Events/properties/events/items": eventDoc{},
		"Sources/properties/sources/items": measuredSource{}, "Sources/properties/sources/items/properties/secrets/items": Secret{}, "Selection": selectionBody{},
		"Overview": overviewDoc{}, "Overview/properties/attention/items": alert{}, "Overview/properties/busiest/items": busySource{}, "State": State{},
		"Stats/properties/ingest/properties/unknown_paths/items": unknownView{},
	} {
		named := sortedKeys(at(append(strings.Split(path, "/"), "properties")...))
		has := jsonNames(reflect.TypeOf(of))
		slices.Sort(has)
		if !slices.Equal(named, has) {
			t.Errorf("%s: the file names\n%v, the struct has\n%v", path, named, has)
		}
	}
	// A delivery is a row and what stands beside it.
	named := append(sortedKeys(at("Delivery", "allOf", "1", "properties")), jsonNames(reflect.TypeFor[archive.Row]())...)
	has := jsonNames(reflect.TypeFor[detail]())
	slices.Sort(named)
	slices.Sort(has)
	if !slices.Equal(named, has) {
		t.Errorf("Delivery: the file names\n%v, the struct has\n%v", named, has)
	}
}

// jsonNames are the fields of a struct as JSON has them.
func jsonNames(typ reflect.Type) (names []string) {
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, jsonNames(f.Type)...)
		case f.IsExported() && name != "-" && name != "":
			names = append(names, name)
		}
	}
	return names
}
