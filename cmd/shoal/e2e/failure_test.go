//go:build linux

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sys/unix"
)

// inFlight is what a node may have asked for and not have, so that it may be
// sent twice when something dies: two requests of 4 MiB to the origin.
const inFlight = 8 << 20

// TestHoldersKilled: of two holders that serve a pull one is killed, then the
// other; the origin gives the rest, and no more than that.
func TestHoldersKilled(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 3, 80)
	nodes := l.swarm(ctx, t, 3)
	l.seed(ctx, t, img, nodes[:2]...)
	l.slowDown(t, 100*testhost.Mbit, 0, 1)

	before := l.origin.Accesses()
	sent := func() int64 { return l.origin.Accesses().Since(before).Blobs().Bytes() }
	var sentBefore, takenBefore int64
	l.follow(ctx, t, nodes[2], img,
		milestone{percent: 20, do: nodes[0].Kill},
		milestone{percent: 45, do: func() {
			sentBefore, takenBefore = sent(), must(taken(ctx, nodes[2]))(t)
			nodes[1].Kill()
		}},
	)
	rest, most := sent()-sentBefore, img.BlobBytes()-takenBefore+inFlight
	t.Logf("the origin sent %d bytes before the death of the last holder and %d after it, of %d", sentBefore, rest, img.BlobBytes())
	if rest == 0 || rest > most {
		t.Errorf("the origin sent %d bytes after the death of the last holder, want more than 0 and at most %d", rest, most)
	}
	assertNoHub(t, l.origin.Accesses().Since(before))
}

// TestHoldersFrozen: as above, but the holders stop in the middle of a word, as
// seen from outside, and their connections stay.
func TestHoldersFrozen(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 4, 80)
	nodes := l.swarm(ctx, t, 3)
	l.seed(ctx, t, img, nodes[:2]...)
	l.slowDown(t, 100*testhost.Mbit, 0, 1)
	before := l.origin.Accesses()
	longest := l.follow(ctx, t, nodes[2], img,
		milestone{percent: 20, do: func() { check(t, nodes[0].Process.Signal(unix.SIGSTOP)) }},
		milestone{percent: 45, do: func() { check(t, nodes[1].Process.Signal(unix.SIGSTOP)) }},
	)
	t.Logf("longest time without a byte: %v", longest.Round(10*time.Millisecond))
	if longest >= 3*time.Second {
		t.Errorf("no byte came for %v", longest)
	}
	assertNoHub(t, l.origin.Accesses().Since(before))
}

// TestRestartInFill: a node is killed in the middle of its own fill and started
// again. dockerd comes back by itself; the origin is not asked again for what
// was on the disk.
func TestRestartInFill(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 5, 64)
	layer := img.Layers[len(img.Layers)-1]
	node := l.swarm(ctx, t, 1)[0]
	before := l.origin.Accesses()
	sent := func() int64 { return l.origin.Accesses().Since(before).Gets(layer.Digest.String()).Bytes() }

	pulled := inBackground(func() error { return l.machines[0].pullInTries(ctx, img.Ref()) })
	check(t, testhost.Until(ctx, time.Minute, func(context.Context) error {
		if s := sent(); s < layer.Size*6/10 {
			return fmt.Errorf("%d of %d bytes", s, layer.Size)
		}
		return nil
	}))
	node.Kill()
	check(t, node.Start(ctx))
	check(t, <-pulled) // dockerd saw the end of its connection
	l.machines[0].checkImage(ctx, t, img.Ref(), img)
	assertNoHub(t, l.origin.Accesses().Since(before))
	// At 200 Mbit/s 12.5 MB come between two moments at which the disk is made
	// to hold what came.
	const notDurable = 13 << 20
	t.Logf("the origin sent %d bytes for a layer of %d", sent(), layer.Size)
	if sent() > layer.Size+inFlight+notDurable {
		t.Errorf("the origin sent %d bytes for a layer of %d: more than what was in flight again", sent(), layer.Size)
	}
}

