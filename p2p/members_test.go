package p2p

import (
	"testing"

	"shoal/p2p/swarmkey"
)

func TestMembersAreListed(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	if m := a.Members(); len(m) != 0 {
		t.Errorf("alone: %v", m)
	}
	o := testOptions(t, key, a)
	o.Zone, o.Version = "here", "v7"
	b, stop := start(t, o)
	eventually(t, "a lists b with what it said", func() bool {
		m := a.Members()
		return len(m) == 1 && m[0].Peer == b.ID() && m[0].Addr != nil && m[0].Zone == "here" && m[0].Version == "v7"
	})
	stop()
	eventually(t, "b is gone", func() bool { return len(a.Members()) == 0 })
}
