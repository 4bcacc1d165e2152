package verify

import (
	"github.com/valyala/fastjson"

	"penstock/provider"
)

// maxSignatures bounds how many signatures of one delivery are tried; of numbered headers
// (DocuSign's 100) as many as there are numbers.
const maxSignatures = 8

// maxKept is the size above which a scratch's arena is not kept for the next delivery.
const maxKept = 64 << 10

// scratch is the working memory of one verification. Slices in it point into the request
// or into arena; nothing of it outlives the verification but constants.
type scratch struct {
	sigs  [][]byte // as decoded
	nsig  int
	alg   algorithm
	ts    []byte // the timestamp's text as signed
	id    []byte
	parts [][]byte // the signed bytes in order
	keyAt int      // 1 + the part that is the secret itself; 0 = none
	keyID []byte   // of the key that the request names
	arena []byte   // decoded and rebuilt text
	sum   [64]byte

	parser  fastjson.Parser
	inner   fastjson.Parser // of a document inside a field
	parsed  int             // bytes that parser holds a copy of
	doc     *fastjson.Value
	form    []pair
	source  bodySource
	loaded  bool
	query   []pair
	queried bool
	queryOK bool

	jose   fastjson.Parser // of a token's claims
	claims *fastjson.Value

	amounts []amountSeen // signed values that have a syntax to hold
	tenant  string
}

type amountSeen struct {
	syntax string
	value  []byte
}

type bodySource uint8

const (
	sourceNone bodySource = iota
	sourceJSON
	sourceForm
)

func (v *Verifier) get() *scratch {
	sc, _ := v.pools.scratch.Get().(*scratch)
	if sc == nil {
		sc = &scratch{parts: make([][]byte, 0, 16), sigs: make([][]byte, v.sig.limit)}
	}
	return sc
}

// put returns sc without any pointer into the request: a pool must not keep bodies alive.
func (v *Verifier) put(sc *scratch) {
	clear(sc.sigs)
	clear(sc.parts[:cap(sc.parts)])
	clear(sc.form[:cap(sc.form)])
	clear(sc.query[:cap(sc.query)])
	clear(sc.amounts[:cap(sc.amounts)])
	if cap(sc.arena) > maxKept || sc.parsed > maxKept || cap(sc.form) > 256 {
		return
	}
	sc.nsig, sc.ts, sc.id, sc.doc, sc.tenant, sc.claims = 0, nil, nil, nil, "", nil
	sc.keyAt, sc.keyID = 0, nil
	sc.parts, sc.form, sc.query, sc.amounts = sc.parts[:0], sc.form[:0], sc.query[:0], sc.amounts[:0]
	sc.arena = sc.arena[:0]
	sc.source, sc.loaded, sc.queried, sc.queryOK = sourceNone, false, false, false
	v.pools.scratch.Put(sc)
}

// keep copies s into the arena, where it stays for this verification.
func (sc *scratch) keep(s string) []byte {
	n := len(sc.arena)
	sc.arena = append(sc.arena, s...)
	return sc.arena[n:len(sc.arena):len(sc.arena)]
}

// requirement is a header that must be there once, with a fixed value where one is given.
type requirement struct{ name, value string }

func (q *requirement) check(r *provider.Request) string {
	v, n := r.Header.Get(q.name)
	switch {
	case n > 1:
		return DuplicateHeader
	case n == 0 || len(v) == 0:
		return SignatureMissing
	case q.value != "" && string(v) != q.value:
		return SignatureMalformed
	}
	return ""
}
