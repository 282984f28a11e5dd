package admin

import "time"

// Peers is the answer of /api/v1/peers. Fields are added, never renamed or
// removed.
type Peers struct {
	Peers []Peer `json:"peers"`
}

// Peer is a member that the node is connected to, traded with since its start,
// banned, or not waited for.
type Peer struct {
	Member
	Version   string `json:"version,omitempty"`
	Connected bool   `json:"connected"`
	// RoundTrip is in seconds; zero if no connection was opened to it.
	RoundTrip float64 `json:"round_trip"`
	Taken     Traffic `json:"taken"` // from it
	Given     Traffic `json:"given"` // to it
	Ban       *Ban    `json:"ban,omitempty"`
	// Slow and Silent are until when nobody waits for it, because it was slower
	// than a registry or did not answer.
	Slow   time.Time `json:"slow_until,omitzero"`
	Silent time.Time `json:"silent_until,omitzero"`
}

// Traffic is what went in one direction.
type Traffic struct {
	Bytes int64   `json:"bytes"`
	Blobs int64   `json:"blobs"` // that the bytes belong to
	Rate  float64 `json:"rate"`  // of the last run of pieces, in bytes a second
	// Last is when that run ended; zero if there was none.
	Last time.Time `json:"last,omitzero"`
}

// Ban is why a member is left alone, and until when.
type Ban struct {
	About string    `json:"about"` // what it lied about
	Until time.Time `json:"until"`
}
