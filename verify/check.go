package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"hash"
)

// check compares the signatures in sc with what each key makes of sc.parts and returns
// the key that matches. Every comparison of a MAC is hmac.Equal on decoded bytes.
func (v *Verifier) check(keys []key, sc *scratch) *key {
	switch v.kind {
	case primHMAC, primHash:
		for i := range keys {
			if !v.keyNamed(&keys[i], sc) {
				continue
			}
			want := v.sumWith(&keys[i], sc.alg, sc)
			for _, sig := range sc.sigs[:sc.nsig] {
				if hmac.Equal(want, sig) {
					return &keys[i]
				}
			}
		}
	case primRSA, primECDSA, primEd25519:
		for i := range keys {
			if !v.keyNamed(&keys[i], sc) {
				continue
			}
			for _, sig := range sc.sigs[:sc.nsig] {
				if v.checkPublic(&keys[i], sig, sc) {
					return &keys[i]
				}
			}
		}
	}
	return nil
}

// sumWith computes the MAC, or the plain hash with the key in its place, into sc.sum.
func (v *Verifier) sumWith(k *key, alg algorithm, sc *scratch) []byte {
	if v.kind == primHMAC || v.kind == primStandard {
		state, m := k.macs[alg], v.hasher(alg)
		loadState(m, state.inner)
		for i, p := range sc.parts {
			if i+1 == sc.keyAt {
				p = k.secret
			}
			m.Write(p)
		}
		inner := m.Sum(sc.sum[:0])
		loadState(m, state.outer)
		m.Write(inner)
		want := m.Sum(sc.sum[:0])
		v.pools.hashers[alg].Put(m)
		return want
	}
	h := v.hasher(alg)
	if v.s.KeyPosition == "prefix" || v.s.KeyPosition == "both" {
		h.Write(k.secret)
		h.Write(v.separator)
	}
	for i, p := range sc.parts {
		if i+1 == sc.keyAt {
			p = k.secret
		}
		h.Write(p)
	}
	if v.s.KeyPosition != "prefix" && !v.keyInside {
		h.Write(v.separator)
		h.Write(k.secret)
	}
	want := h.Sum(sc.sum[:0])
	v.pools.hashers[alg].Put(h)
	return want
}

func (v *Verifier) hasher(alg algorithm) hash.Hash {
	h, ok := v.pools.hashers[alg].Get().(hash.Hash)
	if !ok {
		return alg.new()
	}
	h.Reset()
	return h
}

func (v *Verifier) checkPublic(k *key, sig []byte, sc *scratch) bool {
	switch {
	case k.ed != nil:
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(k.ed, sc.join(), sig)
	case k.rsa != nil:
		return rsa.VerifyPKCS1v15(k.rsa, cryptoHash(sc.alg), v.digest(sc), sig) == nil
	case k.ec != nil:
		return ecdsa.VerifyASN1(k.ec, v.digest(sc), sig)
	}
	return false
}

// digest is the hash of the signed bytes.
func (v *Verifier) digest(sc *scratch) []byte {
	h := v.hasher(sc.alg)
	for _, p := range sc.parts {
		h.Write(p)
	}
	sum := h.Sum(sc.sum[:0])
	v.pools.hashers[sc.alg].Put(h)
	return sum
}

// join is the signed bytes in one piece.
func (sc *scratch) join() []byte {
	if len(sc.parts) == 1 {
		return sc.parts[0]
	}
	n := len(sc.arena)
	for _, p := range sc.parts {
		sc.arena = append(sc.arena, p...)
	}
	return sc.arena[n:len(sc.arena):len(sc.arena)]
}

func cryptoHash(a algorithm) crypto.Hash {
	switch a {
	case algSHA1:
		return crypto.SHA1
	case algSHA384:
		return crypto.SHA384
	case algSHA512:
		return crypto.SHA512
	}
	return crypto.SHA256
}
