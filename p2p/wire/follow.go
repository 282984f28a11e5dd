package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

const (
	// FollowPath is where a member is asked to tell what it has, and each
	// change of it, for as long as the connection lasts.
	FollowPath = Prefix + "follow"
	// FollowProtocol is what the connection is upgraded to (RFC 9110, 7.8).
	FollowProtocol = "shoal-follow/1"
)

// FrameType says what a frame of a followed connection is about.
type FrameType byte

// The types of frames. A member skips those that it does not know.
const (
	// FrameSelf, from the asker, first: a Member list of one, itself.
	FrameSelf FrameType = 1
	// FrameFollow, from the asker: it fills the blob that the body names
	// (AppendFollow) and wants to know what the member has of it, under an ID
	// of its choice. The same ID again asks again.
	FrameFollow FrameType = 2
	// FrameLeave, from the asker, without body: it does not fill it any more.
	FrameLeave FrameType = 3
	// FrameInfo: the member has it, or fills it; the body is an Info. It may
	// be about another size than was asked for if the member has the whole.
	FrameInfo FrameType = 4
	// FrameFilling, without body: the member fills it, and does not know its
	// size yet.
	FrameFilling FrameType = 5
	// FrameNone, without body: the member neither has nor fills it. It will
	// say so when that changes.
	FrameNone FrameType = 6
	// FrameFull, without body: as many members follow the blob here as may.
	// Nothing follows under this ID.
	FrameFull FrameType = 7
	// FrameMembers: the body lists others that fill the blob or have it.
	FrameMembers FrameType = 8
	// FrameBeat, either way, without body and ID: the sender is alive.
	FrameBeat FrameType = 9
)

const (
	// FrameHeadSize is the length in bytes of what precedes each body: the
	// body's length (uint32, big endian), the type, the ID (uint32).
	FrameHeadSize = 9
	// MaxMembers bounds the entries of a list of members.
	MaxMembers = 16
	// MaxMembersSize bounds such a list in bytes.
	MaxMembersSize = 16 << 10
	// MaxOther bounds the body of a frame that is not known, in bytes.
	MaxOther = 64 << 10

	followSize = 8 + sha256.Size
)

// FrameHead is the head of a frame.
type FrameHead struct {
	Length uint32 // of the body, in bytes
	Type   FrameType
	ID     uint32 // of the follow; chosen by the asker
}

// AppendFrame appends a frame to b.
func AppendFrame(b []byte, t FrameType, id uint32, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(append(b, byte(t)), id)
	return append(b, body...)
}

// ParseFrameHead reads a head. A body that is longer than one of its type can
// be is ErrMalformed; that of an Info is bounded by MaxInfo.
func ParseFrameHead(b [FrameHeadSize]byte) (FrameHead, error) {
	h := FrameHead{Length: binary.BigEndian.Uint32(b[:]), Type: FrameType(b[4]), ID: binary.BigEndian.Uint32(b[5:])}
	most := uint32(MaxOther)
	switch h.Type {
	case FrameSelf, FrameMembers:
		most = MaxMembersSize
	case FrameFollow:
		most = followSize
	case FrameInfo:
		most = MaxInfo
	case FrameLeave, FrameFilling, FrameNone, FrameFull, FrameBeat:
		most = 0
	}
	if h.Length > most {
		return h, fmt.Errorf("%w: a frame of type %d with %d bytes", ErrMalformed, h.Type, h.Length)
	}
	return h, nil
}

// AppendFollow appends the body of a FrameFollow. size may be
// blob.UnknownSize.
func AppendFollow(b []byte, d digest.Digest, size int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(max(size, blob.UnknownSize)))
	sum, _ := hex.DecodeString(d.Encoded()) // a digest was checked when it was parsed
	return append(b, sum...)
}

// ParseFollow is the inverse of AppendFollow.
func ParseFollow(b []byte) (d digest.Digest, size int64, err error) {
	if len(b) != followSize {
		return "", 0, fmt.Errorf("%w: a follow of %d bytes", ErrMalformed, len(b))
	}
	n := binary.BigEndian.Uint64(b)
	switch {
	case n == math.MaxUint64:
		size = blob.UnknownSize
	case n > blob.MaxSize:
		return "", 0, fmt.Errorf("%w: a blob of %d bytes", ErrMalformed, n)
	default:
		size = int64(n)
	}
	return digest.NewDigestFromBytes(digest.SHA256, b[8:]), size, nil
}

// Member is where a member is reached, as it says itself or as others pass
// on: the channel proves who answers there.
type Member struct {
	ID     peer.ID  `json:"id,omitempty"`
	Pieces []string `json:"pieces"`         // "host:port" of its piece channel, best first
	Zone   string   `json:"zone,omitempty"` // the place that it is in
}

const (
	// MaxAddrs bounds the addresses of one member.
	MaxAddrs = 16
	// MaxZone bounds the name of a zone, in bytes.
	MaxZone = 64

	maxAddr = 256 // of an address, in bytes
)

// Check returns an error if m is not what an honest member would say.
func (m Member) Check() error {
	if len(m.Pieces) > MaxAddrs {
		return fmt.Errorf("%w: %d addresses", ErrMalformed, len(m.Pieces))
	}
	for _, a := range m.Pieces {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || !ValidText(a, maxAddr) {
			return fmt.Errorf("%w: a bad piece channel address", ErrMalformed)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%w: a bad piece channel port", ErrMalformed)
		}
	}
	if !ValidText(m.Zone, MaxZone) {
		return fmt.Errorf("%w: a bad zone", ErrMalformed)
	}
	return nil
}

// ValidText reports whether s is short printable ASCII: what may go into a log
// line or a table without care.
func ValidText(s string, most int) bool {
	return len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// MarshalMembers prints the first of the members, as many as a list may hold.
func MarshalMembers(members []Member) []byte {
	for n := min(len(members), MaxMembers); n > 0; n-- {
		b, err := json.Marshal(members[:n])
		if err == nil && len(b) <= MaxMembersSize {
			return b
		}
	}
	return []byte("[]")
}

// ParseMembers is the inverse of MarshalMembers.
func ParseMembers(b []byte) ([]Member, error) {
	if len(b) > MaxMembersSize {
		return nil, fmt.Errorf("%w: a list of %d bytes", ErrMalformed, len(b))
	}
	var members []Member
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(members) > MaxMembers {
		return nil, fmt.Errorf("%w: %d members", ErrMalformed, len(members))
	}
	for _, m := range members {
		if err := m.Check(); err != nil {
			return nil, err
		}
	}
	return members, nil
}

// Dialable puts first the addresses with the IP that their teller is reached
// by, and drops those of this machine's own loopback unless that is where the
// teller is: a stranger must not choose what this node connects to here.
func Dialable(addrs []string, teller netip.Addr) []string {
	teller = teller.Unmap()
	var same, other []string
	for _, a := range addrs {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		ip, err := netip.ParseAddr(host)
		switch ip = ip.Unmap(); {
		case err == nil && ip == teller:
			same = append(same, a)
		case local(host, ip, err) && !teller.IsLoopback():
		default:
			other = append(other, a)
		}
	}
	return append(same, other...)
}

// local reports whether an address leads back to this machine.
func local(host string, ip netip.Addr, notIP error) bool {
	if notIP != nil {
		host = "." + strings.ToLower(strings.TrimSuffix(host, "."))
		return strings.HasSuffix(host, ".localhost") // and all names below it: RFC 6761, section 6.3
	}
	return ip.IsLoopback() || ip.IsUnspecified()
}
