package seeder

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// everything asks registries what there is, and chooses. What they do not tell
// stays as it was chosen, and nothing else does.
func (r *runner) everything(ctx context.Context, run *Run) []string {
	now := choice{}
	for _, p := range r.patterns {
		repositories := []string{p.repository}
		if p.anyRepository() {
			all, err := r.s.o.Lister.Repositories(ctx, p.registry)
			if err != nil {
				r.unlisted(run, p, fmt.Errorf("the repositories of %s: %w", p.registry, err), now)
				continue
			}
			repositories = slices.DeleteFunc(all, func(name string) bool { return !p.covers(name) })
		}
		for _, repository := range repositories {
			r.inRepository(ctx, run, p, repository, now)
		}
	}
	images := slices.Sorted(maps.Keys(now))
	if len(images) > maxImages {
		r.listFailed(run, fmt.Errorf("%d images are selected: use narrower patterns, %d are the most", len(images), maxImages))
		for _, image := range images[maxImages:] {
			delete(now, image)
		}
		images = images[:maxImages]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.choice = now
	return images
}

// inRepository adds the images of a repository that p means.
func (r *runner) inRepository(ctx context.Context, run *Run, p pattern, repository string, now choice) {
	name := p.registry + "/" + repository
	image, asIs := r.asIs(p, repository)
	images := []string{image}
	if !asIs {
		tags, err := r.s.o.Lister.Tags(ctx, name)
		if err != nil {
			p.repository = repository
			r.unlisted(run, p, fmt.Errorf("the tags of %s: %w", name, err), now)
			return
		}
		images = r.listed(run, p, name, tags)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, image := range images {
		now[image] = kept{Listed: run.Began.UTC().Truncate(time.Second), Digest: r.choice[image].Digest}
	}
}

// listed chooses from the tags of a repository.
func (r *runner) listed(run *Run, p pattern, name string, tags []string) (images []string) {
	c := r.choose(p, tags)
	for _, tag := range c.tags {
		images = append(images, name+":"+tag)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for why, n := range c.leftOut {
		if run.LeftOut == nil {
			run.LeftOut = map[string]int{}
		}
		run.LeftOut[why] += n
	}
	return images
}

// unlisted adds what was chosen before of a list that cannot be had, and notes why
// that is.
func (r *runner) unlisted(run *Run, p pattern, err error, now choice) {
	before := choice{}
	r.mu.Lock()
	for image, k := range r.choice {
		if _, listed := now[image]; !listed && p.has(image) {
			before[image] = k
		}
	}
	r.mu.Unlock()
	maps.Copy(now, before)
	if len(before) == 0 {
		r.listFailed(run, fmt.Errorf("%w; none of it was chosen before", err))
		return
	}
	r.listFailed(run, fmt.Errorf("%w; images that stay chosen as of %s: %d", err, before.oldest().Format(time.RFC3339), len(before)))
}

func (r *runner) listFailed(run *Run, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run.fail(err)
}

// chosen returns the images that were chosen last.
func (r *runner) chosen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.choice))
}

// digests returns what images are that were chosen last, as far as they were here.
func (r *runner) digests() map[string]digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]digest.Digest{}
	for image, k := range r.choice {
		if k.Digest != "" {
			all[image] = k.Digest
		}
	}
	return all
}

// keep writes down what is chosen, if that has changed.
func (r *runner) keep() {
	if r.s.chosen.dir == "" {
		return
	}
	r.mu.Lock()
	text, err := json.Marshal(choiceFile{choiceVersion, r.names(), r.choice})
	r.mu.Unlock()
	now := digest.FromBytes(text)
	if err != nil || now == r.written { // err: of no JSON, which this is
		return
	}
	r.s.keep(r.Name, text)
	r.written = now
}
