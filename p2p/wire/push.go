package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A push is what a member tells another one without being asked, on a libp2p
// stream of its own: the length of what follows (uint32, big endian), the kind,
// and a body that says by itself which version it is of. Nothing is answered.
const (
	// PushProtocol is the protocol of such a stream.
	PushProtocol = "/shoal/push/1"
	// PreheatProtocol is the protocol of a stream that begins with a preheat.
	PreheatProtocol = "/shoal/preheat/1"
	// MaxPush bounds the body of a push, in bytes.
	MaxPush = 4 << 10
)

// PushKind says what a push is about. A member passes over kinds that it does
// not know.
type PushKind byte

// The kinds. PushInvalidation and PushLease go alone over PushProtocol; the others
// over PreheatProtocol, where an order is answered by how far it is, again and
// again until the stream ends, or by why it is refused.
const (
	PushInvalidation PushKind = 1 // the body is a statement.Invalidation
	PushLease        PushKind = 2 // a statement.Lease
	PushPreheat      PushKind = 3 // a statement.Preheat
	PushProgress     PushKind = 4 // what Options.Preheat of package p2p tells
	PushRefusal      PushKind = 5 // a sentence
)

// AppendPush appends a push to b.
func AppendPush(b []byte, kind PushKind, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(body)))
	return append(append(b, byte(kind)), body...)
}

// ReadPush reads a push and nothing behind it. ErrMalformed for one that is
// longer than MaxPush or has no kind; else the errors of r.
func ReadPush(r io.Reader) (PushKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("push: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > 1+MaxPush {
		return 0, nil, fmt.Errorf("%w: a push of %d bytes", ErrMalformed, n)
	}
	body := make([]byte, n-1)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("push: %w", err)
	}
	return PushKind(head[4]), body, nil
}
