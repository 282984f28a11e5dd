package exchange

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bits-and-blooms/bitset"
	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

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
	x.limits = defaults()
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
