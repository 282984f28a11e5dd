package main

import (
	"fmt"

	"shoal/p2p/swarmkey"
)

type swarmKeyCmd struct {
	New swarmKeyNewCmd `cmd:"" help:"Print a new swarm key."`
}

type swarmKeyNewCmd struct{}

// Help shows examples.
func (swarmKeyNewCmd) Help() string {
	return `Whoever has the key is a member: keep the file readable by the node only, and copy it to every member over a safe channel.

    $ (umask 077; shoal swarm-key new > swarm.key)
    $ shoal serve --swarm-key swarm.key

To replace a key without an interruption, go through all members three times: append the new key's last line to the file and restart; move that line up to the first place and restart; delete the old line and restart.`
}

// Run prints a key file.
func (swarmKeyNewCmd) Run(env environment) error {
	_, err := fmt.Fprint(env.stdout, string(swarmkey.New().Text()))
	return err
}
