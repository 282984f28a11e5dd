package channel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/p2p/swarmkey"
)

// acceptRead accepts one connection and returns what its first Read said.
func acceptRead(l *Listener) <-chan error {
	result := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			result <- err
			return
		}
		defer c.Close()
		n, err := c.Read(make([]byte, 64))
		if n > 0 {
			err = errors.New("a stranger's bytes were delivered")
		}
		result <- err
	}()
	return result
}

// impostor is a TLS client with a valid identity that writes its own proofs.
type impostor struct {
	*tls.Conn
	id       peer.ID
	exporter []byte
}

func newImpostor(t *testing.T, ch *Channel, to peer.ID, addr string) *impostor {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	config, _ := ch.config(to)
	c := tls.Client(raw, config)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := c.ConnectionState()
	exporter, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &impostor{c, ch.id, exporter}
}

func (i *impostor) send(t *testing.T, proof [32]byte) {
	t.Helper()
	if _, err := i.Write(append([]byte{proofVersion}, proof[:]...)); err != nil {
		t.Fatal(err)
	}
}

// TestForgedProofs lets a dialler that knows TLS, but is no member, try the
// proofs that it can get at. None may be believed, and none answered.
func TestForgedProofs(t *testing.T) {
	key := swarmkey.New()
	for name, forge := range map[string]func(bob peer.ID, first, second *impostor) [32]byte{
		"a member's proof from another connection": func(bob peer.ID, first, _ *impostor) [32]byte {
			return key.Prove(proofMessage(labelDialler, first.exporter, first.id, bob))
		},
		"the listener's role": func(bob peer.ID, _, second *impostor) [32]byte {
			return key.Prove(proofMessage(labelListener, second.exporter, second.id, bob))
		},
		"the roles swapped": func(bob peer.ID, _, second *impostor) [32]byte {
			return key.Prove(proofMessage(labelListener, second.exporter, bob, second.id))
		},
		"in another member's name": func(bob peer.ID, _, second *impostor) [32]byte {
			return key.Prove(proofMessage(labelDialler, second.exporter, newMember(t, key).id, bob))
		},
		"meant for another listener": func(_ peer.ID, _, second *impostor) [32]byte {
			return key.Prove(proofMessage(labelDialler, second.exporter, second.id, newMember(t, key).id))
		},
		"zeroes": func(peer.ID, *impostor, *impostor) [32]byte { return [32]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			bob, mallory := newMember(t, key), newMember(t, swarmkey.New())
			l := listen(t, bob, ListenOptions{})
			ended := []<-chan error{acceptRead(l), acceptRead(l)}
			first := make(chan *impostor, 1)
			go func() { first <- newImpostor(t, mallory, bob.id, l.Addr().String()) }()
			second := newImpostor(t, mallory, bob.id, l.Addr().String())
			other := <-first
			second.send(t, forge(bob.id, other, second))
			if n, err := second.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("the listener answered a stranger")
			}
			_ = other.Close()
			_ = second.Close() // one that was let in must not wait for more
			refused := false
			for _, e := range ended {
				err := <-e
				refused = refused || errors.Is(err, ErrNotMember)
				if err == nil {
					t.Error("a stranger was let in")
				}
			}
			if !refused {
				t.Error("nobody said that the stranger is no member")
			}
		})
	}
}

// TestTrueProofIsBelieved shows that TestForgedProofs fails for the right
// reason: the same impostor gets in with the proof that a member would send.
func TestTrueProofIsBelieved(t *testing.T) {
	key := swarmkey.New()
	bob, alice := newMember(t, key), newMember(t, key)
	l := listen(t, bob, ListenOptions{})
	ended := acceptRead(l)
	i := newImpostor(t, alice, bob.id, l.Addr().String())
	i.send(t, key.Prove(proofMessage(labelDialler, i.exporter, i.id, bob.id)))
	var got [proofSize]byte
	if _, err := io.ReadFull(i, got[:]); err != nil {
		t.Fatal(err)
	}
	if !key.Verify(proofMessage(labelListener, i.exporter, i.id, bob.id), [32]byte(got[1:])) {
		t.Error("the listener's proof does not hold")
	}
	_ = i.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("read ended with %v", err)
	}
}

