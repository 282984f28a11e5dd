package pull

import "time"

// Version is that of the format of a Report. Fields are added, never renamed or
// removed, within one.
const Version = 1

// Summary is what a table shows of a pull.
type Summary struct {
	Version  int       `json:"version"`
	ID       int       `json:"id"`
	Image    string    `json:"image"`
	Platform string    `json:"platform,omitempty"`
	Client   string    `json:"client"` // its address and the first word of its User-Agent
	Began    time.Time `json:"began"`
	// Seconds are from the first request to the last byte.
	Seconds float64 `json:"seconds"`
	Result  Result  `json:"result"`
	Error   string  `json:"error,omitempty"`
	// Bytes went out to the client; the others are where those came from. Of
	// what was fetched and not asked for, or twice, more came.
	Bytes      int64 `json:"bytes"`
	FromOrigin int64 `json:"from_origin"`
	FromPeers  int64 `json:"from_peers"`
	FromCache  int64 `json:"from_cache"`
	// Bound is how many seconds it would have taken if every source had given, and
	// the client had taken, all the time at the rate that was seen of it; zero if
	// nothing was seen. Ratio is Seconds/Bound.
	Bound float64 `json:"bound"`
	Ratio float64 `json:"ratio"`
	// Bottleneck is what most of the time was waited for, Why the sentence.
	Bottleneck Cause  `json:"bottleneck"`
	Why        string `json:"why"`
}

// Result is how a pull ended.
type Result string

// The results.
const (
	OK      Result = "ok"
	Failed  Result = "failed"
	Aborted Result = "aborted" // by the client
)

// Cause is something that is waited for.
type Cause string

// The causes.
const (
	Lookup   Cause = "lookup"  // until somebody was found to ask
	Connect  Cause = "connect" // until who was asked gave a first byte
	Registry Cause = "origin"  // while the registry was asked
	Peers    Cause = "peers"   // while members were asked
	Proof    Cause = "proof"   // until all was proven
	Disk     Cause = "disk"    // while pieces were written, or read
	Client   Cause = "client"  // while the client did not take more
	Idle     Cause = "idle"    // while the client asked for nothing
)

// Causes returns all, in the order of a pull.
func Causes() []Cause { return []Cause{Lookup, Connect, Registry, Peers, Proof, Disk, Client, Idle} }

// Report is all of a pull. Times are in seconds since its begin.
type Report struct {
	Summary
	Sources []Source `json:"sources"`
	Zones   []Zone   `json:"zones"` // of members
	Waits   []Wait   `json:"waits"` // they add up to Seconds; the longest first
	Rows    []Row    `json:"rows"`
	// Flow is what came from each of the Sources over the whole pull.
	Flow Flow `json:"flow"`
}

// SourceKind says what a source is.
type SourceKind string

// The kinds.
const (
	OriginSource SourceKind = "origin"
	PeerSource   SourceKind = "peer"
	CacheSource  SourceKind = "cache" // of this node
)

// Source is where bytes came from.
type Source struct {
	Kind  SourceKind `json:"kind"`
	Name  string     `json:"name"` // registry and repository, peer ID, or "others"
	Zone  string     `json:"zone,omitempty"`
	Bytes int64      `json:"bytes"`
	// Rate is in bytes a second, over the Busy share of the pull in which it was
	// asked for something. Of the cache neither is known.
	Rate float64 `json:"rate,omitempty"`
	Busy float64 `json:"busy,omitempty"`
}

// Zone is how much came from the members of a zone.
type Zone struct {
	Zone  string `json:"zone"`
	Bytes int64  `json:"bytes"`
}

// Wait is how long something was waited for.
type Wait struct {
	For     Cause   `json:"for"`
	Seconds float64 `json:"seconds"`
}

// Row is a manifest or a blob. What did not happen is left out.
type Row struct {
	Kind     string `json:"kind"`
	Digest   string `json:"digest,omitempty"`
	Size     int64  `json:"size"`
	Sent     int64  `json:"sent"` // to the client
	Requests int    `json:"requests"`
	// The client asked at Start, had the first byte at First and the last at End.
	Start float64  `json:"start"`
	First *float64 `json:"first,omitempty"`
	End   float64  `json:"end"`
	// The node fetched it from Fetched to Proven, when all of it was. What began
	// before the pull did is below zero.
	Fetched *float64 `json:"fetched,omitempty"`
	Proven  *float64 `json:"proven,omitempty"`
	Result  Result   `json:"result"`
	Error   string   `json:"error,omitempty"`
	From    []Share  `json:"from"`
	// Flow is what came from each of From, since Fetched.
	Flow Flow `json:"flow"`
}

// Share is how much of a row came from one of the report's Sources.
type Share struct {
	Source int   `json:"source"`
	Bytes  int64 `json:"bytes"`
}

// Flow is bytes over time, in steps of so many seconds: a list for each source.
type Flow struct {
	Step float64   `json:"step,omitempty"`
	Came [][]int64 `json:"came,omitempty"`
}
