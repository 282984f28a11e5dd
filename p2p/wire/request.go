// Package wire is the format of the piece protocol: what one member asks
// another over the piece channel, and what it answers; and of pushes (push.go),
// which go over libp2p. It only parses and prints: no I/O but by the readers
// that it is given, no state, no goroutines.
//
// The protocol is HTTP/1.1 with GET requests below Prefix. The channel has
// proved that both ends are members before the first request, so a digest is
// named in plain. What can be asked:
//
//	/shoal/1/info/DIGEST                      what do you have of it: an Info
//	/shoal/1/chain/DIGEST/SIZE                the chain of hash states: a chain body
//	/shoal/1/pieces/DIGEST/SIZE/FIRST/COUNT   the bytes of COUNT pieces, nothing else
//	/shoal/1/follow                           tell me what you have of these, and each change
//
// Pieces that are not proven come with the word of somebody who answers for
// them, in headers (pledge.go), to those who ask with VouchersHeader; so does a
// chain that has not closed where it comes from. What a seeder has signed about a
// chain goes with it, whoever gives it (EndorsementHeader).
//
// SIZE is the asker's belief about the blob's length in bytes; an answer is
// about the pair (digest, size) and never about the digest alone. Answers are
// 200 with a Content-Length, 404 (not here, or not at that size, or not all of
// those pieces may be given), 503 (busy: ask again soon) or 400.
//
// To be followed a connection is upgraded (101) and carries frames from then
// on (follow.go): the asker names blobs that it fills, under IDs of its choice,
// and the member answers each with what it has of it, and again whenever that
// changes. One connection serves all blobs; a member that is connected tells
// news within its round trip, and one that dies is noticed by its connection.
// To say that one fills a blob is to follow it elsewhere. Members that are too
// old for this answer 400, and are asked for info again and again instead.
//
// What always holds: a request parses to one value and prints as the same
// path; every parser bounds what it allocates by what it was given, never by
// what the other side claims. The number in Prefix changes when an old node
// would misread a new one; fields can be added to an Info without that.
package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// Prefix starts every path of this version of the protocol.
const Prefix = "/shoal/1/"

// MaxRun is the most pieces that one request may name. Four pieces keep the
// cost of a request small beside its bytes, and are little to fetch again when
// the sender freezes.
const MaxRun = 4

// ErrMalformed is a message that does not follow the format.
var ErrMalformed = errors.New("malformed message")

// Kind says what a Request asks for.
type Kind string

// The kinds of Request.
const (
	KindInfo   Kind = "info"
	KindChain  Kind = "chain"
	KindPieces Kind = "pieces"
)

// Request is one question about one blob.
type Request struct {
	Kind   Kind
	Digest digest.Digest
	// Size is the length of the blob in bytes; not part of an info request.
	Size int64
	// First and Count name a run of pieces; only in a pieces request.
	First, Count int
}

// Path prints the request as the path of its URL.
func (r Request) Path() string {
	path := Prefix + string(r.Kind) + "/" + string(r.Digest)
	if r.Kind == KindInfo {
		return path
	}
	path += "/" + strconv.FormatInt(r.Size, 10)
	if r.Kind == KindChain {
		return path
	}
	return path + "/" + strconv.Itoa(r.First) + "/" + strconv.Itoa(r.Count)
}

// Range returns the bytes that a pieces request asks for.
func (r Request) Range() blob.Range {
	from := blob.Piece(r.First, r.Size).Offset
	last := blob.Piece(r.First+r.Count-1, r.Size)
	return blob.Range{Offset: from, Length: last.Offset + last.Length - from}
}

// ParseRequest is the inverse of Path. Everything in the result is within
// bounds: the run lies inside a blob of that size. Any other path is
// ErrMalformed.
func ParseRequest(path string) (Request, error) {
	rest, ok := strings.CutPrefix(path, Prefix)
	if !ok {
		return Request{}, fmt.Errorf("%w: not below %s", ErrMalformed, Prefix)
	}
	parts := strings.Split(rest, "/")
	fields := map[Kind]int{KindInfo: 2, KindChain: 3, KindPieces: 5}
	r := Request{Kind: Kind(parts[0])}
	if n, known := fields[r.Kind]; !known || n != len(parts) {
		return Request{}, fmt.Errorf("%w: no such question", ErrMalformed)
	}
	var err error
	if r.Digest, err = blob.ParseDigest(parts[1]); err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(parts) > 2 {
		if r.Size, err = number(parts[2], blob.MaxSize); err != nil {
			return Request{}, err
		}
	}
	if r.Kind == KindPieces {
		return parseRun(r, parts[3], parts[4])
	}
	return r, nil
}

func parseRun(r Request, first, count string) (Request, error) {
	n := int64(blob.PieceCount(r.Size))
	f, err := number(first, n-1)
	if err != nil {
		return Request{}, err
	}
	c, err := number(count, min(MaxRun, n-f))
	if err != nil {
		return Request{}, err
	}
	if c == 0 {
		return Request{}, fmt.Errorf("%w: an empty run", ErrMalformed)
	}
	r.First, r.Count = int(f), int(c)
	return r, nil
}

// number reads a decimal number from 0 to most, in the one form in which it is
// printed: no sign, no leading zeros.
func number(s string, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%w: a number out of range", ErrMalformed)
	}
	return n, nil
}
