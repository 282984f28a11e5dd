//go:build linux

package main

import (
	"context"
	"path/filepath"
	"strings"
	"sync"

	"shoal/cmd/shoal/e2e/testhost"
)

// preheat is shoal whose nodes fetch because the first one's operator says so, and
// no client asks.
type preheat struct{ shoal }

func (preheat) name() string { return "preheat" }

func (p preheat) versions(context.Context) map[string]string {
	return map[string]string{p.name(): p.commit}
}

// crew makes a key that all nodes trust.
func (p preheat) crew(ctx context.Context, st *stage) (crew, error) {
	c := &preheatCrew{shoalCrew: &shoalCrew{stage: st}, key: filepath.Join(st.dir, "signing.key")}
	public, err := st.nodes[0].Run(ctx, testhost.Command{Path: st.shoal, Args: []string{"key", "new", c.key}})
	if err != nil {
		return nil, err
	}
	c.relay, c.members, err = st.shoals(ctx, "--trusted-keys", strings.TrimSpace(public))
	c.all = sync.OnceValue(func() error {
		_, err := st.nodes[0].Run(ctx, testhost.Command{Path: st.shoal, Args: []string{
			"preheat", "--signing-key", c.key, "--wait", st.image.repository + ":" + tag,
		}})
		return err
	})
	return c, err
}

// preheatCrew is a node on every machine.
type preheatCrew struct {
	*shoalCrew
	key string
	all func() error // has all nodes fetch, once
}

func (c *preheatCrew) pull(context.Context, int) error { return c.all() }
