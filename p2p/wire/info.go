package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

// Info says what a member has of a blob. Its claims are the member's word and
// prove nothing.
type Info struct {
	// Size is the length of the blob in bytes as the member knows or believes
	// it.
	Size int64
	// Whole: the blob is committed here, every piece is proven. Have and
	// Proven are nil then.
	Whole bool
	// Chain: the member can give a chain for this digest and size.
	Chain bool
	// Have holds the pieces that are here. Proven are those of them that will
	// be served as proven, Vouched others that will be served with a voucher
	// or under a vouched chain; nil means none.
	Have, Proven, Vouched *bitset.BitSet
	// Claims holds the pieces of the member's own requests to the origin that
	// are in flight; nil means none.
	Claims *bitset.BitSet
	// Inbound holds the pieces of its requests to members of other zones that
	// are in flight; nil means none. It is for members of its own zone.
	Inbound *bitset.BitSet
	// Progress is how many bytes of the blob the member has had from the
	// origin since its fill began.
	Progress int64
	// Volunteer: the member takes its part in asking the origin for others.
	Volunteer bool
	// Origin is what the member knows of its origin.
	Origin Origin
}

// Origin is how an origin serves a blob.
type Origin byte

// What a member can know of its origin. Anything else is unknown, too.
const (
	OriginUnknown     Origin = 0
	OriginRanged      Origin = 1 // it serves ranges
	OriginStreams     Origin = 2 // it ignores them and sends the whole
	OriginUnreachable Origin = 3 // it failed when it was asked last, or there is none
)

// An Info is a list of fields, each a tag byte, a length (uint32, big endian)
// and that many bytes. Unknown tags are skipped, so that a newer member can
// add some; a repeated one is an error.
const (
	tagSize     = 1 // 8 bytes, big endian
	tagFlags    = 2 // 1 byte: flagWhole | flagChain | flagVolunteer
	tagHave     = 3 // bitmap: piece i is bit i%8 of byte i/8
	tagProven   = 4 // the same
	tagVouched  = 5 // the same; may be missing
	tagClaims   = 6 // the same; may be missing
	tagProgress = 7 // 8 bytes, big endian; may be missing
	tagOrigin   = 8 // 1 byte; may be missing
	tagInbound  = 9 // bitmap; may be missing

	flagWhole     = 1
	flagChain     = 2
	flagVolunteer = 4

	fieldHead = 5 // bytes of tag and length
)

// MaxInfo is the most bytes that a member reads of an Info: that of the
// largest blob.
const MaxInfo = bitmaps*(blob.MaxSize/blob.PieceSize/8) + infoRoom

const (
	bitmaps  = 4    // in an Info
	infoRoom = 4096 // for the other fields, and for fields to come

	// maxInbound is how many pieces a blob may have for Inbound to find room
	// there: a member that does not know it reads no more.
	maxInbound = infoRoom / 2 * 8
)

// InfoLimit returns the most bytes of an Info about a blob of size bytes.
func InfoLimit(size int64) int64 {
	return bitmaps*int64((blob.PieceCount(size)+7)/8) + infoRoom
}

// Marshal prints i.
func (i Info) Marshal() []byte {
	var flags byte
	if i.Whole {
		flags |= flagWhole
	}
	if i.Chain {
		flags |= flagChain
	}
	if i.Volunteer {
		flags |= flagVolunteer
	}
	b := appendField(nil, tagSize, binary.BigEndian.AppendUint64(nil, uint64(i.Size)))
	b = appendField(b, tagFlags, []byte{flags})
	if i.Progress > 0 {
		b = appendField(b, tagProgress, binary.BigEndian.AppendUint64(nil, uint64(i.Progress)))
	}
	if i.Origin != OriginUnknown {
		b = appendField(b, tagOrigin, []byte{byte(i.Origin)})
	}
	if i.Whole {
		return b
	}
	b = appendField(b, tagHave, bitmap(i.Have, i.Size))
	b = appendField(b, tagProven, bitmap(i.Proven, i.Size))
	if i.Vouched != nil && i.Vouched.Any() {
		b = appendField(b, tagVouched, bitmap(i.Vouched, i.Size))
	}
	if i.Claims != nil && i.Claims.Any() {
		b = appendField(b, tagClaims, bitmap(i.Claims, i.Size))
	}
	if i.Inbound != nil && i.Inbound.Any() && blob.PieceCount(i.Size) <= maxInbound {
		b = appendField(b, tagInbound, bitmap(i.Inbound, i.Size))
	}
	return b
}

