package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/blobcache/blob"
	"shoal/cmd/shoal/internal/admin"
	"shoal/proxy"
	"shoal/proxy/origin"
	"shoal/proxy/request"
	"shoal/seeder"
)

const (
	// pullsAtOnce bounds the images of one request that are fetched at a time:
	// the layers of one fill a link, and the questions about the next ones wait
	// for registries.
	pullsAtOnce = 4
	// tellEvery is how often an asker hears how far they are.
	tellEvery = 250 * time.Millisecond
)

// client is the node as its clients see it.
type client struct {
	proxy  *proxy.Proxy
	origin *origin.Client
}

// Manifest is of seeder.Mirror.
func (c client) Manifest(ctx context.Context, image string) (seeder.Manifest, error) {
	i, err := request.ParseImage(image)
	if err != nil {
		return seeder.Manifest{}, err
	}
	p, err := c.proxy.Manifest(ctx, i)
	if err != nil {
		return seeder.Manifest{}, err
	}
	m := seeder.Manifest{Descriptor: p.Descriptor, Blobs: p.Blobs, Stale: p.Stale}
	for _, child := range p.Children {
		m.Children = append(m.Children, seeder.Child(child))
	}
	return m, nil
}

// Blobs is of seeder.Mirror.
func (c client) Blobs(ctx context.Context, image string, blobs []blob.Descriptor) error {
	i, err := request.ParseImage(image)
	if err != nil {
		return err
	}
	return c.proxy.Blobs(ctx, i, blobs)
}

// Tags is of seeder.Lister.
func (c client) Tags(ctx context.Context, repository string) ([]string, error) {
	i, err := request.ParseImage(repository)
	if err != nil {
		return nil, err
	}
	return c.proxy.Tags(ctx, i)
}

// Repositories is of seeder.Lister.
func (c client) Repositories(ctx context.Context, registry string) ([]string, error) {
	return c.origin.Repositories(ctx, registry)
}

// openSeeder makes what fetches by itself, and where registries tell what was
// pushed.
func (s *service) openSeeder(ctx context.Context) (err error) {
	c := client{s.proxy, s.origin}
	s.seeder, err = seeder.New(seeder.Options{
		Mirror: c, Lister: c, Cache: s.cache, Swarm: swarm{s.node, s.signer}, Busy: s.proxy.Busy, Platforms: ownPlatform(),
		Looked: filepath.Join(s.cfg.DataDir, "seeder.json"), Chosen: filepath.Join(s.cfg.DataDir, "seeder"), Logger: s.log, Metrics: s.metrics,
	}, s.cfg.Seeder)
	hook := s.cfg.Seeder.Webhook
	if err != nil || hook.Listen == "" {
		return err
	}
	secret, err := hook.Secret()
	if err != nil {
		return err
	}
	if s.webhook.listener, err = listen(ctx, "seeder.webhook.listen", hook.Listen); err != nil {
		return err
	}
	s.webhook.server = smallServer(s.seeder.Receiver(secret), s.log)
	return nil
}

// seed keeps selections at hand, from when there may be members to fetch from.
func (s *service) seed(ctx context.Context) error {
	select {
	case <-s.node.JoinTried():
	case <-ctx.Done():
		return nil
	}
	return s.seeder.Run(ctx)
}

// lookNow has the seeder look at a selection.
func (s *service) lookNow(selection string) error {
	err := s.seeder.Look(selection)
	if errors.Is(err, seeder.ErrUnknown) {
		return fmt.Errorf("%w: %w; \"shoal seeder\" lists them", admin.ErrRefused, err)
	}
	return err
}

// ownPlatform is that of images for this machine.
func ownPlatform() []string { return []string{"linux/" + runtime.GOARCH} }

// askedPlatforms reads those that an asker names.
func askedPlatforms(words []string) (seeder.Platforms, error) {
	if len(words) == 0 {
		words = ownPlatform()
	}
	return seeder.ParsePlatforms(words)
}

// imageNames returns the whole names of images, each once.
func imageNames(words []string) ([]string, error) {
	var names []string
	for _, word := range words {
		i, err := request.ParseImage(word)
		if err != nil {
			return nil, err
		}
		if i.Tag == "" && i.Digest == "" {
			i.Tag = "latest"
		}
		if name := i.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// pull fetches what an operator asks for.
func (s *service) pull(ctx context.Context, ask admin.Pull, tell func([]admin.Progress)) error {
	pulls, err := s.newPulls(ask.Images, ask.Platforms)
	if err != nil {
		return fmt.Errorf("%w: %w", admin.ErrRefused, err)
	}
	runPulls(ctx, pulls, func(now []seeder.Progress) {
		var all []admin.Progress
		for _, p := range now {
			all = append(all, admin.Progress{Progress: p})
		}
		tell(all)
	})
	return nil
}

// newPulls returns the pulls of images.
func (s *service) newPulls(images, platformWords []string) ([]*seeder.Pull, error) {
	names, err := imageNames(images)
	if err != nil {
		return nil, err
	}
	wanted, err := askedPlatforms(platformWords)
	if err != nil {
		return nil, err
	}
	var pulls []*seeder.Pull
	for _, name := range names {
		pulls = append(pulls, seeder.NewPull(client{s.proxy, s.origin}, s.cache, name, wanted))
	}
	return pulls, nil
}

// runPulls runs pulls, some at a time, and tells how far they are until all have
// ended.
func runPulls(ctx context.Context, pulls []*seeder.Pull, tell func([]seeder.Progress)) {
	var g errgroup.Group
	g.SetLimit(pullsAtOnce)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, p := range pulls {
			g.Go(func() error {
				_ = p.Run(ctx) // its Progress tells
				return nil
			})
		}
		_ = g.Wait()
	}()
	every(ended, func() bool {
		now := []seeder.Progress{}
		for _, p := range pulls {
			now = append(now, p.Progress())
		}
		tell(now)
		return true
	})
}

// every calls do again and again, and once more when something has ended, unless
// it says that this is enough.
func every(ended <-chan struct{}, do func() (more bool)) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-tick.C:
		}
		if !do() {
			return
		}
	}
}
