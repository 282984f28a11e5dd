package exchange

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// line is a connection on which a test speaks for itself.
type line struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

// line follows a member, as m.
func (m *member) line(of *member) *line {
	m.mesh.t.Helper()
	conn, r, err := m.client.upgrade(m.mesh.t.Context(), of.holder())
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	m.mesh.t.Cleanup(func() { conn.Close() })
	return &line{conn, r, m.mesh.t}
}

func (l *line) send(t wire.FrameType, id uint32, body []byte) {
	l.t.Helper()
	if _, err := l.Write(wire.AppendFrame(nil, t, id, body)); err != nil {
		l.t.Fatal(err)
	}
}

// next returns the next frame that is not a beat.
func (l *line) next() (wire.FrameHead, []byte) {
	l.t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		head, body, err := readFrame(l.r, wire.MaxInfo)
		if err != nil {
			l.t.Fatal(err)
		}
		if head.Type != wire.FrameBeat {
			return head, body
		}
	}
}

// expect fails unless the next frame is of that type and ID.
func (l *line) expect(t wire.FrameType, id uint32) []byte {
	l.t.Helper()
	head, body := l.next()
	if head.Type != t || head.ID != id {
		l.t.Fatalf("got a frame %+v, want type %d and ID %d", head, t, id)
	}
	return body
}

func (l *line) info(id uint32) wire.Info {
	l.t.Helper()
	info, err := wire.ParseInfo(l.expect(wire.FrameInfo, id))
	if err != nil {
		l.t.Fatal(err)
	}
	return info
}

// A follower is told what is here, and what comes.
func TestFollow(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	whole := holder.seed(content(1, 3*mib))
	running := content(2, 16*mib)
	other, f := mesh.halfway(running, 8, nil)
	d, nothing := describe(running), describe(content(3, 10))
	for _, of := range []*member{holder, other} {
		l := m.line(of)
		l.send(wire.FrameSelf, 0, wire.MarshalMembers([]wire.Member{{Pieces: []string{m.addr}}}))
		l.send(wire.FrameFollow, 1, wire.AppendFollow(nil, nothing.Digest, nothing.Size))
		l.expect(wire.FrameNone, 1)
		l.send(wire.FrameFollow, 2, wire.AppendFollow(nil, d.Digest, d.Size+1))
		l.expect(wire.FrameNone, 2) // not at that size
		l.send(wire.FrameFollow, 3, wire.AppendFollow(nil, whole.Digest, whole.Size+1))
		if of == holder { // the whole is told at its true size
			if info := l.info(3); !info.Whole || info.Size != whole.Size {
				t.Errorf("%+v", info)
			}
			continue
		}
		l.expect(wire.FrameNone, 3)
		l.send(wire.FrameFollow, 4, wire.AppendFollow(nil, d.Digest, d.Size))
		info := l.info(4)
		if info.Whole || info.Have.Count() != 8 || info.Size != d.Size || info.Progress < 8*mib || info.Origin != wire.OriginRanged || !info.Volunteer {
			t.Errorf("%+v", info)
		}
		// Leaving and asking anew.
		l.send(wire.FrameLeave, 3, nil)
		l.send(wire.FrameFollow, 3, wire.AppendFollow(nil, d.Digest, blob.UnknownSize))
		if info := l.info(3); info.Have.Count() != 8 {
			t.Errorf("%+v", info)
		}
		f.Fail(errors.New("enough"))
		seen := map[uint32]bool{}
		for len(seen) < 2 {
			if head, _ := l.next(); head.Type == wire.FrameNone {
				seen[head.ID] = true
			}
		}
		l.Close()
		eventually(t, "watches are left of a connection that ended", func() bool { return len(of.followers.of(d.Digest)) == 0 })
	}
}

