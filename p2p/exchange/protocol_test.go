package exchange

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/p2p/wire"
)

// talk is what a hostile member says to a node: requests and frames, one after
// the other, read from a script. The first byte of each step says what it is.
type talk struct {
	script []byte
	from   *member
	to     *member
	blobs  [][]byte // what the node has whole, half, and not at all
	line   *line    // on which it follows; nil if there is none
}

// byte takes the next byte of the script, 0 at its end.
func (s *talk) byte() byte {
	if len(s.script) == 0 {
		return 0
	}
	b := s.script[0]
	s.script = s.script[1:]
	return b
}

// bytes takes as many as the next byte says.
func (s *talk) bytes() []byte {
	n := min(int(s.byte()), len(s.script))
	b := s.script[:n]
	s.script = s.script[n:]
	return b
}

// blob chooses a blob, and a size of it that is true three times in four.
func (s *talk) blob() (data []byte, d blob.Descriptor) {
	b := s.byte()
	data = s.blobs[int(b>>2)%len(s.blobs)]
	d = describe(data)
	d.Size = max(0, d.Size-[]int64{0, 0, 0, 1}[b&3])
	return data, d
}

// step says the next thing and looks at the answer.
func (s *talk) step(t *testing.T) {
	t.Helper()
	switch s.byte() % 7 {
	case 0:
		_, d := s.blob()
		s.ask(t, wire.Request{Kind: wire.KindInfo, Digest: d.Digest}.Path())
	case 1:
		_, d := s.blob()
		s.ask(t, wire.Request{Kind: wire.KindChain, Digest: d.Digest, Size: d.Size}.Path())
	case 2:
		data, d := s.blob()
		first, count := int(s.byte()%8), int(s.byte()%6)
		body := s.ask(t, wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: first, Count: count}.Path())
		if from := int64(first) * blob.PieceSize; body != nil && !bytes.Equal(body, data[from:min(int64(len(data)), from+int64(count)*blob.PieceSize)]) {
			t.Errorf("wrong bytes for %d pieces from %d on", count, first)
		}
	case 3:
		s.ask(t, wire.Prefix+string(bytes.Map(printable, s.bytes())))
	case 4:
		_, d := s.blob()
		s.say(wire.FrameFollow, uint32(s.byte()%4), wire.AppendFollow(nil, d.Digest, d.Size))
	case 5:
		s.say(wire.FrameType(s.byte()), uint32(s.byte()%4), s.bytes())
	case 6:
		s.hangUp()
	}
}

// printable keeps to bytes that a path can have as they are.
func printable(r rune) rune {
	if r < '!' || r > '~' || r == '?' || r == '#' || r == '%' {
		return '/'
	}
	return r
}

// ask sends a request and returns the body of a 200, nil for any other answer
// of the protocol.
func (s *talk) ask(t *testing.T, path string) []byte {
	t.Helper()
	resp, err := s.from.ask(s.to, http.MethodGet, path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return body
	case http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable:
	default:
		t.Errorf("%s: status %d", path, resp.StatusCode)
	}
	return nil
}

// say sends a frame, on a new line if the node has had enough of the last.
func (s *talk) say(kind wire.FrameType, id uint32, body []byte) {
	if s.line == nil {
		s.line = s.from.line(s.to)
	}
	_ = s.line.SetWriteDeadline(time.Now().Add(10 * time.Second)) // fails at the write
	if _, err := s.line.Write(wire.AppendFrame(nil, kind, id, body)); err != nil {
		s.hangUp()
	}
}

func (s *talk) hangUp() {
	if s.line != nil {
		_ = s.line.Close()
		s.line = nil
	}
}

// FuzzProtocol lets a member say anything to a node, in any order: what the node
// gives is right, it goes on answering, and nothing is left of who has gone.
func FuzzProtocol(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 0, 1, 2, 4, 0, 1, 4, 4, 2, 6, 4, 0, 1})
	f.Add([]byte{2, 4, 0, 4, 2, 4, 1, 1, 2, 8, 0, 1, 2, 3, 0, 1, 2, 0, 7, 5})
	f.Add([]byte{4, 0, 1, 5, byte(wire.FrameSelf), 0, 2, '[', ']', 4, 0, 2, 5, byte(wire.FrameLeave), 1, 0})
	f.Add([]byte{3, 9, 'i', 'n', 'f', 'o', '/', '.', '.', '/', 'x', 5, 99, 3, 1, 0, 0, 0})
	mesh := newMesh(f)
	whole, half, none := content(1, 5*mib+9), content(2, 8*mib), content(3, 2*mib)
	node, fill := mesh.halfway(half, 4, func(m *member) { m.seed(whole) })
	f.Cleanup(func() { fill.Fail(io.ErrUnexpectedEOF); <-fill.Done() })
	hostile := mesh.member(nil)
	f.Fuzz(func(t *testing.T, script []byte) {
		const steps = 40
		mesh.t = t // what fails now, fails here
		s := &talk{script: script, from: hostile, to: node, blobs: [][]byte{whole, half, none}}
		for range steps {
			if len(s.script) == 0 {
				break
			}
			s.step(t)
		}
		s.hangUp()
		info := s.ask(t, wire.Request{Kind: wire.KindInfo, Digest: describe(whole).Digest}.Path())
		if parsed, err := wire.ParseInfo(info); err != nil || !parsed.Whole {
			t.Errorf("the node says %+v, %v of what it has", parsed, err)
		}
		eventually(t, "something is left of who has gone", func() bool {
			node.followers.mu.Lock()
			defer node.followers.mu.Unlock()
			return node.followers.total == 0 && len(node.followers.blobs) == 0
		})
	})
}

// FuzzReadFrame: a stream of frames is read as it was sent, up to the first one
// that is not allowed, and never costs more memory than came.
func FuzzReadFrame(f *testing.F) {
	f.Add(wire.AppendFrame(wire.AppendFrame(nil, wire.FrameBeat, 0, nil), wire.FrameSelf, 0, []byte("[{}]")), int64(1<<10))
	f.Add(wire.AppendFrame(nil, wire.FrameInfo, 7, wire.Info{Size: 10, Whole: true}.Marshal()), int64(1<<20))
	f.Add(wire.AppendFrame(nil, wire.FrameInfo, 7, wire.Info{Size: 10, Whole: true}.Marshal()), int64(10))
	f.Add([]byte{0, 0x10, 0, 0, byte(wire.FrameInfo), 0, 0, 0, 1, 9}, int64(wire.MaxInfo)) // says more than it sends
	f.Add([]byte{0, 0, 0, 1, byte(wire.FrameLeave), 0, 0, 0, 1, 9}, int64(1<<10))
	f.Fuzz(func(t *testing.T, b []byte, most int64) {
		r := bufio.NewReader(bytes.NewReader(b))
		for read := 0; ; {
			head, body, err := readFrame(r, most)
			if most := len(b) - read + 64<<10 + 512; cap(body) > 2*most {
				t.Errorf("%d bytes for %d that came", cap(body), len(b)-read)
			}
			if err != nil {
				return
			}
			if int64(len(body)) > most || len(body) != int(head.Length) {
				t.Errorf("%d bytes for %+v, at most %d", len(body), head, most)
			}
			if sent := wire.AppendFrame(nil, head.Type, head.ID, body); !bytes.HasPrefix(b[read:], sent) {
				t.Errorf("%x was read as %x", b[read:], sent)
			}
			read += wire.FrameHeadSize + len(body)
		}
	})
}
