package admin

import (
	"errors"
	"net/http"
	"time"

	"penstock/archive"
)

// eraseKey destroys the key of what a source sent in a month. A second time it says when
// that was done.
func (s *Server) eraseKey(w http.ResponseWriter, r *http.Request, _ secretToken) *problem {
	if s.o.Eraser == nil {
		return notHere("erasing")
	}
	source, month := r.PathValue("name"), r.PathValue("month")
	before, err := s.o.Eraser.EraseKey(source, month)
	switch {
	case errors.Is(err, archive.ErrMonth):
		return refuse(http.StatusBadRequest, "invalid_parameter", err.Error())
	case errors.Is(err, archive.ErrNotEncrypted):
		return refuse(http.StatusConflict, "conflict", err.Error())
	case err != nil:
		return s.failure(err)
	}
	answer := map[string]any{"source": source, "month": month, "erased": true}
	if !before.IsZero() {
		answer["before"] = before.UTC().Format(time.RFC3339)
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}
