package wire

import (
	"encoding/binary"
	"fmt"

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
	// Have holds the pieces that are here, Proven those of them that will be
	// served as proven.
	Have, Proven *bitset.BitSet
}

// An Info is a list of fields, each a tag byte, a length (uint32, big endian)
// and that many bytes. Unknown tags are skipped, so that a newer member can
// add some; a repeated one is an error.
const (
	tagSize   = 1 // 8 bytes, big endian
	tagFlags  = 2 // 1 byte: flagWhole | flagChain
	tagHave   = 3 // bitmap: piece i is bit i%8 of byte i/8
	tagProven = 4 // the same

	flagWhole = 1
	flagChain = 2

	fieldHead = 5 // bytes of tag and length
)

// MaxInfo is the most bytes that a member reads of an Info: two bitmaps of the
// largest blob, and room for fields to come.
const MaxInfo = 2*(blob.MaxSize/blob.PieceSize/8) + 4096

// Marshal prints i.
func (i Info) Marshal() []byte {
	var flags byte
	if i.Whole {
		flags |= flagWhole
	}
	if i.Chain {
		flags |= flagChain
	}
	b := appendField(nil, tagSize, binary.BigEndian.AppendUint64(nil, uint64(i.Size)))
	b = appendField(b, tagFlags, []byte{flags})
	if i.Whole {
		return b
	}
	b = appendField(b, tagHave, bitmap(i.Have, i.Size))
	return appendField(b, tagProven, bitmap(i.Proven, i.Size))
}

func appendField(b []byte, tag byte, body []byte) []byte {
	b = append(b, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// bitmap prints set (nil means none) over the pieces of a blob of size bytes.
func bitmap(set *bitset.BitSet, size int64) []byte {
	n := uint(blob.PieceCount(size))
	b := make([]byte, (n+7)/8)
	if set == nil {
		return b
	}
	for i, ok := set.NextSet(0); ok && i < n; i, ok = set.NextSet(i + 1) {
		b[i/8] |= 1 << (i % 8)
	}
	return b
}

// ParseInfo is the inverse of Marshal. In what it returns the size is within
// bounds, no piece is set behind the end, and what is proven is also had.
// Anything else is ErrMalformed.
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
	i := Info{Size: int64(size), Whole: flags&flagWhole != 0, Chain: flags&flagChain != 0}
	if i.Whole {
		return i, nil
	}
	have, ok1 := fields[tagHave]
	proven, ok2 := fields[tagProven]
	if !ok1 || !ok2 {
		return Info{}, fmt.Errorf("%w: an info without bitmaps", ErrMalformed)
	}
	if i.Have, err = parseBitmap(have, i.Size); err != nil {
		return Info{}, err
	}
	if i.Proven, err = parseBitmap(proven, i.Size); err != nil {
		return Info{}, err
	}
	if i.Proven.DifferenceCardinality(i.Have) != 0 {
		return Info{}, fmt.Errorf("%w: proven pieces that are not there", ErrMalformed)
	}
	return i, nil
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
	set := bitset.New(n)
	for i := range uint(len(b)) * 8 {
		if b[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if i >= n {
			return nil, fmt.Errorf("%w: a piece behind the end", ErrMalformed)
		}
		set.Set(i)
	}
	return set, nil
}
