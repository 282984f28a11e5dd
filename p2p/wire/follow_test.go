package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

func head(t *testing.T, b []byte) (FrameHead, []byte, error) {
	t.Helper()
	if len(b) < FrameHeadSize {
		t.Fatalf("%d bytes are no frame", len(b))
	}
	h, err := ParseFrameHead([FrameHeadSize]byte(b))
	return h, b[FrameHeadSize:], err
}

func TestFrames(t *testing.T) {
	b := AppendFrame([]byte("before"), FrameInfo, 7, []byte("body"))
	h, body, err := head(t, b[len("before"):])
	if err != nil || h != (FrameHead{Length: 4, Type: FrameInfo, ID: 7}) || string(body) != "body" {
		t.Errorf("%+v %q %v", h, body, err)
	}
	for _, c := range []struct {
		kind FrameType
		most int
	}{
		{FrameSelf, MaxMembersSize},
		{FrameFollow, 40},
		{FrameLeave, 0},
		{FrameInfo, MaxInfo},
		{FrameFilling, 0},
		{FrameNone, 0},
		{FrameFull, 0},
		{FrameMembers, MaxMembersSize},
		{FrameBeat, 0},
		{200, MaxOther}, // a newer member may say more
	} {
		if _, _, err := head(t, AppendFrame(nil, c.kind, 1, make([]byte, c.most))); err != nil {
			t.Errorf("type %d with %d bytes: %v", c.kind, c.most, err)
		}
		if _, _, err := head(t, AppendFrame(nil, c.kind, 1, make([]byte, c.most+1))); !errors.Is(err, ErrMalformed) {
			t.Errorf("type %d with %d bytes: %v", c.kind, c.most+1, err)
		}
	}
}

func TestFollows(t *testing.T) {
	for _, size := range []int64{0, 1, blob.MaxSize, blob.UnknownSize} {
		d, got, err := ParseFollow(AppendFollow(nil, empty, size))
		if err != nil || d != empty || got != size {
			t.Errorf("%d: %s %d %v", size, d, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"empty":     nil,
		"short":     AppendFollow(nil, empty, 1)[1:],
		"long":      append(AppendFollow(nil, empty, 1), 0),
		"too large": AppendFollow(nil, empty, blob.MaxSize+1),
		"negative":  append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}, make([]byte, 32)...),
	} {
		if _, _, err := ParseFollow(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMemberLists(t *testing.T) {
	id, err := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	if err != nil {
		t.Fatal(err)
	}
	m := Member{ID: id, Pieces: []string{"192.0.2.1:7001", "[2001:db8::1]:7001", "node.example:1"}, Zone: "rack 7"}
	for _, list := range [][]Member{nil, {m}, {{Pieces: []string{"192.0.2.1:1"}}, m}} {
		got, err := ParseMembers(MarshalMembers(list))
		if err != nil || len(got) != len(list) || len(list) > 0 && !reflect.DeepEqual(got, list) {
			t.Errorf("%v became %v, %v", list, got, err)
		}
	}
	// As many as fit are told.
	long := m
	long.Pieces = nil
	for i := range MaxAddrs {
		long.Pieces = append(long.Pieces, fmt.Sprintf("%s:%d", strings.Repeat("x", 240), i+1))
	}
	many := make([]Member, MaxMembers+1)
	for i := range many {
		many[i] = m
	}
	if got, err := ParseMembers(MarshalMembers(many)); err != nil || len(got) != MaxMembers {
		t.Errorf("%d of %d, %v", len(got), len(many), err)
	}
	if got, err := ParseMembers(MarshalMembers([]Member{m, long, long, long, long, long})); err != nil || len(got) != 5 {
		t.Errorf("%d long ones, %v", len(got), err)
	}
	for name, s := range map[string]string{
		"no list":        `{"pieces":[]}`,
		"cut":            `[{"pieces":["192.0.2.1:1"]`,
		"no ID":          `[{"id":"x"}]`,
		"no port":        `[{"pieces":["192.0.2.1"]}]`,
		"port 0":         `[{"pieces":["192.0.2.1:0"]}]`,
		"a line break":   `[{"pieces":["a\nb:80"]}]`,
		"an escape":      `[{"zone":"\u001b[31m"}]`,
		"many addresses": `[{"pieces":[` + strings.Repeat(`"192.0.2.1:1",`, MaxAddrs) + `"192.0.2.1:1"]}]`,
		"many members":   `[` + strings.Repeat(`{},`, MaxMembers) + `{}]`,
		"long":           `[` + strings.Repeat(" ", MaxMembersSize) + `]`,
	} {
		if got, err := ParseMembers([]byte(s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestDialable(t *testing.T) {
	told := []string{"172.17.0.1:7", "127.0.0.1:2375", "192.0.2.9:7", "[::1]:7", "node.example:7", "0.0.0.0:7", "[::ffff:127.0.0.1]:7", "LOCALHOST:7", "localhost.:7", "a.localhost:7", "notlocalhost:7"}
	for teller, want := range map[string]string{
		// The address that is known to work first; none of this machine.
		"192.0.2.9":        "[192.0.2.9:7 172.17.0.1:7 node.example:7 notlocalhost:7]",
		"198.51.100.1":     "[172.17.0.1:7 192.0.2.9:7 node.example:7 notlocalhost:7]",
		"::ffff:192.0.2.9": "[192.0.2.9:7 172.17.0.1:7 node.example:7 notlocalhost:7]",
		// A member on this machine may name loopback.
		"127.0.0.1": "[127.0.0.1:2375 [::ffff:127.0.0.1]:7 172.17.0.1:7 192.0.2.9:7 [::1]:7 node.example:7 0.0.0.0:7 LOCALHOST:7 localhost.:7 a.localhost:7 notlocalhost:7]",
	} {
		if got := fmt.Sprint(Dialable(told, netip.MustParseAddr(teller))); got != want {
			t.Errorf("from %s:\n%s, want\n%s", teller, got, want)
		}
	}
	if got := Dialable([]string{"127.0.0.1:1", "192.0.2.1:1"}, netip.Addr{}); len(got) != 1 {
		t.Errorf("from nowhere: %v", got)
	}
}

func FuzzParseFollow(f *testing.F) {
	f.Add(AppendFollow(nil, empty, 1))
	f.Add(AppendFollow(nil, empty, blob.UnknownSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, size, err := ParseFollow(b)
		if err != nil {
			return
		}
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 || size > blob.MaxSize || string(AppendFollow(nil, d, size)) != string(b) {
			t.Errorf("%x became %s of %d", b, d, size)
		}
	})
}

func FuzzParseMembers(f *testing.F) {
	f.Add([]byte(`[{"id":"12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN","pieces":["192.0.2.1:1"],"zone":"z"}]`))
	f.Add([]byte(`[{}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseMembers(b)
		if err != nil {
			return
		}
		// What was accepted can be passed on, as far as there is room.
		again, err := ParseMembers(MarshalMembers(list))
		if err != nil || len(again) > len(list) || fmt.Sprint(again) != fmt.Sprint(list[:len(again)]) {
			t.Errorf("%s: %v, %v", b, again, err)
		}
	})
}
