//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// limitSpan is over how long rates are measured.
const limitSpan = 10 * time.Second

// measureLimits measures how near each limit is kept, on both sides: what the
// sender has sent within ten seconds in the middle of a transfer, and how long
// the whole took its receiver.
func measureLimits(ctx context.Context, b *bench) error {
	seed := byte(40)
	for _, name := range []string{"max-upload", "max-download", "max-origin"} {
		for _, rate := range []float64{4e6, 20e6} {
			got := series{}
			for range b.runs {
				seed++
				one, err := b.limited(ctx, seed, name, rate)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				for quantity, value := range one {
					got[quantity] = append(got[quantity], value)
				}
			}
			what := fmt.Sprintf("--%s %gMB, of the limit: ", name, rate/1e6)
			for _, quantity := range []string{"sent in 10 s", "received, the whole"} {
				b.add(what+quantity, "", got[quantity], atLeast(0.95), atMost(1.05))
			}
			b.add(what+"on the receiver's link in 10 s", "", got["link"])
		}
	}
	return nil
}

// limited transfers a blob under one limit, which is set while the nodes run.
func (b *bench) limited(ctx context.Context, seed byte, name string, rate float64) (sample, error) {
	size := int64(rate * (limitSpan + 2*time.Second).Seconds())
	var holder *program.Node
	var blob v1.Descriptor
	var err error
	upstream, join, limitedOn := b.origin.URL(), []*program.Node(nil), 1
	if name == "max-origin" {
		blob, err = b.origin.PutBlob(blobRepository, seed, size)
	} else {
		holder, blob, err = b.hold(ctx, seed, size)
		upstream, join = fmt.Sprintf("http://%v:%d", b.origin.Host.Addr, brokenPort), []*program.Node{holder}
	}
	if err != nil {
		return nil, err
	}
	if name == "max-upload" {
		limitedOn = 0
	}
	puller, err := b.node(ctx, 1, upstream, join...)
	if err != nil {
		return nil, err
	}
	if _, err := b.machines[limitedOn].Run(ctx, testhost.Command{
		Path: program.Shoal(b.dir), Args: []string{"limits", "--" + name, fmt.Sprintf("%gMB", rate/1e6)},
	}); err != nil {
		return nil, err
	}
	before := b.origin.Accesses()
	sent := func() (int64, error) {
		if holder == nil {
			return b.origin.Accesses().Since(before).Blobs().Bytes(), nil
		}
		s, err := holder.Status(ctx)
		return s.Bytes.ServedPeers, err
	}
	got, err := b.measureRate(ctx, puller, blob, sent)
	if err != nil {
		return nil, err
	}
	for quantity := range got {
		got[quantity] /= rate
	}
	if holder != nil {
		err = b.drop(holder)
	}
	return got, errors.Join(err, b.drop(puller))
}

// measureRate has a client get a blob through a node, and returns bytes a second.
func (b *bench) measureRate(ctx context.Context, puller *program.Node, blob v1.Descriptor, sent func() (int64, error)) (sample, error) {
	var took time.Duration
	ended := make(chan error, 1)
	go func() {
		var err error
		took, err = curl(ctx, puller.Host, blobURL(blob), blob.Size)
		ended <- err
	}()
	look := func() (at time.Time, from, link int64, err error) {
		from, err = sent()
		link, lerr := puller.Host.Traffic(ctx)
		return time.Now(), from, link, errors.Join(err, lerr)
	}
	err := rig.Sleep(ctx, time.Second) // the first bytes, and what may pass at once
	begun, from, link, lerr := look()
	err = errors.Join(err, lerr, rig.Sleep(ctx, limitSpan))
	done, to, linkTo, lerr := look()
	if err = errors.Join(err, lerr, <-ended); err != nil {
		return nil, err
	}
	seconds := done.Sub(begun).Seconds()
	return sample{
		"sent in 10 s": float64(to-from) / seconds, "link": float64(linkTo-link) / seconds,
		"received, the whole": float64(blob.Size) / took.Seconds(),
	}, nil
}
