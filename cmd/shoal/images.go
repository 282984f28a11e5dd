package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/blobcache/images"
	"shoal/cmd/shoal/internal/admin"
	"shoal/proxy/request"
)

// cacheVerbs are what the operator can do with the cache.
func (s *service) cacheVerbs() admin.CacheVerbs {
	return admin.CacheVerbs{List: s.listImages, Pin: s.pinImages, Remove: s.removeImages, Prune: s.pruneImages, Verify: s.verifyImages, Export: s.exportImages, Import: s.importImages}
}

// collection is what the cache has at a moment.
type collection struct {
	blobcache.Inventory
	images.Set
	pins map[string]digest.Digest
}

func (s *service) collect() collection {
	in := s.cache.Inventory()
	return collection{Inventory: in, Set: images.Find(in.Blobs, s.cache.Names()), pins: s.cache.Pins()}
}

// pinned tells whether img is, by one of its names or its digest.
func (c collection) pinned(img images.Image) bool {
	for _, d := range c.pins {
		if d == img.Manifest.Digest {
			return true
		}
	}
	return false
}

// listImages is what "shoal cache ls" shows.
func (s *service) listImages() admin.Images {
	c := s.collect()
	list := admin.Images{Images: []admin.Image{}, Pins: slices.AppendSeq([]string{}, maps.Keys(c.pins)), Shared: c.Shared, Partial: c.Partial, Bytes: c.Used, Budget: s.budget}
	slices.Sort(list.Pins)
	for _, img := range c.Images {
		list.Images = append(list.Images, admin.Image{
			Names: append([]string{}, img.Names...), Digest: img.Manifest.Digest.String(), Blobs: len(img.Blobs), Size: img.Size, Unique: img.Unique,
			Used: img.Used, InUse: img.InUse, Pinned: c.pinned(img), Missing: img.Missing,
		})
	}
	list.Loose.Blobs = len(c.Loose)
	for _, b := range c.Loose {
		list.Loose.Size += b.Size
	}
	return list
}

// parseImage reads the name of an image.
func parseImage(name string) (request.Image, error) {
	i, err := request.ParseImage(name)
	if err != nil {
		err = fmt.Errorf("%w: %w", admin.ErrRefused, err)
	}
	return i, err
}

// find returns the images that a name means, at least one.
func (c collection) find(name string) (i request.Image, found []images.Image, err error) {
	if i, err = parseImage(name); err != nil {
		return i, nil, err
	}
	for _, img := range c.Images {
		if len(names(img, i)) > 0 {
			found = append(found, img)
		}
	}
	if len(found) == 0 {
		err = fmt.Errorf("%w: %s is not in the cache: \"shoal cache ls\" shows what is", admin.ErrRefused, i)
	}
	return i, found, err
}

// pinImages pins or unpins.
func (s *service) pinImages(_ context.Context, ask admin.Pin) (admin.Pinned, error) {
	done := admin.Pinned{Images: []string{}, Absent: []string{}}
	var wanted []string
	for _, name := range ask.Images {
		i, err := parseImage(name)
		if err == nil && i.Tag == "" && i.Digest == "" {
			err = fmt.Errorf("%w: %s is a whole repository: name a tag or a digest", admin.ErrRefused, i)
		}
		if err != nil {
			return done, err
		}
		wanted = append(wanted, i.String())
	}
	for _, name := range wanted {
		var present bool
		var err error
		if ask.Unpin {
			present, err = s.cache.Unpin(name)
		} else if err = s.cache.Pin(name); err == nil {
			_, present = s.cache.Stat(s.cache.Pins()[name])
		}
		if err != nil {
			return done, err
		}
		done.Images = append(done.Images, name)
		if !present {
			done.Absent = append(done.Absent, name)
		}
		s.log.Info("pin", "image", name, "unpin", ask.Unpin)
	}
	return done, nil
}

// tagsFirst returns the tags among names, or if there are none all of them.
func tagsFirst(names []string) []string {
	tags := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.Contains(n, "@") })
	if len(tags) > 0 {
		return tags
	}
	return append([]string{}, names...)
}

// names returns those of img that i means.
func names(img images.Image, i request.Image) []string {
	repository := i.Registry + "/" + i.Name
	if i.Digest != "" {
		if img.Manifest.Digest != i.Digest {
			return nil
		}
		return append(slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool {
			return !strings.HasPrefix(n, repository+":") && !strings.HasPrefix(n, repository+"@")
		}), i.String())
	}
	return slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool {
		return n != i.String() && (i.Tag != "" || !strings.HasPrefix(n, repository+":") && !strings.HasPrefix(n, repository+"@"))
	})
}

