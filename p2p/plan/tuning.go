package plan

import "time"

// Tuning holds every number that decisions depend on.
type Tuning struct {
	// Requests is the number of requests in flight per member. Four streams
	// reach the line rate where one leaves a third of it unused between
	// requests (measured at 20 ms: 33 MB/s with one, 105 with four).
	Requests int
	// RunPieces is the longest run of a request, in pieces: 4 MiB are little
	// to fetch again, and enough to hide a round trip.
	RunPieces int
	// Ahead is the time that a member's requests in flight should last at its
	// measured rate. Half a second covers any round trip worth a swarm.
	Ahead time.Duration
	// Head is the number of pieces from the first missing one on that are
	// fetched in order: what a client reads in about a quarter of a second at
	// 1 Gbit/s.
	Head int
	// StallAfter without a byte, a request's pieces are given to somebody
	// else. Shorter waits mistake a lost packet or a busy machine for a dead
	// member; the cost of a frozen member is this.
	StallAfter time.Duration
	// LastPart of the pieces (one in so many) are waited for with LastPatience
	// times StallAfter, SilentAfter and StuckBy: everybody waits for these, and
	// fetching them twice costs little.
	LastPart     int
	LastPatience float64
	// DeadAfter without a byte, a request is cancelled.
	DeadAfter time.Duration
	// OriginDeadAfter is the same for the origin: registries may take seconds
	// to begin an answer, and there is only one of them.
	OriginDeadAfter time.Duration
	// Backoff is how long a member is left alone after its first failure; it
	// doubles up to BackoffMost.
	Backoff, BackoffMost time.Duration
	// TakeOver is how much sooner, on top of half the time, another member
	// must be expected to deliver a piece before it is asked for twice.
	TakeOver time.Duration
	// OriginRequests is the number of requests in flight to the origin: one
	// runs while the other's round trip passes. Where Abreast or more own runs,
	// each has one until it has FirstPart of the pieces (one in so many): what
	// the origin sends to fewer at a time is whole sooner, and given on.
	// Simulated, 1,000 nodes had a twentieth of the blob with 0.64 s of idle
	// links instead of 0.69. Later it would leave the origin idle: with one
	// request all the time 20 nodes need 0.2 s more.
	OriginRequests, Abreast, FirstPart int
	// OriginAhead is the time that the requests to the origin should last in a
	// crowd: several round trips, and as little as possible of what nobody can
	// help with in the end.
	OriginAhead time.Duration
	// AtOnce is how many pieces of a small blob, whose runs are of one piece, are
	// fetched from the origin at the same time, by all owners together. Twelve
	// nodes that fetched all eight of each of four layers had the first after
	// three seconds at 50 Mbit/s, and some of these requests had so little of the
	// link that they looked dead. With four of each of three layers a piece took
	// up to four seconds, still: medians of three runs of the lab, proven and
	// copies, 1.16 and 1.09 with four, 1.13 and 1.02 with three, 1.13 and 1.01
	// with two.
	AtOnce int
	// Owners is how many volunteers own runs: enough that one that dies or is
	// slow holds up little, and that their uplinks spread what comes in; few
	// enough that all know each other's claims. Simulated, 100 nodes had a
	// twentieth of the blob with 0.78 s of idle links among 8 owners, 0.55
	// among 16, and 1.1 among 4.
	Owners int
	// SilentAfter without a byte from the origin, a member owns nothing: five
	// pulses.
	SilentAfter time.Duration
	// LateBy is how much later than half as long again as this node would need
	// itself an owner may bring what it has not begun, and StuckBy how much
	// later than twice as long what it has begun. What is taken over without
	// need is fetched twice; what is late holds up everybody.
	LateBy, StuckBy time.Duration
	// Stagger is the time between one helper and the next: enough to hear what
	// the first has begun (10 ms between two messages, and the way). HelpEvery is
	// the same for those that relieve late owners: they find these late at
	// different moments. Twelve nodes whose second helper came after Stagger
	// began up to five pieces of 80 twice.
	Stagger, HelpEvery time.Duration
	// TurnEvery is the time between one owner and the next while only one is
	// to ask the origin, and TurnSmall the same for a blob of one piece: what
	// a lookup or a first answer takes on a bad day.
	TurnEvery, TurnSmall time.Duration
	// Spread is the number of pieces from the head on of which a node takes
	// its own first from members that many ask. A client reads no further
	// ahead in a second at 1 Gbit/s.
	Spread int
	// Crowd is the number of members with a part that make a crowd. In one,
	// CrowdPieces pieces are in flight from members together, one more for
	// every CrowdMembers members, and what arrives in a round trip. Every piece
	// more is one that waits at a link which all ask. Simulated, 100 nodes at
	// 1 Gbit/s with 8 owners, makespan and median over the bound: 8 pieces or
	// 100 ms, if that is more, 1.125 and 1.12; 7, 6 and 5 pieces 1.12 and
	// 1.105, 1.096, 1.089. A bound that grows with the rate lets the fast take
	// from the slow: 4 pieces or 60 ms 1.345 and 1.09. A bound that is the same
	// for all leaves volunteers behind, who know three times as many: with 16
	// owners, 5 pieces 1.142 and 1.074, 4 and one for every 10 members 1.086
	// and 1.079.
	Crowd, CrowdPieces, CrowdMembers int
	// AbroadPieces is how many pieces may be in flight into a zone that several
	// share, or what arrives in OriginAhead if that is more.
	AbroadPieces int
	// Behind is how many pieces fewer than the median of its members a node in
	// a crowd must have to have one more in flight, BehindMost such pieces at
	// most; one that has as many pieces more has one fewer in flight, AheadMost
	// at most. Simulated, seconds over the bound of 1,000 nodes with 300 pieces
	// and of 300 nodes with 1,000: 1.05 and 0.78 without it, 0.81 and 0.68 with
	// it. 1 piece instead of 2 gave 0.04 more at 300 nodes, 5 pieces 0.02;
	// AheadMost 1 the same, but 1.25 instead of 1.08 where half of 300 are
	// killed. The mean instead of the median lets 5 % slow nodes hold back all
	// others: 2.5 instead of 1.0.
	Behind, BehindMost, AheadMost int
	// Weak is what part of the pieces that this node has (one in so many) a
	// member must have to keep its place when others could have it; one place
	// goes each WeakEvery. Simulated, 300 nodes of which 10 % die and 5 % are
	// slow, eight seeds: at most 1.12 of the bound, and 1.30 without it, for a
	// node three of whose seven members were slow.
	Weak      int
	WeakEvery time.Duration
	// Window is the time over which rates are measured and compared.
	Window time.Duration
	// SlowSwarm, in bytes a second, is what members together must reach for
	// the origin to be left in peace while its rate is unknown: slower than
	// this a pull hurts, and finding out costs one piece.
	SlowSwarm float64
	// SlowStart is how long members that have the whole, and nobody else, may
	// take to show that they are fast, and SlowHolders, in bytes a second, what
	// they must reach together over it if nothing is known of the origin: 64
	// Mbit/s. A pull that waits for longer is later than a plain one by as much,
	// and from the origin what is true can be told soon. New connections on a LAN
	// and to the next town take less.
	SlowStart   time.Duration
	SlowHolders float64
	// OriginShare is the part of the origin's rate that members together must
	// reach. Just below one, so that equals do not flap.
	OriginShare float64
	// StreamAhead is the number of pieces before the position of an origin
	// that streams that are left to the stream.
	StreamAhead int
}

