package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Secret is a value that no log, error, JSON or %v ever shows. Reveal gives it to the
// one who verifies or logs in with it.
type Secret string

const redacted = "[redacted]"

// Reveal gives the value.
func (s Secret) Reveal() string { return string(s) }

// String hides the value.
func (s Secret) String() string { return redacted }

// Format hides the value from every verb, %#v and %x too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON hides the value.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText hides the value from other encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// maxSecretFile bounds what a file: reference may point at; keys are a few KiB.
const maxSecretFile = 1 << 20

// Least lengths of a secret (CONTRACT.md, "What checks rely on").
const (
	leastSecret = 8
	goodSecret  = 16
)

// sampleSecrets are keys that providers print in their public documentation and that
// work against their sandboxes: everybody can sign with them.
var sampleSecrets = map[string]string{
	"flk3409refn54t54t*FNJRET":               "WayForPay's documentation (test_merch_n1)",
	"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "the Standard Webhooks specification",
	"8f742231b10e8888abcd99yyyzzz85a5":       "Slack's documentation",
	"It's a Secret to Everybody":             "GitHub's documentation",
	"13a980d4f851f3d9a1cfc792fb1f5e50":       "PayU's sandbox (POS 145227)",
	"your_private_key":                       "LiqPay's documentation",
	"whsec_test_secret":                      "Stripe's SDKs",
}

// reference is what a text of the form env:NAME or file:PATH stands for.
type reference struct {
	value string
	file  string // the file that was read, or should have been
	kind  string // "env", "file" or "" for plain text
	err   error  // message; names the variable or the file
	cure  string
}

func resolve(text string) reference {
	if name, ok := strings.CutPrefix(text, "env:"); ok {
		return resolveEnv(name)
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		return resolveFile(path)
	}
	return reference{value: text}
}

func resolveEnv(name string) reference {
	r := reference{kind: "env"}
	if name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		r.err = fmt.Errorf("env:%s names no variable", name)
		r.cure = "write env:NAME"
		return r
	}
	v, ok := os.LookupEnv(name)
	if !ok {
		r.err = fmt.Errorf("environment variable %s is not set", name)
		r.cure = "export " + name + ", or use file:PATH"
		return r
	}
	r.value = v
	return r
}

func resolveFile(path string) reference {
	r := reference{kind: "file", file: path}
	if path == "" {
		r.err, r.cure = errors.New("file: names no file"), "write file:PATH"
		return r
	}
	b, err := readBounded(path, maxSecretFile)
	if err != nil {
		r.err, r.cure = describe(path, err), "create it, or correct the path (it is relative to the working directory)"
		return r
	}
	// One line ending only: editors and `echo` add it, and no secret ends in one.
	r.value = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	return r
}

// describe says in words why a file could not be read; the operator needs the name, not
// the system call.
func describe(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("file %s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("file %s may not be read by this user", path)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("file %s cannot be read: %w", path, err)
}

// readBounded reads a regular file (or what a pipe hands over) of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return b, nil
}