// TestAlteredOnDisk: a byte of a blob changes under a node that holds it. Who
// pulls from it gets right bytes, and the altered copy goes.
func TestAlteredOnDisk(t *testing.T) {
	ctx, l := scenario(t)
	for _, c := range []struct {
		name string
		seed byte
		at   int64 // percent of the pull
	}{
		{"before it serves", 6, 0},
		{"while it serves", 7, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := l.push(ctx, t, c.seed, 40)
			layer := img.Layers[len(img.Layers)-1].Digest
			nodes := l.swarm(ctx, t, 2)
			l.seed(ctx, t, img, nodes[0])
			l.slowDown(t, 200*testhost.Mbit, 0)
			before := l.origin.Accesses()
			alter := func() { check(t, alterLastByte(nodes[0].BlobFile(layer.Hex))) }
			if c.at == 0 {
				alter()
				l.follow(ctx, t, nodes[1], img)
			} else {
				l.follow(ctx, t, nodes[1], img, milestone{percent: c.at, do: alter})
			}
			awaitWhole(ctx, t, nodes[1], img)
			assertNoHub(t, l.origin.Accesses().Since(before))
			// The holder finds out at the latest when it is asked for the blob.
			check(t, program.Download(ctx, nodes[0].Host, program.MirrorURL, img))
			awaitWhole(ctx, t, nodes[0], img)
			for _, n := range nodes {
				content := must(os.ReadFile(n.BlobFile(layer.Hex)))(t)
				if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != layer.Hex {
					t.Errorf("%s holds an altered %v", n.Host.Name, layer)
				}
			}
			if found := must(nodes[0].Metric(ctx, "shoal_cache_corrupt_total"))(t); found != 1 {
				t.Errorf("shoal_cache_corrupt_total is %v, want 1", found)
			}
			if log := string(must(os.ReadFile(nodes[0].Process.LogFile))(t)); !strings.Contains(log, layer.String()) {
				t.Errorf("the log of the node does not name %v", layer)
			}
		})
	}
}

// alterLastByte changes the file's last byte in place, as a disk does that rots.
func alterLastByte(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return errors.Join(err, f.Close())
	}
	last[0] ^= 1
	_, err = f.WriteAt(last, info.Size()-1)
	return errors.Join(err, f.Close())
}

// seed lets the nodes hold the image, without the wait for a shaped origin.
func (l *lab) seed(ctx context.Context, t *testing.T, img *program.Image, nodes ...*program.Node) {
	t.Helper()
	check(t, l.origin.Host.Shape(0))
	defer func() { check(t, l.origin.Host.Shape(originLink)) }()
	for _, n := range nodes {
		check(t, program.Download(ctx, n.Host, program.MirrorURL, img))
		awaitWhole(ctx, t, n, img)
	}
}

// slowDown gives the machines with these numbers a slower link until the end
// of the test, so that there is a middle of a pull for something to happen in.
func (l *lab) slowDown(t *testing.T, rate testhost.Rate, numbers ...int) {
	t.Helper()
	for _, i := range numbers {
		check(t, l.machines[i].Shape(rate))
		t.Cleanup(func() { check(t, l.machines[i].Shape(machineLink)) })
	}
}

// inBackground starts f and returns where its end will be told.
func inBackground(f func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	return ended
}

// taken returns how many bytes the node has taken in since its start.
func taken(ctx context.Context, n *program.Node) (int64, error) {
	s, err := n.Status(ctx)
	return s.Bytes.Origin + s.Bytes.Peers, err
}

// milestone is something to do once a pull has come this far.
type milestone struct {
	percent int64
	do      func()
}

// follow lets the dockerd beside the node pull the image, does what is to be
// done on the way, and fails the test unless the image is right in the end. It
// returns the longest time in which the node took nothing in.
func (l *lab) follow(ctx context.Context, t *testing.T, n *program.Node, img *program.Image, todo ...milestone) time.Duration {
	t.Helper()
	var m *machine
	for _, candidate := range l.machines {
		if candidate.Host == n.Host {
			m = candidate
		}
	}
	const sampling = 50 * time.Millisecond
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	pulled := inBackground(func() error { return m.pull(ctx, img.Ref()) })
	var last int64
	var longest time.Duration
	grown := time.Now()
	for {
		select {
		case err := <-pulled:
			check(t, err)
			if len(todo) > 0 {
				t.Fatalf("the pull was over before it was seen at %d %%", todo[0].percent)
			}
			m.checkImage(ctx, t, img.Ref(), img)
			return longest
		case <-tick.C:
			now := must(taken(ctx, n))(t)
			if last < img.BlobBytes() {
				longest = max(longest, time.Since(grown))
			}
			if now > last {
				last, grown = now, time.Now()
			}
			if len(todo) > 0 && now >= img.BlobBytes()*todo[0].percent/100 {
				todo[0].do()
				todo = todo[1:]
			}
		}
	}
}