func appendField(b []byte, tag byte, body []byte) []byte {
	b = append(b, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// bitmap prints set (nil means none) over the pieces of a blob of size bytes.
func bitmap(set *bitset.BitSet, size int64) []byte {
	n := blob.PieceCount(size)
	b := make([]byte, (n+7)/8, (n+63)/64*8)
	if set == nil {
		return b
	}
	full := b[:cap(b)]
	for i, word := range set.Words() {
		if 8*i == len(full) {
			break
		}
		binary.LittleEndian.PutUint64(full[8*i:], word)
	}
	if n%8 != 0 { // the set may be longer than the blob
		b[len(b)-1] &= 1<<(n%8) - 1
	}
	return b
}

// ParseInfo is the inverse of Marshal. In what it returns the size is within
// bounds, no piece is set behind the end, and what will be
// served is also had. Anything else is ErrMalformed.
func ParseInfo(b []byte) (Info, error) {
	fields, err := parseFields(b)
	if err != nil {
		return Info{}, err
	}
	if len(fields[tagSize]) != 8 || len(fields[tagFlags]) != 1 {
		return Info{}, fmt.Errorf("%w: an info without size or flags", ErrMalformed)
	}
	size := binary.BigEndian.Uint64(fields[tagSize])
	if size > blob.MaxSize {
		return Info{}, fmt.Errorf("%w: a blob of %d bytes", ErrMalformed, size)
	}
	flags := fields[tagFlags][0]
	i := Info{
		Size: int64(size), Whole: flags&flagWhole != 0, Chain: flags&flagChain != 0, Volunteer: flags&flagVolunteer != 0,
	}
	if err := i.parseOrigin(fields); err != nil || i.Whole {
		return i, err
	}
	if fields[tagHave] == nil || fields[tagProven] == nil {
		return Info{}, fmt.Errorf("%w: an info without bitmaps", ErrMalformed)
	}
	for tag, set := range map[byte]**bitset.BitSet{
		tagHave: &i.Have, tagProven: &i.Proven, tagVouched: &i.Vouched, tagClaims: &i.Claims, tagInbound: &i.Inbound,
	} {
		if body, there := fields[tag]; there {
			if *set, err = parseBitmap(body, i.Size); err != nil {
				return Info{}, err
			}
		}
	}
	if blob.PieceCount(i.Size) > maxInbound {
		i.Inbound = nil
	}
	return i, i.checkSets()
}

// parseOrigin reads what an Info says of the origin.
func (i *Info) parseOrigin(fields map[byte][]byte) error {
	if body, there := fields[tagProgress]; there {
		if len(body) != 8 || binary.BigEndian.Uint64(body) > math.MaxInt64 {
			return fmt.Errorf("%w: a progress that is no number", ErrMalformed)
		}
		i.Progress = int64(binary.BigEndian.Uint64(body))
	}
	if body, there := fields[tagOrigin]; there {
		if len(body) != 1 {
			return fmt.Errorf("%w: an origin of %d bytes", ErrMalformed, len(body))
		}
		if i.Origin = Origin(body[0]); i.Origin > OriginUnreachable {
			i.Origin = OriginUnknown // a newer member knows more
		}
	}
	return nil
}

// checkSets compares the bitmaps with each other.
func (i *Info) checkSets() error {
	switch {
	case i.Proven.DifferenceCardinality(i.Have) != 0:
		return fmt.Errorf("%w: proven pieces that are not there", ErrMalformed)
	case i.Vouched != nil && i.Vouched.DifferenceCardinality(i.Have) != 0:
		return fmt.Errorf("%w: vouched pieces that are not there", ErrMalformed)
	}
	return nil
}

func parseFields(b []byte) (map[byte][]byte, error) {
	fields := make(map[byte][]byte, 4)
	for len(b) > 0 {
		if len(b) < fieldHead {
			return nil, fmt.Errorf("%w: a cut field", ErrMalformed)
		}
		tag, n := b[0], int64(binary.BigEndian.Uint32(b[1:fieldHead]))
		b = b[fieldHead:]
		if n > int64(len(b)) {
			return nil, fmt.Errorf("%w: a cut field", ErrMalformed)
		}
		if _, twice := fields[tag]; twice {
			return nil, fmt.Errorf("%w: a field twice", ErrMalformed)
		}
		fields[tag], b = b[:n], b[n:]
	}
	return fields, nil
}

func parseBitmap(b []byte, size int64) (*bitset.BitSet, error) {
	n := uint(blob.PieceCount(size))
	if uint(len(b)) != (n+7)/8 {
		return nil, fmt.Errorf("%w: a bitmap of %d bytes for %d pieces", ErrMalformed, len(b), n)
	}
	if n%8 != 0 && b[len(b)-1]>>(n%8) != 0 {
		return nil, fmt.Errorf("%w: a piece behind the end", ErrMalformed)
	}
	set := bitset.New(n)
	words := set.Words()
	for i := range words {
		var word [8]byte
		copy(word[:], b[8*i:])
		words[i] = binary.LittleEndian.Uint64(word[:])
	}
	return set, nil
}