// TestReflectedProof has a false listener send the dialler's own proof back.
func TestReflectedProof(t *testing.T) {
	key := swarmkey.New()
	mallory := newMember(t, swarmkey.New())
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := inner.Accept()
		if err != nil {
			return
		}
		config, _ := mallory.config("")
		c := tls.Server(raw, config)
		defer func() { _ = c.Close() }()
		_, _ = io.CopyN(c, c, proofSize)
	}()
	_, err = newMember(t, key).Dial(t.Context(), mallory.id, inner.Addr().String())
	if !errors.Is(err, ErrNotMember) {
		t.Errorf("error %v", err)
	}
	<-done
}

func TestRotatedKeysMeet(t *testing.T) {
	older, newer := swarmkey.New(), swarmkey.New()
	both := func(first, second *swarmkey.Key) *swarmkey.Key {
		body := func(k *swarmkey.Key) string { return string(k.Text()[len("shoal-swarm-key/1\n"):]) }
		k, err := swarmkey.Parse([]byte("shoal-swarm-key/1\n" + body(first) + body(second)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	on, no := both(older, newer), both(newer, older)
	for _, p := range [][2]*swarmkey.Key{{older, on}, {on, older}, {on, no}, {no, on}, {no, newer}, {newer, no}} {
		bob := newMember(t, p[1])
		l := listen(t, bob, ListenOptions{})
		ended := acceptRead(l)
		c, err := newMember(t, p[0]).Dial(t.Context(), bob.id, l.Addr().String())
		if err != nil {
			t.Fatalf("%s to %s: %v", p[0], p[1], err)
		}
		_ = c.Close()
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("%s to %s: %v", p[0], p[1], err)
		}
	}
}

func TestGarbageInsteadOfTLS(t *testing.T) {
	bob := newMember(t, swarmkey.New())
	l := listen(t, bob, ListenOptions{})
	ended := acceptRead(l)
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, _ = io.WriteString(raw, "GET /shoal/1/info HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-ended; err == nil {
		t.Error("plain HTTP was let in")
	}
}

// pipes is a listener whose connections are net.Pipes: time can be faked.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- b
	return a
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestSilentStrangerIsCutOff(t *testing.T) {
	bob := newMember(t, swarmkey.New())
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := bob.NewListener(inner, ListenOptions{})
		defer l.Close()
		ended := acceptRead(l)
		c := inner.dial()
		defer c.Close()
		began := time.Now()
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != HandshakeTimeout {
			t.Errorf("took %v, want %v", took, HandshakeTimeout)
		}
	})
}

// TestSilentListenerIsLeft is the other side: a member that was stopped by
// SIGSTOP accepts connections and says nothing.
func TestSilentListenerIsLeft(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	key := swarmkey.New()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = newMember(t, key).Dial(ctx, newMember(t, key).id, inner.Addr().String())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestSilentStrangersMakeRoom: over the limit the oldest silent connection goes
// at once, not when its time is over.
func TestSilentStrangersMakeRoom(t *testing.T) {
	bob := newMember(t, swarmkey.New())
	synctest.Test(t, func(t *testing.T) {
		const pending, strangers = 4, 10
		inner := newPipes()
		l := bob.NewListener(inner, ListenOptions{MaxPending: pending})
		defer l.Close()
		began := time.Now()
		ended := make([]time.Duration, strangers)
		var wg sync.WaitGroup
		for i := range strangers {
			accepted := make(chan net.Conn)
			go func() {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				accepted <- c
			}()
			c := inner.dial()
			s := <-accepted
			wg.Go(func() {
				defer c.Close()
				if _, err := s.Read(make([]byte, 1)); err == nil {
					t.Error("a stranger was let in")
				}
				ended[i] = time.Since(began)
			})
			synctest.Wait()
		}
		wg.Wait()
		for i, after := range ended {
			want := HandshakeTimeout
			if i < strangers-pending {
				want = 0
			}
			if after != want {
				t.Errorf("stranger %d ended after %v, want %v", i, after, want)
			}
		}
	})
}

// TestSilentStrangersKeepNobodyOut: a member gets in between them, and stays.
func TestSilentStrangersKeepNobodyOut(t *testing.T) {
	key := swarmkey.New()
	bob, alice := newMember(t, key), newMember(t, key)
	const pending = 4
	l := listen(t, bob, ListenOptions{MaxPending: pending})
	accepting := make(chan struct{})
	var wg sync.WaitGroup
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	}()
	var conns []net.Conn
	strangers := func() {
		for range 3 * pending {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
	}
	strangers()
	c, err := alice.Dial(t.Context(), bob.id, l.Addr().String())
	if err != nil {
		t.Fatalf("a member was kept out: %v", err)
	}
	echo := func() {
		t.Helper()
		var got [5]byte
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got[:]); err != nil || string(got[:]) != "hello" {
			t.Fatalf("the member's connection: %q %v", got, err)
		}
	}
	echo() // now the listener has settled it, too
	strangers()
	for _, s := range conns[:len(conns)-pending] {
		_, _ = s.Read(make([]byte, 1)) // until it is closed
	}
	echo()
	_ = c.Close()
	for _, s := range conns {
		s.Close()
	}
	l.Close()
	<-accepting
	wg.Wait()
}

