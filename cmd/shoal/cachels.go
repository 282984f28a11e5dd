package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

type cacheLsCmd struct {
	config.Admin
	config.Common
	JSON bool `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/cache: sizes in bytes."`
}

// Help shows examples.
func (cacheLsCmd) Help() string {
	return `    $ shoal cache ls
    IMAGE                          DIGEST               SIZE       USED            STATE
    docker.io/library/nginx:1.27   sha256:0a399eb16751  72.03MiB   2 minutes ago   pinned
    $ shoal cache ls --json | jq -r '.images[] | select(.missing > 0) | .names[]'

An image is listed by its tags, or, if it was pulled by digest only, by that. Those that were used last come first: a pull and a HEAD of a manifest are uses. STATE: "pinned" is never evicted, "in use" is being read or pulled, "incomplete" has blobs that are not here, and are fetched at the next pull.`
}

// Run asks the node and prints the answer.
func (c cacheLsCmd) Run(env environment) error {
	return lookAtCache(env, c.Admin, c.Common, c.JSON, printImages)
}

type cacheDuCmd struct {
	config.Admin
	config.Common
	JSON bool `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/cache: sizes in bytes."`
}

// Help shows examples.
func (cacheDuCmd) Help() string {
	return `    $ shoal cache du
    $ shoal cache du --json | jq .bytes

UNIQUE is what removing the image would free, SHARED what other images have, too. Those that would free most come first. Loose blobs are those of no image that is known: what is left of images whose manifest went, or was never pulled.`
}

// Run asks the node and prints the answer.
func (c cacheDuCmd) Run(env environment) error {
	return lookAtCache(env, c.Admin, c.Common, c.JSON, printUsage)
}

func lookAtCache(env environment, a config.Admin, common config.Common, raw bool, show func(io.Writer, time.Time, admin.Images) error) error {
	addr, err := nodeAddr(env, a, common)
	if err != nil {
		return err
	}
	return look(env, false, raw, asker(addr, admin.FetchImages), func(out io.Writer, now, _ glance[admin.Images]) error {
		return show(out, now.at, now.said)
	})
}

// printImages writes a table for people.
func printImages(out io.Writer, now time.Time, list admin.Images) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "IMAGE\tDIGEST\tSIZE\tUSED\tSTATE") // Flush tells, here and below
	pins := slices.Clone(list.Pins)
	for _, img := range list.Images {
		for _, name := range namesText(img) {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, short(img.Digest), size(img.Size), sinceText(now, img.Used), imageState(img))
			pins = slices.DeleteFunc(pins, func(p string) bool { return p == name })
		}
	}
	for _, name := range pins {
		if !slices.ContainsFunc(list.Images, func(i admin.Image) bool { return strings.HasSuffix(name, "@"+i.Digest) }) {
			_, _ = fmt.Fprintf(w, "%s\t-\t-\t-\tpinned, not here\n", name)
		}
	}
	return w.Flush()
}

// namesText returns what to call an image: by its digest if it has no name.
func namesText(img admin.Image) []string {
	if len(img.Names) == 0 {
		return []string{"-"}
	}
	return img.Names
}

func imageState(img admin.Image) string {
	var states []string
	for state, is := range map[string]bool{"pinned": img.Pinned, "in use": img.InUse, "incomplete": img.Missing > 0} {
		if is {
			states = append(states, state)
		}
	}
	slices.Sort(states)
	return cmp.Or(strings.Join(states, ", "), "-")
}

func sinceText(now, then time.Time) string {
	return strings.ToLower(units.HumanDuration(max(0, now.Sub(then)))) + " ago"
}

// printUsage writes a table for people.
func printUsage(out io.Writer, _ time.Time, list admin.Images) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	images := slices.SortedStableFunc(slices.Values(list.Images), func(a, b admin.Image) int { return cmp.Compare(b.Unique, a.Unique) })
	_, _ = fmt.Fprintln(w, "IMAGE\tBLOBS\tSIZE\tUNIQUE\tSHARED") // Flush tells, here and below
	unique := int64(0)
	for _, img := range images {
		unique += img.Unique
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", usageName(img), img.Blobs, size(img.Size), size(img.Unique), size(img.Size-img.Unique))
	}
	_, _ = fmt.Fprintf(w, "\n%s of %s used: %s of single images, %s shared, %s in %s, %s not whole yet\n", size(list.Bytes), size(list.Budget),
		size(unique), size(list.Shared), size(list.Loose.Size), count(list.Loose.Blobs, "loose blob"), size(list.Partial))
	return w.Flush()
}

// usageName is one name for an image: it takes its room once.
func usageName(img admin.Image) string {
	switch n := len(img.Names); n {
	case 0:
		return short(img.Digest)
	case 1:
		return img.Names[0]
	default:
		return fmt.Sprintf("%s (and %d more)", img.Names[0], n-1)
	}
}
