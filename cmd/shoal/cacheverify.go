package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

type cacheVerifyCmd struct {
	Images []string `arg:"" optional:"" name:"image" help:"Images by tag, digest or repository. Default: all that is in the cache."`
	config.Admin
	config.Common
	Rate string `placeholder:"RATE" env:"SHOAL_RATE" help:"Bytes a second to read at most: 20MB, ... Default: as fast as the disk."`
	JSON bool   `name:"json" env:"SHOAL_JSON" help:"Print the answer as JSON."`
}

// errRotten is for scripts, and comes when all is done.
var errRotten = errors.New("blobs on the disk were not what they had been: dropped, and fetched again where somebody has them; look at the disk")

// Help shows examples.
func (cacheVerifyCmd) Help() string {
	return `    $ shoal cache verify
    412 blobs, 18.3GiB: all are what they were
    $ shoal cache verify --rate 20MB nginx:1.27

Each blob is read from the disk, past the memory that holds files, and compared with its digest. One that has rotted is dropped and fetched again, from the swarm or the registry. If there was one the exit code is 1. The node does this by itself, at scrub-rate, for each blob that was not proven for scrub-every.`
}

// Run asks the node to verify and shows how far it is.
func (c cacheVerifyCmd) Run(env environment) error {
	addr, err := nodeAddr(env, c.Admin, c.Common)
	if err != nil {
		return err
	}
	ask := admin.Verify{Images: c.Images}
	if c.Rate != "" {
		if ask.Rate, err = config.ParseRate(c.Rate); err != nil {
			return &config.Error{Where: "--rate", Err: err}
		}
	}
	progress := func(v admin.Verified) {
		if isTerminal(env.stdout) && !c.JSON {
			_, _ = fmt.Fprintf(env.stdout, "\r%s %s of %s ", bar(float64(v.Bytes)/float64(max(1, v.OfBytes))), size(v.Bytes), size(v.OfBytes)) // it is only to look at
		}
	}
	v, err := ask.Do(env.ctx, addr, progress)
	if err != nil {
		return verbError(addr, err)
	}
	if err := c.print(env, v); err != nil {
		return err
	}
	if len(v.Rotten) > 0 {
		return errRotten
	}
	return nil
}

func (c cacheVerifyCmd) print(env environment, v admin.Verified) error {
	if c.JSON {
		return json.NewEncoder(env.stdout).Encode(v)
	}
	if isTerminal(env.stdout) {
		_, _ = fmt.Fprintln(env.stdout) // the line of the bar
	}
	for _, r := range v.Rotten {
		of := ""
		if len(r.Images) > 0 {
			of = " of " + strings.Join(r.Images, ", ")
		}
		if _, err := fmt.Fprintf(env.stdout, "rotten: %s%s\n", r.Digest, of); err != nil {
			return err
		}
	}
	outcome := "all are what they were"
	if len(v.Rotten) > 0 {
		outcome = fmt.Sprintf("%d had rotted", len(v.Rotten))
	}
	_, err := fmt.Fprintf(env.stdout, "%s, %s: %s\n", count(v.Blobs, "blob"), size(v.Bytes), outcome)
	return err
}