func TestConnectionLimit(t *testing.T) {
	key := swarmkey.New()
	bob, alice := newMember(t, key), newMember(t, key)
	l := listen(t, bob, ListenOptions{MaxConns: 1})
	accepted := make(chan net.Conn, 4)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
			_, _ = c.Read(make([]byte, 1)) // the handshake, then until it is closed
		}
	}()
	first, err := alice.Dial(t.Context(), bob.id, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte("x")); err != nil { // lets the loop go on to Accept
		t.Fatal(err)
	}
	if c, err := alice.Dial(t.Context(), bob.id, l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("a second connection over the limit of one")
	}
	(<-accepted).Close()
	_ = first.Close()
	again, err := alice.Dial(t.Context(), bob.id, l.Addr().String())
	if err != nil {
		t.Fatalf("no room after the first was closed: %v", err)
	}
	_ = again.Close()
	(<-accepted).Close()
	l.Close()
	<-done
}

// TestCloseDoesNotWaitForTheHandshake: a server that stops closes connections
// whose handshake is under way in another goroutine.
func TestCloseDoesNotWaitForTheHandshake(t *testing.T) {
	bob := newMember(t, swarmkey.New())
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := bob.NewListener(inner, ListenOptions{})
		defer l.Close()
		other := make(chan net.Conn, 1)
		go func() { other <- inner.dial() }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer (<-other).Close()
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		began := time.Now()
		c.Close()
		if err := <-read; err == nil {
			t.Error("read from a closed connection")
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("closing took %v", took)
		}
	})
}

// countingConn counts writes to the connection.
type countingConn struct {
	net.Conn
	writes int
	fail   error
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes++
	if c.fail != nil {
		return 0, c.fail
	}
	return len(p), nil
}

func TestRecordsAreGathered(t *testing.T) {
	inner := &countingConn{}
	b := newBuffered(inner, 16, newBufferPool())
	record := make([]byte, 16<<10)
	b.cork()
	for range 64 {
		if n, err := b.Write(record); n != len(record) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := b.uncork(); err != nil {
		t.Fatal(err)
	}
	if want := 64 * len(record) / writeBuffer; inner.writes != want {
		t.Errorf("1 MiB of records went out in %d writes, want %d", inner.writes, want)
	}
	inner.writes = 0
	_, _ = b.Write(record) // an alert, say: nobody would flush it
	if inner.writes != 1 {
		t.Error("a write outside of Write was held back")
	}
}

func TestFailedFlushSticks(t *testing.T) {
	broken := errors.New("broken")
	inner := &countingConn{fail: broken}
	b := newBuffered(inner, 16, newBufferPool())
	b.cork()
	_, _ = b.Write([]byte("x"))
	if err := b.uncork(); !errors.Is(err, broken) {
		t.Errorf("uncork: %v", err)
	}
	inner.fail = nil
	if _, err := b.Write([]byte("y")); !errors.Is(err, broken) {
		t.Errorf("a write after a hole in the stream: %v", err)
	}
}
