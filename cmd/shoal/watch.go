package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"

	"shoal/cmd/shoal/internal/admin"
)

const (
	// watchEvery is the time between two looks: long enough for a rate that
	// means something, short enough to see a fill come and go.
	watchEvery = time.Second
	// barWidth is the length of a bar, in characters: what stands beside it
	// fits into a line of 100.
	barWidth = 20
	// longest is the longest time left that is shown.
	longest = 100 * time.Hour
	// clearScreen moves to the upper left corner and erases everything (ECMA-48).
	clearScreen = "\x1b[H\x1b[2J"
)

// watch shows what a node says, and what it said before, again and again until
// it is interrupted or the node does not answer. On a terminal it is shown in
// place, unless it is raw.
func watch[T any](env environment, raw bool, ask func(context.Context) (T, error), show func(now, before T) error) error {
	ctx, stop := signal.NotifyContext(env.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	clear := ""
	if isTerminal(env.stdout) && !raw {
		clear = clearScreen
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before T
	for {
		now, err := ask(ctx)
		if ctx.Err() != nil {
			return nil // somebody has seen enough
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(env.stdout, clear); err != nil {
			return err
		}
		if err := show(now, before); err != nil {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sorted returns fills in an order that stays the same while they run: those
// first that are nearest to their end, then by digest.
func sorted(fills []admin.Fill) []admin.Fill {
	return slices.SortedFunc(slices.Values(fills), func(a, b admin.Fill) int {
		return cmp.Or(cmp.Compare(b.Done*max(1, a.Pieces), a.Done*max(1, b.Pieces)), cmp.Compare(a.Digest, b.Digest))
	})
}

// earlier returns what was said of the same fill before, nil if nothing was.
func earlier(f admin.Fill, before admin.Status) *admin.Fill {
	for i := range before.Fills {
		if b := &before.Fills[i]; b.Digest == f.Digest && b.Size == f.Size {
			return b
		}
	}
	return nil
}

// fillText describes a running fill, with rates if it is known what it was some
// time before.
func fillText(f admin.Fill, before *admin.Fill, since time.Duration) string {
	share := float64(f.Done) / float64(max(1, f.Pieces))
	origin, peers, left := "", "", ""
	if before != nil && since > 0 {
		fromOrigin := float64(f.FromOrigin-before.FromOrigin) / since.Seconds()
		fromPeers := float64(f.FromPeers-before.FromPeers) / since.Seconds()
		origin, peers = rateText(fromOrigin), rateText(fromPeers)
		// At hardly any rate it is a number that says nothing, or overflows.
		if seconds := (1 - share) * float64(f.Size) / (fromOrigin + fromPeers); seconds >= 0 && seconds < longest.Seconds() {
			left = fmt.Sprintf(", %v left", time.Duration(seconds*float64(time.Second)).Round(time.Second))
		}
	}
	return fmt.Sprintf("%s %s %3.0f %% of %s, %s%s from the registry, %s%s from %s%s", short(f.Digest), bar(share), 100*share, size(f.Size),
		size(f.FromOrigin), origin, size(f.FromPeers), peers, count(f.Members, "member"), left)
}

// rateText is a rate in brackets, of bytes a second.
func rateText(rate float64) string { return fmt.Sprintf(" (%s/s)", units.BytesSize(max(0, rate))) }

// bar draws a share of one.
func bar(share float64) string {
	full := int(min(1, max(0, share)) * barWidth)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
}

// short returns the beginning of a digest, as docker shows it.
func short(digest string) string {
	const algorithm, hex = len("sha256:"), 12
	return digest[:min(len(digest), algorithm+hex)]
}

// count puts a noun behind its number.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
