// Package plan decides who is asked for which piece of a blob next. It is a
// state machine over small integers: members (Origin is one of them), pieces,
// and requests, with the time passed in. It does no I/O, reads no clock, holds
// no bytes and starts no goroutines, so the node, the tests and a simulator
// run the very same decisions. A Plan belongs to one goroutine.
//
// The driver tells it what happens (Told, Answered, Progress, Delivered,
// Failed, Gone, Lost), asks Next for orders after each event and not later
// than NextWake, and carries the orders out. It tells other members what this
// node has, and what Claims and Serving say. The numbers named below are
// fields of Tuning, where their reasons stand; how many members a driver lets
// join says Degrees.
//
// # Which piece
//
// Pieces near the head, the first missing one, come first, in order, if most
// members have them: a client can only use a contiguous prefix. Apart from
// them, if some member has only a part of the blob, the rarest piece comes
// first, and ties fall differently on every node, so that nodes that start
// together fetch different pieces and have something to trade. When every
// member has the whole blob rarity means nothing, and order is kept: it is
// kind to disks and to the reader.
//
// A request is a run of neighbouring pieces. Its length grows with the
// measured rate of the member, so that a request takes a noticeable time (the
// round trip is amortised) but never long (little is lost when it dies).
//
// # Which member
//
// Every live member works at once, each with several requests in flight. No
// shares are computed: the member that would be idle soonest is asked next, so
// shares follow the measured rates by themselves. What a member offers is its
// word; a piece that it gave wrongly is not asked from it again
// (Lost), and a member that fails is left alone for a while, doubling.
//
// In a crowd, where everybody asks everybody, more requests do not bring more:
// they wait at links that are busy anyway, and a piece that waits cannot be
// passed on. There what is in flight from all members together is bounded
// (CrowdPieces), and the member from which the next piece would be here first
// is asked. Who has fewer pieces than most of its members may have more in
// flight, and who has more fewer (Behind): links give each request the same, so
// the last catch up, for whom all wait. A member with much less than this node
// has is slow, and makes way for another if there is one (Weak).
//
// A member that has the whole blob while most others of the zone have not is one
// that many ask. Of what it has, near the head, each node takes first the pieces
// that are its own by rendezvous among the fillers: each piece leaves such a
// member about once, and is traded from then on.
//
// # Zones
//
// A zone is a place behind one link. What comes into it should come once. A
// member of another zone is asked only for pieces that no member of the own
// offers or is about to bring: members of a zone tell each other what their
// requests to other zones will bring (Inbound), beside their claims. Each piece
// is some filler's to bring, by rendezvous among those of the zone; who has
// nothing of its own to bring takes what nobody has begun, one after the other by
// rank (Stagger), so that a fresh piece is its owner's. What is in flight into
// the zone from all its members together is no more than the link needs
// (AbroadPieces): more would wait there, and at the links of other zones, which
// then serve nobody soon. Nobody is overtaken there, because all that comes in
// shares the link, and what a mate brings is waited for as long as four pieces
// take. Who fetches a piece from the origin, for all zones, is decided as below;
// members of a zone that leave the plan do so one after the other and ask the
// origin for different pieces. Who is alone in its zone has nobody to share
// with, and asks members of other zones as any others.
//
// # Stalls
//
// A request without a byte for StallAfter gives its pieces back, so that
// somebody else is asked, but stays open: a member that was frozen or behind a
// lost packet may wake up, and the first answer wins. The last few pieces are
// waited for with less patience (LastPart). After DeadAfter it is
// cancelled and counts as a failure. A member whose requests have all stalled
// offers nothing until a byte comes.
//
// # Endgame
//
// A member with nothing left to ask for takes over pieces that others will
// deliver much later than it would itself (by the measured rates, and not
// before they would have passed the own link); and so it does before the
// endgame for the pieces at the head. No other piece is asked for twice while
// its request is alive.
//
// # The origin's place: every piece once
//
// The origin is asked only for pieces that no live member offers. Before
// OriginFrom it is not asked at all: the time that the swarm has to answer. A
// node that knows of nobody else who would ask fetches from the head, in
// requests of at most RunPieces, two in flight so that no round trip is lost
// between them. What follows is for nodes that fill the same blob together.
//
// Ownership. The blob is cut into runs of up to RunPieces pieces, fewer in a
// small blob. Members that volunteer are ranked by their claim to the blob (a
// hash of both), and the first of them (Owners) are its owners; each run
// belongs to the owner with the highest claim to it. Nobody assigns anything:
// who knows the same volunteers computes the same owners, and a member more or
// less moves only the runs that it gets or had. An owner fetches its own runs,
// from the head, and passes over pieces that somebody offers or claims (has a
// request to the origin in flight for): so a run is moved only while nobody has
// begun it, whatever views two nodes have. Nodes that own nothing ask the
// origin for nothing; a few owners saturate it, and know each other's claims
// within milliseconds, which thousands could not. A request takes no more than
// what arrives in OriginAhead: nobody can help with what is in flight. Of a small
// blob, whose runs are of one piece, owners begin what nobody has or brings from
// the head, AtOnce pieces or what arrives in OriginAhead: if all were on their way
// at once, as those of the layers beside it, an origin behind a slow link would
// bring none of them soon. What members with slow links of their own bring does
// not count there.
//
// Takeover. An owner that gets no byte for SilentAfter, though something is
// expected from it, counts no more: its runs and what it has claimed fall to
// others by rank, until it is heard of again. An owner whose backlog, at the
// rate at which its bytes come, lasts longer than half as long again as this
// node would need for a run, and LateBy, is late: who has begun all of its own
// runs relieves it from the far end, where the owner itself comes last. What a
// node would need follows from an equal share of what the origin gives to all
// at the moment. Who asks the origin for nothing also takes over what an owner
// has claimed, when it would come much later (StuckBy), and what a slow member
// alone has; but not while others still bring what they have claimed, because
// who has little of a shared link has more when they are done. Helpers come one
// after the other by rank (HelpEvery): the second sees what the first has begun.
// This also fetches what views that differ have left without an owner.
//
// Ranges. Until it is known whether the origin serves ranges, one node asks:
// the owner of the first piece that nobody has, and the others after it by
// rank, each TurnEvery later, unless somebody else has begun. An origin that
// ignores ranges sends the whole blob to everybody who asks; one member reads
// it as a stream, which holds the StreamAhead pieces that it will reach soon,
// and the others live on what has passed. Of several streams that began apart
// only the one that is furthest goes on; when it dies, the next by rank begins.
// A member's word that an origin ignores ranges is tried before it is believed.
//
// # Never worse than without
//
// When the bytes of all sources together, this node's own requests included,
// stay below what it measured from the origin alone (OriginShare, over Window),
// and the plan leaves it nothing to ask the origin for, it leaves the plan: the
// origin is asked first, for what nobody has, then for what others claim, then
// for anything, and members only add to it. It comes back when members alone
// are as fast. Two nodes that share the origin's link each see half of it from
// each other and so stay in the plan, and who has measured what it got alone
// counts on a share of it while others ask. As long as the own rate is not
// measured, half of what the best of the others gets, or else half of what
// earlier fills measured, or SlowSwarm is the measure; one piece is asked for
// then, to find out. Nodes that own nothing wait longer, each a different time: a
// thousand that miss the same owners must not ask at once.
//
// Where all members have the whole, and nobody else was seen to fill the blob, a
// pull must not wait for a window: they must show at once (SlowStart, SlowHolders)
// that they are fast, or the origin is asked first (doubt.go), in order, also for
// what they have been asked for and will bring late. Then each has one piece at a
// time to bring, from the end. What this node was late itself is not held against
// them (Late), and what one plan has found out others are told (Slow, Hurry).
//
// Pieces that were given wrongly by somebody unknown (Lost with audit) come
// from the origin as long as there is one.
package plan
