package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Where a tenant's credentials come from.
const (
	FromFile = "file" // the configuration, or a file that it names
	FromAPI  = "api"  // put here, kept sealed
)

// Tenant is one of many merchants behind a source. Its credentials are named by
// fingerprint; they are never given out again.
type Tenant struct {
	ID           string              `json:"id"`
	From         string              `json:"from"`
	Fingerprints map[string][]string `json:"fingerprints"` // by credential
	At           *time.Time          `json:"at,omitempty"` // when it was put
	By           string              `json:"by,omitempty"` // and by which token
}

// Captured is a secret that a provider's handshake delivered. It is shown because some
// want it typed back (Notion).
type Captured struct {
	Credential  string    `json:"credential"`
	Secret      string    `json:"secret"`
	Fingerprint string    `json:"fingerprint"`
	At          time.Time `json:"at"`
}

// Tenants keeps secrets that stand in no file. What returns without an error is on stable
// storage and in force.
type Tenants interface {
	Tenants(ctx context.Context, source string) ([]Tenant, error)
	PutTenant(ctx context.Context, source, id string, credentials map[string][]string, by string) (t Tenant, created bool, err error)
	DeleteTenant(ctx context.Context, source, id, by string) error
	Captured(ctx context.Context, source string) (Captured, error)
	ClearCaptured(ctx context.Context, source, by string) error
}

// Bounds of the list of tenants.
const (
	tenantsLimit    = 1000
	maxTenantsLimit = 10_000
)

func (s *Server) tenants(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Tenants == nil {
		return notHere("the list of tenants")
	}
	limit, q := tenantsLimit, r.URL.Query()
	if text := q.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxTenantsLimit {
			return refuse(http.StatusBadRequest, "invalid_parameter", fmt.Sprintf("limit: %q is not within 1..%d", text, maxTenantsLimit))
		}
	}
	list, err := s.o.Tenants.Tenants(r.Context(), r.PathValue("name"))
	if err != nil {
		return s.failure(err)
	}
	total := len(list)
	if after := q.Get("after"); after != "" {
		i, found := slices.BinarySearchFunc(list, after, func(t Tenant, id string) int { return strings.Compare(t.ID, id) })
		if found {
			i++
		}
		list = list[i:]
	}
	next := ""
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].ID
	}
	if list == nil {
		list = []Tenant{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"tenants": list, "total": total, "next": next})
	return nil
}

// oneOrMany reads a credential's value, or several that are valid at once.
type oneOrMany []string

// UnmarshalJSON reads a text or a list of texts.
func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*o = oneOrMany{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return errors.New("a credential is a text or a list of texts") // and never shown
	}
	*o = many
	return nil
}

func (s *Server) putTenant(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Tenants == nil {
		return notHere("keeping tenants")
	}
	var body struct {
		Credentials map[string]oneOrMany `json:"credentials"`
	}
	if p := jsonBody(r); p != nil {
		return p
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || dec.More() || len(body.Credentials) == 0 {
		if tooLarge(err) {
			return refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than 1 MiB")
		}
		// Not the decoder's words: they may quote a secret.
		return refuse(http.StatusBadRequest, "invalid_parameter", `body: want {"credentials":{"NAME":"VALUE" or ["VALUE",...]}}`)
	}
	creds := map[string][]string{}
	for name, values := range body.Credentials {
		creds[name] = values
	}
	t, created, err := s.o.Tenants.PutTenant(context.WithoutCancel(r.Context()), r.PathValue("name"), r.PathValue("id"), creds, who.name)
	if err != nil {
		return s.failure(err)
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	writeJSON(w, status, t)
	return nil
}

func (s *Server) deleteTenant(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Tenants == nil {
		return notHere("keeping tenants")
	}
	if err := s.o.Tenants.DeleteTenant(context.WithoutCancel(r.Context()), r.PathValue("name"), r.PathValue("id"), who.name); err != nil {
		return s.failure(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) captured(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Tenants == nil {
		return notHere("a captured secret")
	}
	c, err := s.o.Tenants.Captured(r.Context(), r.PathValue("name"))
	if err != nil {
		return s.failure(err)
	}
	writeJSON(w, http.StatusOK, c)
	return nil
}

func (s *Server) clearCaptured(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if s.o.Tenants == nil {
		return notHere("a captured secret")
	}
	if err := s.o.Tenants.ClearCaptured(context.WithoutCancel(r.Context()), r.PathValue("name"), who.name); err != nil {
		return s.failure(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
