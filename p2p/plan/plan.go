package plan

import (
	"math/rand/v2"
	"time"

	"github.com/bits-and-blooms/bitset"
)

// Member is a source of pieces, as a small integer that the driver chooses.
type Member int

// Origin is the member that stands for the origin registry.
const Origin Member = 0

// ID names a request of one Plan. IDs are never used again.
type ID uint64

// Request is an order to fetch Count pieces from First on from Member.
type Request struct {
	ID           ID
	Member       Member
	First, Count int
}

// Orders is what the driver must do now: start some requests, and break off
// others, about which it reports nothing any more.
type Orders struct {
	Start  []Request
	Cancel []ID
}

// Room is how many requests the driver can carry more at the moment.
type Room struct{ Members, Origin int }

// Config is what a Plan starts from.
type Config struct {
	// Size is the length of the blob and PieceSize that of its pieces, in
	// bytes.
	Size, PieceSize int64
	// Here holds the pieces that need not be fetched; nil means none.
	Here *bitset.BitSet
	// Self stands for this node, and Key for the blob, where nodes compute
	// who owns what: the same values wherever they are told.
	Self, Key uint64
	// Volunteer means that this node may own runs.
	Volunteer bool
	// Seed makes ties fall differently on every node.
	Seed   uint64
	Tuning Tuning
}

// Plan is the state of one fill.
type Plan struct {
	tune   Tuning
	size   int64
	piece  int64
	pieces int
	rng    *rand.Rand
	ties   uint64 // decides between equally rare pieces

	here    *bitset.BitSet // fetched and stored
	open    *bitset.BitSet // missing, and in no live request
	audit   *bitset.BitSet // to come from the origin while there is one
	asked   *bitset.BitSet // owed by requests to the origin
	owed    []uint8        // live requests that owe the piece
	near    supply         // by live members of the own zone
	far     supply         // by those of others
	claimed counts         // by members that fetch from the origin
	coming  counts         // by members of the own zone that fetch from outside it
	missing int

	members     map[Member]*member
	order       []*member  // members but the origin, in order of joining
	requests    []*request // in flight, oldest first
	byID        map[ID]*request
	lastID      ID
	origin      origin
	owners      owners
	seeds       seeds
	abroad      abroad
	doubt       doubt
	swarm       meter         // bytes from members other than the origin
	all         meter         // bytes from everybody
	beside      meter         // bytes of other fills of this node
	besideSwarm meter         // what members brought of it
	peak        float64       // the most that came from members over a window, in bytes a second
	stored      time.Duration // when the last piece came
	trip        time.Duration // the shortest from a request to its first bytes

	fromMembers, besideMembers int64 // bytes that the meters swarm and besideSwarm have counted

	weak   time.Duration // from then on Weak may name a member
	due    time.Duration // no deadline of a request or a member passes before
	stale  bool          // reap has more to look at than deadlines
	look   bool          // members may take more
	looked time.Duration // when they were last offered it

	candidates *bitset.BitSet // scratch of choose
	free       ready          // scratch of askMembers
	scratch    []int          // of allowance
}

// member is what is known of a member other than the origin.
type member struct {
	id       Member
	node     uint64 // stands for it where nodes compute who owns what
	far      bool
	has      *bitset.BitSet // what it offers, without refused; nil if every piece
	held     int            // how many pieces has holds
	refused  *bitset.BitSet // pieces that it gave wrongly; nil if none
	counted  bool           // live: part of a supply
	requests int            // in flight
	stalled  int            // of these, stalled
	owed     int64          // bytes that those still have to bring
	rate     meter
	failures int
	rest     time.Duration // not asked before

	whole     bool           // says so
	claims    *bitset.BitSet // what its requests to the origin owe; nil if nothing yet
	told      bool           // has said something
	progress  int64          // bytes that it had from the origin
	pulls     meter          // their rate
	heard     time.Duration  // when it last had a byte from there, or no need of one
	asking    time.Duration  // since when it has claimed something all the time
	turned    time.Duration  // when it last began or ended to claim a piece
	silent    bool           // that is too long ago
	late      time.Duration  // since when what it has not claimed yet would come late
	stuck     time.Duration  // since when what it has claimed will come very late
	volunteer bool
	serving   Serving

	inbound *bitset.BitSet // what it is about to bring from other zones, if it is of this one; nil if nothing yet
	brought time.Duration  // when that last changed
	vain    bool           // too long ago: it does not count
}

