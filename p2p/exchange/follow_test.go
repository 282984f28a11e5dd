package exchange

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bits-and-blooms/bitset"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
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

// ear keeps what it hears.
type ear struct {
	mu    sync.Mutex
	heard []said
	met   []Holder
}

func (e *ear) hear(_ peer.ID, s said) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, s)
}

func (e *ear) meet(others ...Holder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.met = append(e.met, others...)
}

// A member that says nothing is dead, or frozen, when it has something to say;
// a connection that nobody needs is closed.
func TestSilenceOnASession(t *testing.T) {
	x := newMesh(t).member(nil).Exchange
	d := describe(content(1, 10))
	for _, c := range []struct {
		name  string
		every time.Duration // frames come, 0: none
		f     *follow
		kept  bool
		want  error
		after time.Duration
	}{
		{"followed, silent", 0, &follow{want: d, to: &ear{}}, false, errFrozen, 3 * beatEvery},
		{"followed, beats", beatEvery, &follow{want: d, to: &ear{}}, false, context.DeadlineExceeded, time.Hour},
		{"idle, silent", 0, nil, false, errFrozen, deafAfter},
		{"idle, beats", beatIdle, nil, false, errIdle, sessionIdle},
		{"kept, beats", beatIdle, nil, true, context.DeadlineExceeded, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSession(x, Holder{Peer: "x"})
				s.kept.Store(c.kept)
				if c.f != nil {
					s.add(c.f)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if c.every > 0 {
					go func() {
						for tick := time.Tick(c.every); ; {
							select {
							case <-ctx.Done():
								return
							case <-tick:
								s.heard.Store(true)
							}
						}
					}()
				}
				began := time.Now()
				if err := s.watch(ctx); !errors.Is(err, c.want) || time.Since(began) != c.after {
					t.Errorf("after %v: %v; want %v after %v", time.Since(began), err, c.want, c.after)
				}
				if errors.Is(c.want, errIdle) && s.add(&follow{}) {
					t.Error("something is followed on a connection that ends")
				}
			})
		})
	}
}

// What a member may say is bounded, and what it says wrong ends its session.
func TestHostileWords(t *testing.T) {
	x := newMesh(t).member(nil).Exchange
	d := describe(content(1, 9*mib))
	full := bitset.New(9).SetAll()
	honest := wire.Info{Size: d.Size, Have: full, Proven: full}.Marshal()
	large := wire.Info{Size: blob.MaxSize}.Marshal()
	for name, c := range map[string]struct {
		frames []byte
		bad    bool
		heard  int
	}{
		"honest":          {wire.AppendFrame(nil, wire.FrameInfo, 1, honest), false, 1},
		"beats":           {wire.AppendFrame(nil, wire.FrameBeat, 0, nil), false, 0},
		"unknown type":    {wire.AppendFrame(nil, 99, 1, honest), false, 0},
		"unknown ID":      {wire.AppendFrame(nil, wire.FrameInfo, 5, []byte("garbage")), false, 0},
		"none, full":      {wire.AppendFrame(wire.AppendFrame(nil, wire.FrameNone, 1, nil), wire.FrameFull, 1, nil), false, 2},
		"full, then info": {wire.AppendFrame(wire.AppendFrame(nil, wire.FrameFull, 1, nil), wire.FrameInfo, 1, honest), false, 1},
		"garbage":         {wire.AppendFrame(nil, wire.FrameInfo, 1, []byte("\x00\xff garbage")), true, 0},
		"too large":       {wire.AppendFrame(nil, wire.FrameInfo, 1, large), true, 0},
		"too long":        {wire.AppendFrame(nil, wire.FrameInfo, 1, append(honest, make([]byte, 8<<10)...)), true, 0},
		"endless":         {binary.BigEndian.AppendUint32(nil, math.MaxUint32), true, 0},
		"members":         {wire.AppendFrame(nil, wire.FrameMembers, 1, []byte(`[{"pieces":["x"]}]`)), true, 0},
	} {
		s, e := newSession(x, Holder{Peer: "x"}), &ear{}
		s.add(&follow{want: d, to: e})
		err := s.listen(t.Context(), bufio.NewReader(bytes.NewReader(append(c.frames, make([]byte, 5)...))))
		if bad := errors.Is(err, wire.ErrMalformed); bad != c.bad || len(e.heard) != c.heard {
			t.Errorf("%s: %v, heard %d times", name, err, len(e.heard))
		}
	}
}

// A member that never stops talking is read at a bounded rate.
func TestEndlessWords(t *testing.T) {
	x := newMesh(t).member(nil).Exchange
	synctest.Test(t, func(t *testing.T) {
		s := newSession(x, Holder{Peer: "x"})
		beat := wire.AppendFrame(nil, wire.FrameBeat, 0, nil)
		var read int
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer time.AfterFunc(10*time.Second, cancel).Stop()
		err := s.listen(ctx, bufio.NewReader(endless(func(p []byte) {
			read += len(p)
			for i := range p {
				p[i] = beat[(read-len(p)+i)%len(beat)]
			}
		})))
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if frames := read / len(beat); frames > (hearBurst+11*hearRate)/frameCost {
			t.Errorf("%d frames in 10 s", frames)
		}
	})
}

type endless func(p []byte)

func (e endless) Read(p []byte) (int, error) { e(p); return len(p), nil }

