package admin

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Status is the answer of /api/v1/status. Fields are added, never renamed or
// removed. Counters start at zero with the process.
type Status struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	// Joined is whether a member is connected.
	Joined bool `json:"joined"`
	// Offline is whether no registry is asked.
	Offline bool `json:"offline"`
	// Peers is the number of connected members, and Members lists them.
	Peers   int      `json:"peers"`
	Members []Member `json:"members"`
	// Addrs are this node's own, ready for --join elsewhere.
	Addrs  []string `json:"addrs"`
	Mirror string   `json:"mirror"`
	// Socket is where programs on its machine hand files over, see package
	// handover; empty if they cannot.
	Socket string  `json:"socket,omitempty"`
	Zone   string  `json:"zone"`
	Bytes  Bytes   `json:"bytes"`
	Cache  Cache   `json:"cache"`
	Fills  []Fill  `json:"fills"`
	Limits []Limit `json:"limits"`
	// Reachability is how others reach this node.
	Reachability Reachability `json:"reachability"`
}

// Reachability is how others reach a node.
type Reachability struct {
	BehindNAT bool `json:"behind_nat"` // others cannot dial it from outside its network
	// Relays are its addresses over relays.
	Relays   []string `json:"relays"`
	Relaying Relaying `json:"relaying"`
}

// Relaying is what a node relays between others.
type Relaying struct {
	Enabled      bool  `json:"enabled"`
	Bytes        int64 `json:"bytes"`        // since its start
	Circuits     int   `json:"circuits"`     // now
	Reservations int   `json:"reservations"` // now
}

// Member is a connected member of the swarm.
type Member struct {
	ID   string `json:"id"`
	Addr string `json:"addr,omitempty"`
	Zone string `json:"zone,omitempty"`
	// Way is how it is reached: direct, inbound (over the connection that it
	// opened), hole-punched, relayed; empty if it is not connected.
	Way string `json:"way,omitempty"`
}

// Bytes are totals since the start of the process.
type Bytes struct {
	Origin        int64 `json:"origin"`         // taken from upstream registries, manifests included
	Peers         int64 `json:"peers"`          // taken from members
	OtherZones    int64 `json:"other_zones"`    // of these, from members of other zones
	CacheHits     int64 `json:"cache_hits"`     // asked for and found whole in the cache
	ServedClients int64 `json:"served_clients"` // sent to container runtimes
	ServedPeers   int64 `json:"served_peers"`   // sent to members
}

// Cache is the state of the blob cache.
type Cache struct {
	Bytes  int64 `json:"bytes"`
	Budget int64 `json:"budget"`
	Blobs  int64 `json:"blobs"`
}

// Fill is a blob that is being fetched.
type Fill struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"` // in bytes
	Pieces int    `json:"pieces"`
	Done   int    `json:"done"` // pieces that are here
	// Members is how many take part; bytes come from the registry or from them.
	Members    int   `json:"members"`
	FromOrigin int64 `json:"from_origin"`
	FromPeers  int64 `json:"from_peers"`
}

// addMetrics sets what the metrics registry knows.
func (s *Status) addMetrics(g prometheus.Gatherer) error {
	families, err := g.Gather()
	if err != nil {
		return fmt.Errorf("gather: %w", err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	s.Bytes = Bytes{
		Origin:        sum(byName["shoal_upstream_bytes_total"], "", ""),
		Peers:         sum(byName["shoal_p2p_fetched_bytes_total"], "source", "peers"),
		OtherZones:    sum(byName["shoal_p2p_other_zone_bytes_total"], "", ""),
		CacheHits:     sum(byName["shoal_proxy_served_bytes_total"], "source", "cache"),
		ServedClients: sum(byName["shoal_proxy_served_bytes_total"], "", ""),
		ServedPeers:   sum(byName["shoal_p2p_served_bytes_total"], "", ""),
	}
	s.Cache.Bytes = sum(byName["shoal_cache_bytes"], "", "")
	s.Cache.Blobs = sum(byName["shoal_cache_blobs"], "", "")
	return nil
}

// sum adds up the counters and gauges of a family whose label has the value,
// or all of them if label is "". A family that counted nothing yet is missing.
func sum(f *dto.MetricFamily, label, value string) int64 {
	var total float64
	for _, m := range f.GetMetric() {
		match := label == ""
		for _, l := range m.GetLabel() {
			match = match || l.GetName() == label && l.GetValue() == value
		}
		if match {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return int64(total)
}