// Defaults returns the numbers that nodes run with.
func Defaults() Tuning {
	return Tuning{
		Requests:        4,
		RunPieces:       4,
		Ahead:           500 * time.Millisecond,
		Head:            32,
		StallAfter:      time.Second,
		LastPart:        20,
		LastPatience:    0.4,
		DeadAfter:       3 * time.Second,
		OriginDeadAfter: 12 * time.Second,
		Backoff:         250 * time.Millisecond,
		BackoffMost:     8 * time.Second,
		TakeOver:        100 * time.Millisecond,
		OriginRequests:  2,
		Abreast:         8,
		FirstPart:       20,
		OriginAhead:     300 * time.Millisecond,
		AtOnce:          2,
		Owners:          16,
		SilentAfter:     time.Second,
		LateBy:          200 * time.Millisecond,
		StuckBy:         time.Second,
		Stagger:         50 * time.Millisecond,
		HelpEvery:       100 * time.Millisecond,
		TurnEvery:       300 * time.Millisecond,
		TurnSmall:       100 * time.Millisecond,
		Spread:          128,
		Crowd:           3,
		CrowdPieces:     4,
		CrowdMembers:    10,
		AbroadPieces:    4,
		Behind:          2,
		BehindMost:      3,
		AheadMost:       2,
		Weak:            2,
		WeakEvery:       500 * time.Millisecond,
		Window:          2 * time.Second,
		SlowSwarm:       1 << 20,
		SlowStart:       80 * time.Millisecond,
		SlowHolders:     8 << 20,
		OriginShare:     0.95,
		StreamAhead:     8,
	}
}
