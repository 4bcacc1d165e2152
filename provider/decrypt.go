package provider

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/valyala/fastjson"
)

// Decrypt says that a member of the JSON document is sealed with AES-GCM under one of the
// source's credentials (WeChat Pay). The opened document takes the member's place, so
// that every path, and the consumer, sees what was sealed. Nothing that identifies an
// event may stand inside: without the key it would be another event.
type Decrypt struct {
	Path Ref    `yaml:"path"` // of the member
	Key  string `yaml:"key"`  // the credential's name
	// As is gcm (default) or cbc: the member is a text, base64 of AES-256-CBC under the
	// key's SHA-256 with the initial vector in front, and what is inside takes the place of
	// the whole document (Feishu). Or wechat: a text of an XML document, as WeChat's safe
	// mode writes it; what is inside is XML again and takes the place of the whole document.
	As string `yaml:"as,omitempty"`
	// Text, Nonce and With are the names inside the member: base64 with the tag behind,
	// and two plain texts.
	Text  string `yaml:"text,omitempty"`
	Nonce string `yaml:"nonce,omitempty"`
	With  string `yaml:"with,omitempty"`
	// Members are what else stands in it, for deliveries that are made here.
	Members map[string]string `yaml:"members,omitempty"`
}

// ReadingCredentials are the names of the credentials without which a delivery can be
// verified but not read. A caller of Events puts their values into Request.Secrets.
func (d *Definition) ReadingCredentials() []string {
	var out []string
	if d.Decrypt != nil {
		out = append(out, d.Decrypt.Key)
	}
	for _, rd := range d.Document {
		if rd.Key != "" && !slices.Contains(out, rd.Key) {
			out = append(out, rd.Key)
		}
	}
	return out
}

func (d *Definition) checkDecrypt() error {
	for _, name := range d.ReadingCredentials() {
		if !slices.ContainsFunc(d.EffectiveCredentials(), func(c Credential) bool { return c.Name == name && secretRole(c.Role) }) {
			return mistake("decrypt.key", fmt.Errorf("%q is no secret credential of this definition", name))
		}
	}
	if x := d.Decrypt; x != nil && x.As == "wechat" {
		if x.Path.root > rootDoc || len(x.Path.steps) != 2 || x.Text != "" || x.Nonce != "" {
			return mistake("decrypt", errors.New("as wechat wants path (xml.Encrypt) and key, and nothing else"))
		}
		return nil
	}
	if x := d.Decrypt; x != nil && (x.Path.root > rootDoc || len(x.Path.steps) != 1 || x.Path.steps[0].key == "" || x.As != "cbc" && (x.Text == "" || x.Nonce == "") || x.As != "" && x.As != "gcm" && x.As != "cbc") {
		return mistake("decrypt", errors.New("path (a member at the document's top), key, as (gcm, cbc or wechat), and for gcm text and nonce are wanted"))
	}
	return nil
}

var errSealed = errors.New("it is sealed, and no credential opens it")

// unseal replaces the sealed member. One that is absent, or no object, is not sealed.
func (c *reading) unseal() error {
	x := c.d.Decrypt
	if x == nil || c.root == nil {
		return nil
	}
	name := x.Path.steps[0].key
	sealed := c.root.Get(name)
	if x.As == "wechat" {
		return c.unsealXML(c.root.Get(name, x.Path.steps[1].key))
	}
	if x.As == "cbc" {
		return c.unsealDocument(sealed)
	}
	if sealed == nil || len(sealed.GetStringBytes(x.Text)) == 0 {
		return nil
	}
	text, err := base64.StdEncoding.DecodeString(string(sealed.GetStringBytes(x.Text)))
	if err != nil {
		return fmt.Errorf("%s: %w", x.Path, err)
	}
	nonce := bytes.Clone(sealed.GetStringBytes(x.Nonce))
	with := bytes.Clone(sealed.GetStringBytes(x.With))
	for _, secret := range c.r.Secrets[x.Key] {
		plain, err := openGCM([]byte(secret), nonce, text, with)
		if err != nil {
			continue
		}
		if !strictJSON(plain) {
			return fmt.Errorf("%s: what was sealed is no JSON", x.Path)
		}
		with, ok := replaceMember(c.doc, name, plain)
		if !ok {
			return fmt.Errorf("%s stands twice", x.Path)
		}
		return c.openJSON(with, with)
	}
	return fmt.Errorf("%s: %w", x.Path, errSealed)
}

// unsealDocument opens a member that holds the whole document. A body without it, or where
// it is no text, is the document itself.
func (c *reading) unsealDocument(sealed *fastjson.Value) error {
	if sealed == nil || sealed.Type() != fastjson.TypeString {
		return nil
	}
	for _, secret := range c.r.Secrets[c.d.Decrypt.Key] {
		if plain, ok := OpenCBC([]byte(secret), sealed.GetStringBytes()); ok && strictJSON(plain) {
			return c.openJSON(plain, plain)
		}
	}
	return fmt.Errorf("%s: %w", c.d.Decrypt.Path, errSealed)
}

// unsealXML opens WeChat's safe mode. A body without the sealed text is in the clear.
func (c *reading) unsealXML(sealed *fastjson.Value) error {
	if sealed == nil || sealed.Type() != fastjson.TypeString {
		return nil
	}
	for _, secret := range c.r.Secrets[c.d.Decrypt.Key] {
		plain, ok := OpenWeChat([]byte(secret), sealed.GetStringBytes())
		if !ok {
			continue
		}
		if text, err := xmlWithLists(plain, c.d.prog.lists); err == nil {
			return c.openJSON(text, plain)
		}
	}
	return fmt.Errorf("%s: %w", c.d.Decrypt.Path, errSealed)
}