// removeImages removes names, and the images that have no other name. What others
// need stays.
func (s *service) removeImages(_ context.Context, ask admin.Remove) (admin.Removed, error) {
	c := s.collect()
	going, hit := map[string]bool{}, map[digest.Digest]bool{}
	for _, name := range ask.Images {
		i, found, err := c.find(name)
		if err != nil {
			return admin.Removed{}, err
		}
		for _, img := range found {
			hit[img.Manifest.Digest] = true
			for _, n := range names(img, i) {
				going[n] = true
			}
		}
	}
	for n := range going {
		if _, pinned := c.pins[n]; pinned {
			return admin.Removed{}, fmt.Errorf("%w: %s is pinned: \"shoal cache unpin %s\" first", admin.ErrRefused, n, n)
		}
	}
	blobs := c.Without(func(img images.Image) bool {
		return hit[img.Manifest.Digest] && !slices.ContainsFunc(img.Names, func(n string) bool { return !going[n] })
	})
	switch trial := s.cache.Remove(blobs, time.Time{}, true); {
	case trial.Busy > 0:
		return admin.Removed{}, fmt.Errorf("%w: somebody reads it just now: try again when that has ended", admin.ErrRefused)
	case trial.Pinned > 0:
		return admin.Removed{}, fmt.Errorf("%w: it is pinned by another name: \"shoal cache ls\" shows which", admin.ErrRefused)
	}
	return s.remove(blobs, slices.Sorted(maps.Keys(going)), time.Time{}, ask.DryRun)
}

// pruneImages removes the images that were not used for some time, and blobs of
// none.
func (s *service) pruneImages(_ context.Context, ask admin.Prune) (admin.Removed, error) {
	if !(ask.UnusedFor > 0 && ask.UnusedFor < 1e10) {
		return admin.Removed{}, fmt.Errorf("%w: say for how many seconds nobody used what is to go", admin.ErrRefused)
	}
	before := time.Now().Add(-time.Duration(ask.UnusedFor * float64(time.Second)))
	c := s.collect()
	var going []string
	blobs := c.Without(func(img images.Image) bool {
		if img.InUse || c.pinned(img) || !img.Used.Before(before) {
			return false
		}
		going = append(going, img.Names...)
		return true
	})
	for _, b := range c.Loose {
		blobs = append(blobs, b.Digest)
	}
	done, err := s.remove(blobs, going, before, ask.DryRun)
	partial := s.cache.DropPartials(before, ask.DryRun)
	done.Blobs += partial.Blobs
	done.Bytes += partial.Bytes
	return done, err
}

// remove removes blobs, and forgets names and what tags of them were.
func (s *service) remove(blobs []digest.Digest, going []string, before time.Time, dryRun bool) (admin.Removed, error) {
	r := s.cache.Remove(blobs, before, dryRun)
	done := admin.Removed{Images: append([]string{}, going...), Blobs: r.Blobs, Bytes: r.Bytes, DryRun: dryRun}
	if dryRun {
		return done, nil
	}
	gone := map[digest.Digest]bool{}
	for _, d := range blobs {
		_, here := s.cache.Stat(d)
		gone[d] = !here
	}
	for _, n := range s.cache.Names() {
		if gone[n.Manifest] && !slices.Contains(going, n.Image) {
			going = append(going, n.Image)
		}
	}
	for _, name := range going {
		if err := s.cache.ForgetName(name); err != nil {
			return done, err
		}
		if i, err := request.ParseImage(name); err == nil && i.Tag != "" {
			if _, err := s.proxy.Forget(i); err != nil {
				return done, err
			}
		}
	}
	s.log.Info("removed from the cache", "images", len(done.Images), "blobs", r.Blobs, "bytes", r.Bytes)
	return done, nil
}

// verifyEvery is the time between two words on how far a verification is.
const verifyEvery = time.Second

// verifyImages proves the blobs of images, or all, from the disk.
func (s *service) verifyImages(ctx context.Context, ask admin.Verify, tell func(admin.Verified)) error {
	c := s.collect()
	wanted := map[digest.Digest]bool{}
	for _, name := range ask.Images {
		_, found, err := c.find(name)
		if err != nil {
			return err
		}
		for _, img := range found {
			for _, d := range img.Blobs {
				wanted[d] = true
			}
		}
	}
	v := admin.Verified{Rotten: []admin.Rotten{}}
	var blobs []images.Blob
	for _, b := range c.Blobs {
		if len(ask.Images) == 0 || wanted[b.Digest] {
			blobs = append(blobs, b)
			v.OfBlobs, v.OfBytes = v.OfBlobs+1, v.OfBytes+b.Size
		}
	}
	pace, told := blobcache.Pace(ask.Rate), time.Now()
	for _, b := range blobs {
		err := s.cache.Scrub(ctx, b.Digest, pace)
		switch {
		case errors.Is(err, blob.ErrCorrupt):
			v.Rotten = append(v.Rotten, admin.Rotten{Digest: b.Digest.String(), Images: tagsFirst(s.cache.Holders(b.Digest))})
		case err != nil && !errors.Is(err, blob.ErrNotFound): // which went meanwhile
			return err
		}
		v.Blobs, v.Bytes = v.Blobs+1, v.Bytes+b.Size
		if time.Since(told) > verifyEvery {
			told = time.Now()
			tell(v)
		}
	}
	v.Done = true
	tell(v)
	return nil
}