// A blob that becomes whole is told as such at once, to those who had been told
// that there is nothing, too.
func TestFollowersHearOfTheWhole(t *testing.T) {
	data := content(1, 4*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	l := m.line(holder)
	l.send(wire.FrameFollow, 7, wire.AppendFollow(nil, reg.d.Digest, reg.d.Size))
	l.expect(wire.FrameNone, 7)
	if n := holder.Followed(); n != 1 {
		t.Errorf("%d blobs are followed", n)
	}
	holder.mustPull(data, reg.src)
	for whole := false; !whole; {
		head, body := l.next()
		if head.Type == wire.FrameInfo {
			info, err := wire.ParseInfo(body)
			if err != nil {
				t.Fatal(err)
			}
			whole = info.Whole
		}
	}
	l.send(wire.FrameLeave, 7, nil)
	eventually(t, "still followed", func() bool { return holder.Followed() == 0 })
}

func TestFollowersAreBounded(t *testing.T) {
	data := content(1, 16*mib)
	mesh := newMesh(t)
	holder, f := mesh.halfway(data, 8, nil)
	d := describe(data)
	follow := wire.AppendFollow(nil, d.Digest, d.Size)
	m := mesh.member(nil)
	var lines []*line
	for range maxFollowersOf {
		lines = append(lines, m.line(holder))
	}
	if _, _, err := m.client.upgrade(t.Context(), holder.holder()); !errors.Is(err, errBusy) {
		t.Errorf("one connection too many: %v", err)
	}
	lines[0].Close()
	eventually(t, "no room after one has left", func() bool {
		conn, _, err := m.client.upgrade(t.Context(), holder.holder())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	l := lines[1]
	l.send(wire.FrameSelf, 0, wire.MarshalMembers([]wire.Member{{Pieces: []string{m.addr}}}))
	for id := range uint32(maxWatchers) {
		l.send(wire.FrameFollow, id+1, follow)
	}
	told := map[uint32]bool{}
	for len(told) < maxWatchers {
		if head, _ := l.next(); head.Type == wire.FrameInfo {
			told[head.ID] = true
		}
	}
	// Who finds no room is told of others.
	late := mesh.member(nil)
	ll := late.line(holder)
	ll.send(wire.FrameFollow, 9, follow)
	others, err := wire.ParseMembers(ll.expect(wire.FrameMembers, 9))
	if err != nil || len(others) != 1 || others[0].ID != m.id || others[0].Pieces[0] != m.addr {
		t.Errorf("%+v, %v", others, err)
	}
	ll.expect(wire.FrameFull, 9)
	if n := len(holder.followers.of(d.Digest)); n != maxWatchers {
		t.Errorf("%d watches", n)
	}
	// There is always room for those who follow the whole: it costs one word.
	whole := holder.seed(content(2, 10))
	ll.send(wire.FrameFollow, 10, wire.AppendFollow(nil, whole.Digest, whole.Size))
	if !ll.info(10).Whole {
		t.Error("not whole")
	}
	f.Fail(errors.New("enough"))
}

// A member that follows much on one connection finds a limit, too.
func TestWatchesOfOneConnectionAreBounded(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	l := m.line(holder)
	var b []byte
	for id := range uint32(maxWatches + 1) {
		d := describe(binary.BigEndian.AppendUint32(nil, id))
		b = wire.AppendFrame(b, wire.FrameFollow, id, wire.AppendFollow(nil, d.Digest, d.Size))
	}
	if _, err := l.Write(b); err != nil {
		t.Fatal(err)
	}
	for none := 0; ; none++ {
		if head, _ := l.next(); head.Type == wire.FrameFull {
			if head.ID != maxWatches {
				t.Errorf("number %d found no room", head.ID)
			}
			break
		}
		if none > maxWatches {
			t.Fatal("there was room")
		}
	}
}

func TestHostileFollowers(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	d := holder.seed(content(1, 10))
	follow := wire.AppendFollow(nil, d.Digest, d.Size)
	for name, b := range map[string][]byte{
		"garbage":          []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a huge follow":    wire.AppendFrame(nil, wire.FrameFollow, 1, make([]byte, 100)),
		"a short follow":   wire.AppendFrame(nil, wire.FrameFollow, 1, follow[1:]),
		"a huge frame":     binary.BigEndian.AppendUint32(nil, math.MaxUint32),
		"a long unknown":   wire.AppendFrame(nil, 99, 1, make([]byte, wire.MaxOther+1)),
		"nobody":           wire.AppendFrame(nil, wire.FrameSelf, 0, []byte("[]")),
		"no list":          wire.AppendFrame(nil, wire.FrameSelf, 0, []byte("{")),
		"a bad address":    wire.AppendFrame(nil, wire.FrameSelf, 0, []byte(`[{"pieces":["x"]}]`)),
		"an impossible ID": wire.AppendFrame(nil, wire.FrameSelf, 0, []byte(`[{"id":"zzz"}]`)),
	} {
		l := m.line(holder)
		l.send(wire.FrameFollow, 1, follow)
		l.expect(wire.FrameInfo, 1)
		if _, err := l.Write(append(b, make([]byte, 1000)...)); err != nil {
			t.Fatal(err)
		}
		_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
		var timeout net.Error
		if _, err := io.Copy(io.Discard, l); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: the connection is still open", name)
		}
	}
	eventually(t, "something is left of them", func() bool {
		holder.followers.mu.Lock()
		defer holder.followers.mu.Unlock()
		return holder.followers.total == 0 && len(holder.followers.by) == 0 && len(holder.followers.blobs) == 0
	})
	// Loopback may be named only by those who are there; this one is.
	l := m.line(holder)
	l.send(wire.FrameSelf, 0, wire.MarshalMembers([]wire.Member{{ID: holder.id, Pieces: []string{"127.0.0.1:1"}}}))
	l.send(99, 0, []byte("from the future"))
	l.send(wire.FrameFollow, 1, follow)
	l.expect(wire.FrameInfo, 1)
	if of := holder.followers.of(d.Digest); len(of) != 1 || of[0].Peer != m.id || of[0].Pieces[0] != "127.0.0.1:1" {
		t.Errorf("%+v", of)
	}
}

func TestUpgradeIsAskedFor(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		resp, err := m.ask(holder, method, wire.FollowPath)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
}

// What is to be said in short order goes out together.
func TestWordsAreGathered(t *testing.T) {
	m := newMesh(t).member(nil)
	synctest.Test(t, func(t *testing.T) {
		us, them := net.Pipe()
		var at []time.Duration
		began, heard := time.Now(), make(chan struct{})
		go func() {
			defer close(heard)
			for b := make([]byte, 1<<10); ; at = append(at, time.Since(began)) {
				if _, err := them.Read(b); err != nil {
					return
				}
			}
		}()
		f := &follower{all: m.followers, woken: make(chan struct{}, 1), watches: make(map[uint32]*watch)}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = f.run(t.Context(), us, bufio.NewReader(us)) }()
		for i := range byte(4) {
			f.add(&watch{by: f, id: uint32(i), blob: digest.FromBytes([]byte{i}), due: true})
			time.Sleep(time.Millisecond) //nolint:forbidigo // within a bubble nobody waits
		}
		time.Sleep(time.Second) //nolint:forbidigo // within a bubble nobody waits
		them.Close()
		<-ended
		<-heard
		// The upgrade and the first blob at once, the other three together.
		if want := []time.Duration{0, 0, wordEvery}; !slices.Equal(at, want) {
			t.Errorf("written at %v, want %v", at, want)
		}
	})
}

// A follower that does not take what it is told is cut off.
func TestSlowFollowerIsCutOff(t *testing.T) {
	m := newMesh(t).member(nil)
	synctest.Test(t, func(t *testing.T) {
		us, them := net.Pipe() // nobody reads
		defer them.Close()
		f := &follower{all: m.followers, woken: make(chan struct{}, 1), watches: make(map[uint32]*watch)}
		err := f.run(t.Context(), us, bufio.NewReader(us))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("ended with %v", err)
		}
	})
	if m.metric("shoal_p2p_refused_requests_total", "slow") != 1 {
		t.Error("it is not counted")
	}
}

