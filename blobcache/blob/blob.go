// Package blob is the vocabulary that the rest of Shoal shares: the digest and
// descriptor of a blob, ranges of its bytes, the cut into pieces, the errors
// that can happen to it, and Source, the one interface for "somewhere that the
// bytes can be had". It does no I/O, keeps no state and starts no goroutines.
//
// A blob is any content that is named by its digest: layers, configs and
// manifests alike.
package blob

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// PieceSize is the length in bytes of every piece but the last one of a blob.
// With four requests in flight, 1 MiB pieces fill 1 Gbit/s at 20 ms round trip
// (256 KiB pieces reach a sixth of it), and hashing by pieces of this size
// costs 2 to 4 % over hashing the whole.
const PieceSize = 1 << 20

// MaxManifestSize is the largest manifest in bytes that is accepted unless the
// operator says otherwise; the OCI distribution specification asks registries
// for at least this much.
const MaxManifestSize = 4 << 20

// MaxSize is the largest blob in bytes that is accepted, 1 TiB: far over any
// layer, and small enough that bitmaps and chains of a hostile claim stay
// bounded.
const MaxSize = 1 << 40

// UnknownSize is the Size of a Descriptor whose length nobody has told yet.
const UnknownSize int64 = -1

// Descriptor names a blob. It is an OCI content descriptor without annotations.
type Descriptor struct {
	Digest digest.Digest
	// Size is the length in bytes, or UnknownSize. Only a whole blob that was
	// proven has a size that is a fact; before that it is a claim.
	Size int64
	// MediaType may be empty. It never comes from a peer.
	MediaType string
}

// Hash returns the SHA-256 sum that the descriptor's digest states. The digest
// must have come from ParseDigest.
func (d Descriptor) Hash() [sha256.Size]byte {
	var sum [sha256.Size]byte
	if _, err := hex.Decode(sum[:], []byte(d.Digest.Encoded())); err != nil {
		panic(fmt.Sprintf("blob: digest %q was not parsed", d.Digest))
	}
	return sum
}

// ParseDigest checks that s is a sha256 digest in canonical form
// ("sha256:" and 64 lower-case hexadecimal digits, OCI image-spec
// descriptor.md). Anything else is ErrDigestInvalid.
func ParseDigest(s string) (digest.Digest, error) {
	if sum, ok := strings.CutPrefix(s, "sha256:"); ok && len(sum) == 2*sha256.Size && strings.Trim(sum, "0123456789abcdef") == "" {
		return digest.Digest(s), nil // as digest.Parse says, without its regular expressions
	}
	d, err := digest.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%w: %q: %w", ErrDigestInvalid, shorten(s), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%w: %q: only sha256 is supported", ErrDigestInvalid, shorten(s))
	}
	return d, nil
}

// ParseAny checks that s is a digest that can be proven, in canonical form: one
// that ParseDigest takes, or sha512. Blobs of the latter are proven as a whole
// only, so that they are neither cached nor shared: see Shared. Anything else is
// ErrDigestInvalid.
func ParseAny(s string) (digest.Digest, error) {
	if sum, ok := strings.CutPrefix(s, "sha512:"); ok && len(sum) == 2*sha512.Size && strings.Trim(sum, "0123456789abcdef") == "" {
		return digest.Digest(s), nil
	}
	return ParseDigest(s)
}

// Shared reports whether blobs of a digest that ParseAny took are kept in the
// cache and given to members: those of sha256, whose pieces can be proven.
func Shared(d digest.Digest) bool { return d.Algorithm() == digest.SHA256 }

// shorten keeps what a stranger sent from filling a log line.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
