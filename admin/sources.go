package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

func (s *Server) sources(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Sources == nil {
		return notHere("the list of sources")
	}
	list, err := s.o.Sources.List(r.Context())
	if err != nil {
		return s.failure(err)
	}
	if list == nil {
		list = []SourceInfo{}
	}
	out, p := s.withMeasures(r, list)
	if p != nil {
		return p
	}
	writeJSON(w, http.StatusOK, map[string]any{"sources": out})
	return nil
}

func (s *Server) pause(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	return s.setPaused(w, r, who, true)
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	return s.setPaused(w, r, who, false)
}

// release lets one delivery out of a paused source.
func (s *Server) release(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	if p := s.startRelease(r, who); p != nil {
		return p
	}
	writeJSON(w, http.StatusAccepted, map[string]any{"id": r.PathValue("id"), "released": true})
	return nil
}

func (s *Server) startRelease(r *http.Request, who secretToken) *problem {
	if s.o.Sources == nil {
		return notHere("releasing")
	}
	if err := s.o.Sources.Release(context.WithoutCancel(r.Context()), r.PathValue("id"), who.name); err != nil {
		return s.failure(err)
	}
	return nil
}

// setup says how a source is set up at its provider.
func (s *Server) setup(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Helper == nil {
		return notHere("setup help")
	}
	setup, err := s.o.Helper.Setup(r.Context(), r.PathValue("name"))
	if err != nil {
		return s.failure(err)
	}
	for _, list := range []*[]string{&setup.Verification, &setup.Samples} {
		if *list == nil {
			*list = []string{}
		}
	}
	writeJSON(w, http.StatusOK, setup)
	return nil
}

// sendTest sends a signed test event.
func (s *Server) sendTest(w http.ResponseWriter, r *http.Request, who secretToken) *problem {
	sent, p := s.startTest(r, r.URL.Query().Get("type"), who)
	if p != nil {
		return p
	}
	w.Header().Set("Location", "/api/v1/deliveries/"+url.PathEscape(sent.Delivery))
	writeJSON(w, http.StatusOK, sent)
	return nil
}

func (s *Server) startTest(r *http.Request, typ string, who secretToken) (Sent, *problem) {
	if s.o.Helper == nil {
		return Sent{}, notHere("sending a test event")
	}
	sent, err := s.o.Helper.SendTest(r.Context(), r.PathValue("name"), typ, who.name)
	if err != nil {
		return Sent{}, s.failure(err)
	}
	if sent.Delivery == "" {
		return Sent{}, refuse(http.StatusBadGateway, "not_taken", fmt.Sprintf("the test event was answered %d and not kept", sent.Status))
	}
	return sent, nil
}

func (s *Server) setPaused(w http.ResponseWriter, r *http.Request, who secretToken, paused bool) *problem {
	if p := s.changePaused(r, who, paused); p != nil {
		return p
	}
	writeJSON(w, http.StatusOK, map[string]any{"name": r.PathValue("name"), "paused": paused})
	return nil
}

func (s *Server) changePaused(r *http.Request, who secretToken, paused bool) *problem {
	if s.o.Sources == nil {
		return notHere("pausing")
	}
	set := s.o.Sources.Resume
	if paused {
		set = s.o.Sources.Pause
	}
	if err := set(context.WithoutCancel(r.Context()), r.PathValue("name"), who.name); err != nil {
		return s.failure(err)
	}
	return nil
}