// New returns the plan for a blob. It knows no members.
func New(c Config) *Plan {
	n := int((c.Size + c.PieceSize - 1) / c.PieceSize)
	p := &Plan{
		tune: c.Tuning, size: c.Size, piece: c.PieceSize, pieces: n,
		rng:  rand.New(rand.NewPCG(c.Seed, uint64(c.Size))),
		here: bitset.New(uint(n)), open: bitset.New(uint(n)), audit: bitset.New(uint(n)),
		asked: bitset.New(uint(n)), owed: make([]uint8, n),
		near: supply{counts: newCounts(n)}, far: supply{counts: newCounts(n)}, claimed: newCounts(n), coming: newCounts(n),
		members: map[Member]*member{}, byID: map[ID]*request{},
		owners: owners{self: c.Self, key: c.Key, volunteer: c.Volunteer, stale: true},
		seeds:  seeds{stale: true}, abroad: newAbroad(n, c.Tuning.Window),
		swarm: newMeter(c.Tuning.Window), all: newMeter(c.Tuning.Window), beside: newMeter(c.Tuning.Window),
		besideSwarm: newMeter(c.Tuning.Window),
		due:         never, look: true, trip: tick, candidates: bitset.New(uint(n)),
	}
	p.ties = p.rng.Uint64()
	p.origin.rate = newMeter(c.Tuning.Window)
	for i := range n {
		if c.Here != nil && c.Here.Test(uint(i)) {
			p.here.Set(uint(i))
			continue
		}
		p.open.Set(uint(i))
		p.missing++
	}
	return p
}

// bytes returns the length of the run of count pieces from first on.
func (p *Plan) bytes(first, count int) int64 {
	return min(p.size, int64(first+count)*p.piece) - int64(first)*p.piece
}

// Missing returns the number of pieces that are not here yet.
func (p *Plan) Missing() int { return p.missing }

// Done reports whether every piece is here.
func (p *Plan) Done() bool { return p.missing == 0 }

// head returns the first piece that is missing: where a client that reads from
// the start waits, and where the hash of the whole goes on.
func (p *Plan) head() int {
	i, _ := p.here.NextClear(0)
	return int(i)
}

// Join adds a member that offers nothing yet. id stands for it as Config.Self
// does for this node; far means that it is in another zone. A member that is
// there already stays as it is.
func (p *Plan) Join(m Member, id uint64, far bool) {
	if m == Origin || p.members[m] != nil {
		return
	}
	mem := &member{
		id: m, node: id, far: far, has: bitset.New(uint(p.pieces)),
		rate: newMeter(p.tune.Window), pulls: newMeter(p.tune.Window),
		late: never, stuck: never,
	}
	p.members[m] = mem
	p.order = append(p.order, mem)
	p.stale, p.seeds.stale = true, true
}

// Gone removes a member; its requests are over.
func (p *Plan) Gone(now time.Duration, m Member) {
	mem := p.members[m]
	if mem == nil {
		return
	}
	for _, r := range p.of(m) {
		p.finish(now, r)
	}
	p.count(mem, false)
	if !mem.silent {
		p.claimAll(mem, false)
	}
	p.await(mem, false)
	delete(p.members, m)
	for i, o := range p.order {
		if o == mem {
			p.order = append(p.order[:i], p.order[i+1:]...)
			break
		}
	}
	p.stale, p.owners.stale, p.seeds.stale = true, true, true
}

func (p *Plan) of(m Member) []*request {
	var of []*request
	for _, r := range p.requests {
		if r.Member == m {
			of = append(of, r)
		}
	}
	return of
}

func (p *Plan) find(id ID) *request { return p.byID[id] }
