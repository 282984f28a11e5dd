package exchange

import (
	"testing"

	"shoal/proxy/origin/origintest"
)

// Members that begin at the same moment give each other what they take from the
// origin, before any of them can prove it.
func TestColdCrowdTrades(t *testing.T) {
	data := content(1, 32*mib+1)
	reg := newRegistry(t, origintest.Options{UplinkBitsPerSecond: 128 << 20}, data)
	members := newMesh(t).crowd(4)
	pullAll(members, reg.d, reg.src)
	var fetched int64
	for _, m := range members {
		fetched += m.metric("shoal_p2p_fetched_bytes_total", "peers")
		m.lawful()
	}
	if fetched == 0 || reg.gave() > 3*reg.d.Size {
		t.Errorf("members gave %d bytes, the origin %d of %d", fetched, reg.gave(), reg.d.Size)
	}
}
