package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
)

// keyBytes is the size of an AES-256 key.
const keyBytes = 32

// Key is the 32 bytes that the secret says in hexadecimal or base64.
func (s Secret) Key() ([]byte, error) {
	text := strings.TrimSpace(string(s))
	if b, err := hex.DecodeString(text); err == nil && len(b) == keyBytes {
		return b, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(text); err == nil && len(b) == keyBytes {
			return b, nil
		}
	}
	return nil, errors.New("is no key of 32 bytes in hexadecimal or base64")
}

// standardKey is the signing key of a Standard Webhooks secret.
func (s Secret) standardKey() ([]byte, error) {
	text, ok := strings.CutPrefix(string(s), "whsec_")
	b, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(b) < 24 || len(b) > 64 {
		return nil, errors.New("is not whsec_ and 24 to 64 bytes in base64")
	}
	return b, nil
}