// An asker that has died without a word is noticed.
func TestSilentFollowerIsCutOff(t *testing.T) {
	m := newMesh(t).member(nil)
	synctest.Test(t, func(t *testing.T) {
		us, them := net.Pipe()
		defer them.Close()
		go func() { _, _ = io.Copy(io.Discard, them) }()
		f := &follower{all: m.followers, woken: make(chan struct{}, 1), watches: make(map[uint32]*watch)}
		began := time.Now()
		err := f.run(t.Context(), us, bufio.NewReader(us))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) != deafAfter {
			t.Errorf("ended after %v with %v", time.Since(began), err)
		}
	})
}

// A follower elsewhere cannot send this node to its own loopback.
func TestWhereAFollowerIs(t *testing.T) {
	m := newMesh(t).member(nil)
	f := &follower{all: m.followers, teller: netip.MustParseAddr("192.0.2.9")}
	list := wire.MarshalMembers([]wire.Member{{Pieces: []string{"127.0.0.1:1", "192.0.2.9:1"}, Zone: "z"}})
	if err := f.introduced(list); err != nil || len(f.holder.Pieces) != 1 || f.holder.Pieces[0] != "192.0.2.9:1" || f.holder.Zone != "z" {
		t.Errorf("%+v, %v", f.holder, err)
	}
}
