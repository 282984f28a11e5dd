package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// keyPrefix stands before a public key in text.
	keyPrefix = "ed25519:"
	// signerHeader is the first line of a signing key file: what it is, and its
	// version.
	signerHeader = "shoal-signing-key/1"
	// maxSignerSize bounds the text of such a file, in bytes: it has about 150,
	// the rest is room for comments.
	maxSignerSize = 4 << 10
)

// ErrKey means that a text is no key of its kind. It never shows what the text
// was: the one may have been taken for the other.
var ErrKey = errors.New("no key")

// String returns the key as people pass it on: "ed25519:" and 32 bytes in
// standard base64.
func (k Key) String() string { return keyPrefix + base64.StdEncoding.EncodeToString(k[:]) }

// ParseKey is the inverse of String. Anything else is ErrKey, and so are keys
// for which anybody can sign.
func ParseKey(s string) (Key, error) {
	text, ok := strings.CutPrefix(s, keyPrefix)
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) != ed25519.PublicKeySize || len(text) != base64.StdEncoding.EncodedLen(ed25519.PublicKeySize) {
		return Key{}, fmt.Errorf("%w: use %s and %d bytes in base64", ErrKey, keyPrefix, ed25519.PublicKeySize)
	}
	k := Key(raw)
	if k.weak() {
		return Key{}, fmt.Errorf("%w: anybody can sign for that one", ErrKey)
	}
	return k, nil
}

// weak tells whether k is a point of small order, by the y coordinates of all
// that are, and of those that are not reduced (RFC 8032, section 5.1).
func (k Key) weak() bool {
	k[ed25519.PublicKeySize-1] &= 0x7f // without the sign of x
	return slices.Contains([]string{
		"0000000000000000000000000000000000000000000000000000000000000000", // order 4
		"0100000000000000000000000000000000000000000000000000000000000000", // order 1
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // -1, order 2
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 0 again
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1 again
	}, hex.EncodeToString(k[:]))
}

// GenerateSigner makes a signer with a new key.
func GenerateSigner() *Signer {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails (crypto/rand)
	return seeded(seed)
}

func seeded(seed []byte) *Signer {
	s, err := NewSigner(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		panic(err) // only for keys of another length
	}
	return s
}

// Key returns the signer's public key.
func (s *Signer) Key() Key { return s.public }

// Text returns the content of a signing key file, which is secret.
func (s *Signer) Text() []byte {
	return fmt.Appendf(nil, "%s\n# its public key, for trusted-keys: %s\n%s\n", signerHeader, s.public, base64.StdEncoding.EncodeToString(s.private.Seed()))
}

// ParseSigner reads a signing key file: the header line, then a line of 32
// bytes in standard base64. Blank lines and lines that start with # are skipped.
// Every error is ErrKey.
func ParseSigner(text []byte) (*Signer, error) {
	if len(text) > maxSignerSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrKey, maxSignerSize)
	}
	var lines []string
	for line := range bytes.Lines(text) {
		if line := strings.TrimSpace(string(line)); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || lines[0] != signerHeader {
		return nil, fmt.Errorf("%w: want the line %s and one more", ErrKey, signerHeader)
	}
	seed, err := base64.StdEncoding.Strict().DecodeString(lines[1])
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: want %d bytes in base64", ErrKey, ed25519.SeedSize)
	}
	return seeded(seed), nil
}

// Format keeps every verb of fmt, %#v included, from printing the private key.
func (s *Signer) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "signer("+s.public.String()+")") // as fmt itself ignores it
}
