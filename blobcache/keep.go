package blobcache

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/blobcache/images"
)

// namePrefix is what the names of images have in front among the tags, where no
// registry can be: they are what clients called what they got here, and answer no
// question about a tag.
const namePrefix = "name "

// nameRewritten is by how much the time of a name on disk may be too early.
const nameRewritten = time.Minute

func nameKey(image string) string { return namePrefix + image + "\n" }

// KeepName notes that the manifest d is called image, REGISTRY/NAME:TAG or
// REGISTRY/NAME@DIGEST. It need not be here; once it is, or is on its way, a pin
// of any name that it has is one of it.
func (c *Cache) KeepName(image string, d blob.Descriptor) {
	kept, ok := c.Tag(nameKey(image))
	if age := time.Since(kept.At); !ok || kept.Manifest.Digest != d.Digest || age < 0 || age > nameRewritten {
		c.KeepTag(nameKey(image), Tag{Manifest: d, At: time.Now()})
	}
	for pin, to := range c.Pins() {
		if to == d.Digest || c.named(pin) != d.Digest {
			continue
		}
		c.mu.Lock()
		if _, still := c.pins[pin]; still && (c.blobs[d.Digest] != nil || c.filling(d.Digest)) {
			c.pins[pin] = d.Digest
			c.keptSet = nil
		}
		c.mu.Unlock()
	}
}

// Names returns what manifests were had as, those included that are gone.
func (c *Cache) Names() []images.Name {
	var all []images.Name
	for key, t := range c.Tags(namePrefix) {
		all = append(all, images.Name{Image: strings.TrimSuffix(strings.TrimPrefix(key, namePrefix), "\n"), Manifest: t.Manifest.Digest})
	}
	return all
}

// Holders returns the names of images that lead to d, itself included.
func (c *Cache) Holders(d digest.Digest) []string {
	up := map[digest.Digest]bool{}
	c.mu.Lock()
	climb := images.Links{Refs: func(d digest.Digest) []digest.Digest { return slices.Collect(maps.Keys(c.parents[d])) }}
	for _, p := range climb.All(d) {
		up[p] = true
	}
	c.mu.Unlock()
	var names []string
	for _, n := range c.Names() {
		if up[n.Manifest] {
			names = append(names, n.Image)
		}
	}
	slices.Sort(names)
	return names
}

// ForgetName forgets a name. It is on disk with the next flush.
func (c *Cache) ForgetName(image string) error {
	_, err := c.meta.DeleteTags(nameKey(image), func(Tag) bool { return true })
	return err
}

// Pin keeps what is had as image, now and later, until Unpin: it is never
// evicted. It is on disk when it returns.
func (c *Cache) Pin(image string) error {
	d := c.named(image)
	c.mu.Lock()
	c.pins[image] = d
	c.keptSet = nil
	c.meta.Pin(image, true)
	c.mu.Unlock()
	return c.meta.Flush()
}

// Unpin takes back Pin, and tells whether there was one.
func (c *Cache) Unpin(image string) (bool, error) {
	c.mu.Lock()
	_, pinned := c.pins[image]
	delete(c.pins, image)
	c.keptSet = nil
	if pinned {
		c.meta.Pin(image, false)
	}
	c.mu.Unlock()
	return pinned, c.meta.Flush()
}

// Pins returns the names that are pinned, with their manifests, which are empty
// if nothing was had under the name yet.
func (c *Cache) Pins() map[string]digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]digest.Digest, len(c.pins))
	for image, d := range c.pins {
		all[image] = d
	}
	return all
}

func (c *Cache) loadPins() error {
	names, err := c.meta.Pins()
	if err != nil {
		return err
	}
	for _, image := range names {
		c.pins[image] = c.named(image)
	}
	return nil
}

// named returns the manifest that was had as image, "" if none was.
func (c *Cache) named(image string) digest.Digest {
	if _, d, ok := strings.Cut(image, "@"); ok {
		return digest.Digest(d)
	}
	t, _ := c.Tag(nameKey(image))
	return t.Manifest.Digest
}

// kept returns the blobs of pinned images. The caller holds mu.
func (c *Cache) kept() map[digest.Digest]bool {
	if c.keptSet == nil {
		c.keptSet = map[digest.Digest]bool{}
		for _, root := range c.pins {
			for _, d := range c.links().All(root) {
				c.keptSet[d] = true
			}
		}
	}
	return c.keptSet
}

// keptBytes are those of pinned images that nobody uses just now. The caller
// holds mu.
func (c *Cache) keptBytes() (n int64) {
	for d := range c.kept() {
		if e := c.blobs[d]; e != nil && e.pins == 0 {
			n += e.bytes
		}
	}
	return n
}