// weChatBlock is what WeChat pads to, twice the cipher's own block.
const weChatBlock = 32

// OpenWeChat opens a message of WeChat's safe mode: base64 of AES-256-CBC under the
// EncodingAESKey (43 characters of base64), whose first half is the initial vector too.
// Inside stand 16 random bytes, the length, the message, the account's id, and a padding.
// Source: silenceper/wechat util/crypto.go; Tencent's WXBizMsgCrypt.
func OpenWeChat(secret, text []byte) ([]byte, bool) {
	key, err := base64.RawStdEncoding.DecodeString(string(secret)) // its last two bits may be anything
	if err != nil || len(key) != 32 {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(raw) < weChatBlock || len(raw)%aes.BlockSize != 0 {
		return nil, false
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(raw, raw)
	pad := int(raw[len(raw)-1])
	if pad == 0 || pad > weChatBlock || len(raw)-pad < 20 {
		return nil, false
	}
	inner := raw[20 : len(raw)-pad]
	n := binary.BigEndian.Uint32(raw[16:20])
	if n == 0 || uint64(n) > uint64(len(inner)) {
		return nil, false
	}
	return inner[:n:n], true
}

// OpenCBC opens base64 of AES-256-CBC under the SHA-256 of a secret, the initial vector in
// front, PKCS#7 behind. What is inside is taken from its first brace to its last. Nobody
// learns which of the steps failed.
func OpenCBC(secret, text []byte) ([]byte, bool) {
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(raw) < 2*aes.BlockSize || len(raw)%aes.BlockSize != 0 {
		return nil, false
	}
	sum := sha256.Sum256(secret)
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		return nil, false
	}
	plain := raw[aes.BlockSize:]
	cipher.NewCBCDecrypter(block, raw[:aes.BlockSize]).CryptBlocks(plain, plain)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > aes.BlockSize {
		return nil, false
	}
	plain = plain[:len(plain)-pad]
	from, to := bytes.IndexByte(plain, '{'), bytes.LastIndexByte(plain, '}')
	if from < 0 || to < from {
		return nil, false
	}
	return plain[from : to+1], true
}

// Seal seals the member of a delivery that is made here. A body without it, or with one
// that is sealed already, stays.
func (x *Decrypt) Seal(body, secret []byte) ([]byte, error) {
	doc, err := fastjson.ParseBytes(body)
	if err != nil || x.As == "cbc" || x.As == "wechat" { // such a provider is read in the clear as well
		return body, nil //nolint:nilerr // no JSON: nothing to seal
	}
	name := x.Path.steps[0].key
	plain := doc.Get(name)
	if plain == nil || plain.Type() != fastjson.TypeObject || plain.Exists(x.Text) {
		return body, nil
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", x.Path, err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", x.Path, err)
	}
	nonce := rand.Text()[:gcm.NonceSize()]
	members := maps.Clone(x.Members)
	if members == nil {
		members = map[string]string{}
	}
	text := gcm.Seal(nil, []byte(nonce), plain.MarshalTo(nil), []byte(members[x.With]))
	members[x.Text], members[x.Nonce] = base64.StdEncoding.EncodeToString(text), nonce
	sealed := []byte{'{'}
	for i, k := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			sealed = append(sealed, ',')
		}
		sealed = append(appendJSONString(sealed, []byte(k)), ':')
		sealed = appendJSONString(sealed, []byte(members[k]))
	}
	out, ok := replaceMember(body, name, append(sealed, '}'))
	if !ok {
		return nil, fmt.Errorf("seal %s: it stands twice", x.Path)
	}
	return out, nil
}

// openGCM opens what AES-GCM has sealed; the tag stands behind.
func openGCM(secret, nonce, sealed, with []byte) ([]byte, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, errSealed
	}
	if len(nonce) == 0 || len(nonce) > 64 {
		return nil, errSealed
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(nonce))
	if err != nil {
		return nil, errSealed
	}
	return gcm.Open(nil, nonce, sealed, with)
}

// OpenPrefixed opens an AES-256-GCM text with its 12 byte nonce in front and its tag
// behind. A key of another length is cut or filled with zeros, as OpenSSL's users do.
func OpenPrefixed(secret, sealed []byte) ([]byte, bool) {
	if len(sealed) < 12+16 {
		return nil, false
	}
	var k [32]byte
	copy(k[:], secret)
	plain, err := openGCM(k[:], sealed[:12], sealed[12:], nil)
	return plain, err == nil
}

// replaceMember gives the object's text with another value for one member; false where
// the name stands twice or not at all. The rest stays byte for byte.
func replaceMember(doc []byte, name string, value []byte) ([]byte, bool) {
	var t trie
	t.kid(name).secret = true
	from, to, n := 0, 0, 0
	s := scanner{b: doc, secret: func(a, b int, _ []byte) { from, to, n = a, b, n+1 }}
	if err := s.whole(&t); err != nil || n != 1 {
		return nil, false
	}
	out := make([]byte, 0, len(doc)-(to-from)+len(value))
	return append(append(append(out, doc[:from]...), value...), doc[to:]...), true
}
