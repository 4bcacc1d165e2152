package provider

import "strings"

// OwnPiece is a piece {own:name} of the signed bytes.
type OwnPiece struct {
	Covers string // what of the request it proves: body, url
	About  string // what it stands for, for people
}

// OwnPieces are the pieces {own:name} that package verify has code for.
var OwnPieces = map[string]OwnPiece{
	"contentful_path":    {"url", "path and query of the URL, the query encoded and the whole encoded again"},
	"contentful_headers": {"", "the headers that X-Contentful-Signed-Headers names, name:value, sorted and joined by \";\""},
	"hubspot_url":        {"url", "the URL with the escapes of :/?@!$'()*,; written out"},
	"plivo_v2":           {"", "the URL without its query"},
	"plivo_v3":           {"url body", "the URL, \"?\" and the sorted query, \".\" and the sorted form, names and values without separators"},
	"segment":            {"body", "the body; of a batch its first event"},
	"twilio":             {"url body", "the URL, with or without its port, and every name and value of the form, sorted; a body that is no form is named by its hash in the URL"},
}

// ownCovers says whether a piece {own:name} of the signed bytes covers what.
func (s *Scheme) ownCovers(what string) bool {
	for _, name := range s.ownPieces() {
		if strings.Contains(OwnPieces[name].Covers, what) {
			return true
		}
	}
	return false
}

// ownPieces are the names of the pieces that a template has.
func (s *Scheme) ownPieces() (names []string) {
	if !strings.Contains(s.Signed, "{own:") {
		return nil
	}
	pieces, err := ParseTemplate(s.Signed)
	if err != nil {
		return nil // Validate reports it
	}
	for _, p := range pieces {
		if p.Kind == "own" {
			names = append(names, p.Arg)
		}
	}
	return names
}
