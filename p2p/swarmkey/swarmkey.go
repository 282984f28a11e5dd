// Package swarmkey holds the secret that makes a swarm private, and derives
// from it what each layer needs: the key of the transport, of the names in the
// DHT, of the membership proof on the piece channel, and the name under which
// members find each other on a local network. It is not an identity: every
// member has the same key, and who a member is says its libp2p key.
//
// A key file holds one or two secrets. All of them are accepted, the first is
// used. That is how a key is rotated without a gap, each step on all members
// before the next: put the new secret second, make it the first, take out the
// old one.
//
// A Key never changes after it was made, never prints its secret through fmt
// or slog, and needs no goroutines.
package swarmkey

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"
)

const (
	// header is the first line of a key file: what it is, and its version.
	header = "shoal-swarm-key/1"
	// secretSize is the length of a secret in bytes.
	secretSize = 32
	// maxSecrets is two: a rotation has one old and one new secret.
	maxSecrets = 2
	// maxFileSize bounds what Load reads, in bytes. A file with two secrets
	// has about 110; the rest is room for comments.
	maxFileSize = 16 << 10
)

// ErrInvalid means that the text is not a swarm key file.
var ErrInvalid = errors.New("not a swarm key")

// Key is the shared secret of a swarm. Make one with New, Parse, Load or
// Loopback.
type Key struct {
	members  []member // the first is used, all are accepted
	loopback bool
}

// member is one secret and what was derived from it.
type member struct {
	secret      [secretSize]byte
	transport   [secretSize]byte
	names       [secretSize]byte
	membership  [secretSize]byte
	serviceName string
	fingerprint string
}

// New makes a key from fresh randomness.
func New() *Key {
	var secret [secretSize]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	return &Key{members: []member{derive(secret)}}
}

// Loopback returns the key of the swarms that have none: fixed and public, it
// keeps nobody out. Such a swarm must not leave the loopback interface.
func Loopback() *Key {
	secret := sha256.Sum256([]byte("shoal: the public key of keyless swarms on the loopback interface"))
	return &Key{members: []member{derive(secret)}, loopback: true}
}

// Load reads a key file. Errors: those of os.Open, or ErrInvalid.
func Load(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("swarm key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("swarm key: %w", err)
	}
	k, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("swarm key: %s: %w", path, err)
	}
	return k, nil
}

// Parse reads the text of a key file: the header line, then one or two lines
// of 32 bytes in standard base64. Blank lines and lines that start with # are
// skipped. Every error is ErrInvalid and tells the line, never its content.
func Parse(text []byte) (*Key, error) {
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, maxFileSize)
	}
	k := &Key{}
	sawHeader := false
	sc := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case !sawHeader:
			if line != header {
				return nil, fmt.Errorf("%w: line %d: want %q", ErrInvalid, n, header)
			}
			sawHeader = true
		default:
			secret, err := base64.StdEncoding.Strict().DecodeString(line)
			if err != nil || len(secret) != secretSize {
				return nil, fmt.Errorf("%w: line %d: want %d bytes in base64", ErrInvalid, n, secretSize)
			}
			if err := k.add([secretSize]byte(secret)); err != nil {
				return nil, fmt.Errorf("%w: line %d: %w", ErrInvalid, n, err)
			}
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(k.members) == 0 {
		return nil, fmt.Errorf("%w: no secret in it", ErrInvalid)
	}
	return k, nil
}

func (k *Key) add(secret [secretSize]byte) error {
	if len(k.members) == maxSecrets {
		return fmt.Errorf("more than %d secrets", maxSecrets)
	}
	for _, m := range k.members {
		if hmac.Equal(m.secret[:], secret[:]) {
			return errors.New("the same secret twice")
		}
	}
	k.members = append(k.members, derive(secret))
	return nil
}

// derive makes the subkeys by HKDF-SHA-256 (RFC 5869) with one label each, so
// that none of them tells anything about another.
func derive(secret [secretSize]byte) member {
	sub := func(label string) (out [secretSize]byte) {
		b, err := hkdf.Key(sha256.New, secret[:], nil, "shoal/1 "+label, secretSize)
		if err != nil {
			panic(err) // only for lengths over 255 hashes
		}
		return [secretSize]byte(b)
	}
	service, fingerprint := sub("service name"), sub("fingerprint")
	return member{
		secret:      secret,
		transport:   sub("transport"),
		names:       sub("content names"),
		membership:  sub("membership"),
		serviceName: "_shoal-" + hex.EncodeToString(service[:4]) + "._udp",
		fingerprint: hex.EncodeToString(fingerprint[:4]),
	}
}

// Text returns the content of the key file, which is secret.
func (k *Key) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, header)
	for _, m := range k.members {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(m.secret[:]))
	}
	return b.Bytes()
}

// Loopback reports whether k is the public key of keyless swarms.
func (k *Key) Loopback() bool { return k.loopback }

// String names the key by its fingerprints, which may be shown: members whose
// fingerprints have one in common can talk to each other.
func (k *Key) String() string {
	if k.loopback {
		return "none"
	}
	names := make([]string, len(k.members))
	for i, m := range k.members {
		names[i] = m.fingerprint
	}
	return strings.Join(names, ",")
}

// Format keeps every verb of fmt, %#v included, from printing the secret.
func (k *Key) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "swarmkey("+k.String()+")")
}

// CID returns the name under which the DHT knows the blob: a CIDv1 of raw
// content whose hash is HMAC-SHA-256 of the digest under the used secret.
// Nobody without the key can tell which blob it is, or test a guess.
func (k *Key) CID(d digest.Digest) cid.Cid { return k.members[0].cid(d) }

// CIDs returns the names to look for, the one to announce first: during a
// rotation some members announce under the other secret.
func (k *Key) CIDs(d digest.Digest) []cid.Cid {
	ids := make([]cid.Cid, len(k.members))
	for i, m := range k.members {
		ids[i] = m.cid(d)
	}
	return ids
}

func (m member) cid(d digest.Digest) cid.Cid {
	mac := hmac.New(sha256.New, m.names[:])
	mac.Write([]byte(d))
	h, err := multihash.Encode(mac.Sum(nil), multihash.SHA2_256)
	if err != nil {
		panic(err) // only for a hash of the wrong length
	}
	return cid.NewCidV1(cid.Raw, h)
}

// Transport returns the pre-shared keys of the private network (libp2p pnet),
// 32 bytes each, the one to dial with first.
func (k *Key) Transport() [][32]byte {
	keys := make([][32]byte, len(k.members))
	for i, m := range k.members {
		keys[i] = m.transport
	}
	return keys
}

// Prove returns HMAC-SHA-256 of message under the membership key of the used
// secret. The message must name its purpose, so that one proof is not another.
func (k *Key) Prove(message []byte) [sha256.Size]byte { return k.members[0].prove(message) }

// Verify reports, in constant time for each secret, whether proof is that of a
// member for message.
func (k *Key) Verify(message []byte, proof [sha256.Size]byte) bool {
	ok := false
	for _, m := range k.members {
		want := m.prove(message)
		ok = hmac.Equal(want[:], proof[:]) || ok
	}
	return ok
}

func (m member) prove(message []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, m.membership[:])
	mac.Write(message)
	return [sha256.Size]byte(mac.Sum(nil))
}

// ServiceNames returns the mDNS service types (RFC 6763, section 7) under
// which members announce themselves: one for each secret, so that swarms with
// different keys do not see each other.
func (k *Key) ServiceNames() []string {
	names := make([]string, len(k.members))
	for i, m := range k.members {
		names[i] = m.serviceName
	}
	return names
}
