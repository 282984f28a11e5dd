package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
)

const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestRequests(t *testing.T) {
	const mib = blob.PieceSize
	for _, c := range []struct {
		path string
		r    Request
		rng  blob.Range
	}{
		{"info/" + empty, Request{Kind: KindInfo}, blob.Range{}},
		{"chain/" + empty + "/0", Request{Kind: KindChain}, blob.Range{}},
		{"chain/" + empty + "/1099511627776", Request{Kind: KindChain, Size: blob.MaxSize}, blob.Range{}},
		{"pieces/" + empty + "/1/0/1", Request{Kind: KindPieces, Size: 1, Count: 1}, blob.Range{Length: 1}},
		{"pieces/" + empty + "/5242881/2/4", Request{Kind: KindPieces, Size: 5*mib + 1, First: 2, Count: 4}, blob.Range{Offset: 2 * mib, Length: 3*mib + 1}},
		{"pieces/" + empty + "/5242880/1/4", Request{Kind: KindPieces, Size: 5 * mib, First: 1, Count: 4}, blob.Range{Offset: mib, Length: 4 * mib}},
	} {
		c.r.Digest = empty
		if got := c.r.Path(); got != Prefix+c.path {
			t.Errorf("%+v prints as %s, want %s", c.r, got, c.path)
		}
		got, err := ParseRequest(Prefix + c.path)
		if err != nil || got != c.r {
			t.Errorf("%s: %+v, %v", c.path, got, err)
		}
		if c.r.Kind == KindPieces && c.r.Range() != c.rng {
			t.Errorf("%s: bytes %+v, want %+v", c.path, c.r.Range(), c.rng)
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	for _, path := range []string{
		"", "/", "info/" + empty, "/shoal/2/info/" + empty, Prefix, Prefix + "info", Prefix + "info/", Prefix + "info/sha256:00",
		Prefix + "info/" + empty + "/", Prefix + "info/" + empty + "/1", Prefix + "info/" + strings.ToUpper(empty),
		Prefix + "info/sha512:" + strings.Repeat("0", 128), Prefix + "other/" + empty,
		Prefix + "chain/" + empty, Prefix + "chain/" + empty + "/", Prefix + "chain/" + empty + "/-1", Prefix + "chain/" + empty + "/+1",
		Prefix + "chain/" + empty + "/01", Prefix + "chain/" + empty + "/1099511627777", Prefix + "chain/" + empty + "/99999999999999999999",
		Prefix + "chain/" + empty + "/0x10",
		Prefix + "pieces/" + empty + "/0/0/1", Prefix + "pieces/" + empty + "/10/0/0", Prefix + "pieces/" + empty + "/10/0/2",
		Prefix + "pieces/" + empty + "/10/1/1", Prefix + "pieces/" + empty + "/10/-1/1", Prefix + "pieces/" + empty + "/10485760/0/5",
		Prefix + "pieces/" + empty + "/10485760/8/3", Prefix + "pieces/" + empty + "/10485760/8", Prefix + "pieces/" + empty + "/10485760/8/2/",
		Prefix + "pieces/" + empty + "/10485760/9223372036854775807/1",
	} {
		if r, err := ParseRequest(path); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %+v, %v", path, r, err)
		}
	}
}

func TestInfo(t *testing.T) {
	have := bitset.New(9).Set(0).Set(7).Set(8)
	for _, i := range []Info{
		{Size: 0, Whole: true},
		{Size: blob.MaxSize, Whole: true, Chain: true},
		{Size: 9 * blob.PieceSize, Have: have, Proven: bitset.New(9).Set(8)},
		{Size: 8*blob.PieceSize + 1, Chain: true, Have: have, Proven: have},
		{Size: 0, Have: bitset.New(0), Proven: bitset.New(0)},
		{
			Size: 9 * blob.PieceSize, Have: have, Proven: bitset.New(9), Vouched: bitset.New(9).Set(7), Claims: bitset.New(9).Set(1), Inbound: bitset.New(9).Set(2),
			Progress: 1 << 40, Volunteer: true, Origin: OriginStreams,
		},
		{Size: 1, Whole: true, Volunteer: true, Progress: 1, Origin: OriginUnreachable},
	} {
		b := i.Marshal()
		got, err := ParseInfo(b)
		if err != nil || got.Size != i.Size || got.Whole != i.Whole || got.Chain != i.Chain {
			t.Errorf("%+v became %+v, %v", i, got, err)
		}
		if !i.Whole && (!got.Have.Equal(i.Have) || !got.Proven.Equal(i.Proven)) {
			t.Errorf("bitmaps of %+v became %v and %v", i, got.Have, got.Proven)
		}
		if got.Progress != i.Progress || got.Volunteer != i.Volunteer || got.Origin != i.Origin ||
			i.Vouched != nil && !got.Vouched.Equal(i.Vouched) || i.Claims != nil && !got.Claims.Equal(i.Claims) || i.Inbound != nil && !got.Inbound.Equal(i.Inbound) {
			t.Errorf("%+v became %+v", i, got)
		}
		// A newer member may say more.
		if _, err := ParseInfo(appendField(b, 200, []byte("more"))); err != nil {
			t.Errorf("with an unknown field: %v", err)
		}
		for n := range b {
			if i.Progress > 0 {
				break // without the last of its fields it is an Info, too
			}
			if _, err := ParseInfo(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%d of %d bytes: %v", n, len(b), err)
			}
		}
	}
}

func TestMalformedInfos(t *testing.T) {
	whole := Info{Size: 10, Whole: true}.Marshal()
	unknown := Info{Size: 0, Whole: true}.Marshal()
	unknown[len(unknown)-1] = 0
	part := func(size int64, have, proven []byte) []byte {
		b := Info{Size: size, Whole: true}.Marshal()
		b[len(b)-1] = 0 // not whole after all
		return appendField(appendField(b, tagHave, have), tagProven, proven)
	}
	big := Info{Size: blob.MaxSize, Whole: true}.Marshal()
	big[5+7]++
	for name, b := range map[string][]byte{
		"empty":                  nil,
		"garbage":                []byte("\x00\xff garbage"),
		"a field twice":          append(bytes.Clone(whole), whole...),
		"a length beyond":        {1, 0xff, 0xff, 0xff, 0xff},
		"too large a blob":       big,
		"no bitmaps":             unknown,
		"empty bitmaps":          part(10*blob.PieceSize, nil, nil),
		"a short bitmap":         part(10*blob.PieceSize, []byte{1}, []byte{1, 0}),
		"a long bitmap":          part(10*blob.PieceSize, []byte{1, 0, 0}, []byte{1, 0}),
		"a piece behind the end": part(10*blob.PieceSize, []byte{1, 4}, []byte{1, 0}),
		"proven and not there":   part(10*blob.PieceSize, []byte{1, 0}, []byte{2, 0}),
		"vouched and not there":  appendField(part(10*blob.PieceSize, []byte{1, 0}, []byte{1, 0}), tagVouched, []byte{2, 0}),
		"claims behind the end":  appendField(part(10*blob.PieceSize, []byte{1, 0}, []byte{1, 0}), tagClaims, []byte{0, 4}),
		"a short progress":       appendField(whole, tagProgress, []byte{1}),
		"a negative progress":    appendField(whole, tagProgress, []byte{0x80, 0, 0, 0, 0, 0, 0, 0}),
		"a long origin":          appendField(whole, tagOrigin, []byte{1, 1}),
	} {
		if i, err := ParseInfo(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
}

func TestLargestInfoFits(t *testing.T) {
	n := uint(blob.PieceCount(blob.MaxSize))
	for _, size := range []int64{blob.MaxSize, 9 * blob.PieceSize, 1, 0} {
		all := bitset.New(n).SetAll()
		b := Info{Size: size, Have: all, Proven: all, Vouched: all, Claims: all, Inbound: all, Progress: 1, Origin: OriginRanged}.Marshal()
		if len(b) > MaxInfo || int64(len(b)) > InfoLimit(size) {
			t.Errorf("%d bytes about %d, over the %d that are read", len(b), size, InfoLimit(size))
		}
		if _, err := ParseInfo(b); err != nil {
			t.Errorf("a bitmap that is longer than the blob: %v", err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(Prefix + "info/" + empty)
	f.Add(Prefix + "chain/" + empty + "/1048577")
	f.Add(Prefix + "pieces/" + empty + "/10485760/8/2")
	f.Fuzz(func(t *testing.T, path string) {
		r, err := ParseRequest(path)
		if err != nil {
			return
		}
		if r.Path() != path {
			t.Errorf("%q prints as %q", path, r.Path())
		}
		if r.Kind == KindPieces {
			if rng := r.Range(); rng.Offset < 0 || rng.Length <= 0 || rng.Offset+rng.Length > r.Size || rng.Length > MaxRun*blob.PieceSize {
				t.Errorf("%q: bytes %+v", path, rng)
			}
		}
	})
}

func FuzzParseInfo(f *testing.F) {
	f.Add(Info{Size: 10, Whole: true, Chain: true}.Marshal())
	f.Add(Info{Size: 9 * blob.PieceSize, Have: bitset.New(9).Set(3), Proven: bitset.New(9)}.Marshal())
	f.Add(Info{
		Size: 9 * blob.PieceSize, Have: bitset.New(9).Set(3), Proven: bitset.New(9), Vouched: bitset.New(9).Set(3),
		Claims: bitset.New(9).Set(4), Inbound: bitset.New(9).Set(5), Progress: 9, Volunteer: true, Origin: OriginRanged,
	}.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseInfo(b)
		if err != nil {
			return
		}
		again, err := ParseInfo(i.Marshal())
		if err != nil || fmt.Sprint(said(again)) != fmt.Sprint(said(i)) {
			t.Errorf("%v became %v, %v", said(i), said(again), err)
		}
		if n := int64(len(i.Marshal())); n > InfoLimit(i.Size) || !i.Whole && n > int64(len(b))+infoRoom {
			t.Errorf("%d bytes print as %d", len(b), n)
		}
		if !i.Whole && (!i.Have.IsSuperSet(i.Proven) || i.Have.Len() != uint(blob.PieceCount(i.Size))) {
			t.Errorf("proven and not there: %v", said(i))
		}
	})
}

// said is an Info with its sets as text: one that is empty and one that is not
// there say the same.
func said(i Info) []any {
	all := []any{i.Size, i.Whole, i.Chain, i.Progress, i.Volunteer, i.Origin}
	for _, set := range []*bitset.BitSet{i.Have, i.Proven, i.Vouched, i.Claims, i.Inbound} {
		if set == nil {
			set = &bitset.BitSet{}
		}
		all = append(all, set.String())
	}
	return all
}