// A list of others leads nowhere on this machine, unless it comes from there.
func TestNamedMembers(t *testing.T) {
	m := newMesh(t).member(nil)
	list := wire.AppendFrame(nil, wire.FrameMembers, 1, wire.MarshalMembers([]wire.Member{
		{ID: m.id, Pieces: []string{"127.0.0.1:1", "192.0.2.1:1"}, Zone: "z"}, {Pieces: []string{"192.0.2.2:1"}},
	}))
	s, e := newSession(m.Exchange, Holder{Peer: "x"}), &ear{}
	s.add(&follow{want: describe(nil), to: e})
	if err := s.listen(t.Context(), bufio.NewReader(bytes.NewReader(list))); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if len(e.met) != 1 || e.met[0].Peer != m.id || len(e.met[0].Pieces) != 1 || e.met[0].Zone != "z" {
		t.Errorf("%+v", e.met)
	}
}

func TestSearchIsBounded(t *testing.T) {
	m := newMesh(t).member(nil)
	s := newSearch(m.Exchange, describe(content(1, 10)))
	many := make([]Holder, 10*maxAsked)
	for i := range many {
		many[i] = Holder{Peer: peer.ID(binary.BigEndian.AppendUint32(nil, uint32(i))), Pieces: []string{"127.0.0.1:1"}}
	}
	for _, h := range many {
		s.meet(h)
	}
	if len(s.met) > maxAsked {
		t.Errorf("%d are to be asked", len(s.met))
	}
	for _, h := range many {
		s.ask(h, true)
	}
	if len(s.asked) != maxAsked {
		t.Errorf("%d were asked", len(s.asked))
	}
	for range 100 {
		s.hear(many[0].Peer, said{filling: true})
	}
	if n := len(s.take()); n > maxAsked {
		t.Errorf("%d news", n)
	}
}

// Connections to members are there before anything is followed, are kept, and
// come back after they broke; members that do not answer are left alone.
func TestConnectionsAreKeptWarm(t *testing.T) {
	mesh := newMesh(t)
	members := mesh.crowd(3)
	m, other, gone := members[0], members[1], members[2]
	gone.stop()
	for range 2 { // again after it broke
		m.follows.keep(m.near)
		eventually(t, "no connection", func() bool { return m.metric("shoal_p2p_followed", "") == 1 && m.silent.Holds(gone.id, time.Now()) })
		m.follows.keep(m.near)
		warm := m.follows.warm()
		if len(warm) != 1 || !warm[other.id] {
			t.Errorf("connected to %v", warm)
		}
		if got := m.follows.sessions[other.id].kept.Load(); !got {
			t.Error("it is not kept")
		}
		other.close()
		eventually(t, "its end was not noticed", func() bool { return len(m.follows.warm()) == 0 })
		other.open(blobcache.Options{})
		m.silent.Pardon(other.id)
	}
}

// Of many members the same ones are followed each time.
func TestNearMembersStayTheSame(t *testing.T) {
	mesh := newMesh(t)
	m, other := mesh.member(nil), mesh.member(nil)
	for i := range 3 * MaxNear {
		m.near = append(m.near, Holder{Peer: peer.ID(binary.BigEndian.AppendUint32(nil, uint32(i)))})
	}
	m.near = append(m.near, other.holder())
	m.follows.keep([]Holder{other.holder()})
	near, connected := m.Exchange.near()
	if len(near) != MaxNear || connected != 3*MaxNear+1 || near[0].Peer != other.id {
		t.Errorf("%d of %d, %v first", len(near), connected, near[0].Peer)
	}
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

// Connections for pieces are kept to the same few members, which are followed,
// and used in time to stay open.
func TestConnectionsForPiecesAreFew(t *testing.T) {
	var w warmth
	var all []Holder
	followed := map[peer.ID]bool{}
	for i := range 6 {
		h := Holder{Peer: peer.ID(rune('a' + i))}
		all, followed[h.Peer] = append(all, h), i != 1
	}
	now := time.Now()
	due := func(after time.Duration, near ...Holder) (ids string) {
		for _, h := range w.due(now.Add(after), near, followed, 3) {
			ids += string(h.Peer)
		}
		return ids
	}
	if got := due(0, all...); got != "acd" {
		t.Errorf("first %q, want those three that are followed", got)
	}
	if got := due(touchEvery-1, all...); got != "" {
		t.Errorf("%q before it is time", got)
	}
	if got := due(touchEvery, all[2:]...); got != "cde" {
		t.Errorf("%q, want those that are open and another for the one that went", got)
	}
	if w.has("a") || !w.has("e") {
		t.Error("it is not known to whom a connection is open")
	}
}

// A fill begins over connections that are there, and opens none.
func TestPiecesComeOverWarmConnections(t *testing.T) {
	mesh := newMesh(t)
	var opened sync.Map // remote addresses of requests
	seeder := mesh.member(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			opened.Store(r.RemoteAddr, r.URL.Path)
			h.ServeHTTP(w, r)
		})
	})
	d := seeder.seed(content(1, mib)) // has no chain to be asked for at the same time
	m := mesh.member(nil)
	m.near = []Holder{seeder.holder()}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.KeepWarm(ctx) }()
	count := func() (n int) {
		opened.Range(func(any, any) bool { n++; return true })
		return n
	}
	eventually(t, "no connections", func() bool { m.follows.keep(m.near); return m.warmth.has(seeder.id) && count() == 2 })
	f, err := m.Fetch(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-f.Done()
	if f.Err() != nil || count() != 2 {
		t.Errorf("%d connections, not the two that were open; %v", count(), f.Err())
	}
	end()
	<-done
}
