// Package plan decides who is asked for which piece of a blob next. It is a
// state machine over small integers: members (Origin is one of them), pieces,
// and requests, with the time passed in. It does no I/O, reads no clock, holds
// no bytes and starts no goroutines, so the node, the tests and a simulator
// run the very same decisions. A Plan belongs to one goroutine.
//
// The driver tells it what happens (Told, Answered, Progress, Delivered,
// Failed, Gone, Lost), asks Next for orders after each event and not later
// than NextWake, and carries the orders out. The numbers named below are
// fields of Tuning, where their reasons stand.
//
// # Which piece
//
// Pieces near the head, the first missing one, come first, in order, because a
// client can only use a contiguous prefix. Behind that window, if some member
// has only a part of the blob, the rarest piece comes first and ties are broken
// at random per node, so that nodes that start together fetch different pieces
// and have something to trade. When every member has the whole blob rarity
// means nothing, and order is kept: it is kind to disks and to the reader.
//
// A request is a run of neighbouring pieces. Its length grows with the
// measured rate of the member, so that a request takes a noticeable time (the
// round trip is amortised) but never long (little is lost when it dies).
//
// # Which member
//
// Every live member works at once, each with several requests in flight. No
// shares are computed: the member that would be idle soonest is asked next, so
// shares follow the measured rates by themselves. A member in another zone is
// asked only when no member of the own zone offers the piece. What a member
// offers is its word; a piece that it gave wrongly is not asked from it again
// (Lost), and a member that fails is left alone for a while, doubling.
//
// # Stalls
//
// A request without a byte for StallAfter gives its pieces back, so that
// somebody else is asked, but stays open: a member that was frozen or behind a
// lost packet may wake up, and the first answer wins. After DeadAfter it is
// cancelled and counts as a failure. A member whose requests have all stalled
// offers nothing until a byte comes.
//
// # Endgame
//
// A member with nothing left to ask for takes over pieces that others will
// deliver much later than it would itself (by the measured rates); and so it
// does before the endgame for the pieces at the head. No
// other piece is asked for twice while its request is alive.
//
// # The origin's place
//
// The origin is asked only for pieces that no live member offers, from the
// head, in requests of at most RunPieces, two in flight so that no round trip
// is lost between them; the second starts when the first answer has shown that
// the origin serves ranges. An origin that does not is read as one stream, and
// members are asked for pieces that the stream will not reach soon. Before
// OriginFrom it is not asked at all: the time that the swarm has to answer.
//
// This never costs more than the swarm is worth: when members together stay
// below what the origin gives over Window, the origin is asked first, from the
// head, and members only add to it. While the origin's rate is unknown, one
// piece is asked from it as soon as the swarm is slower than SlowSwarm, to find
// out.
//
// Pieces that were given wrongly by somebody unknown (Lost with audit) come
// from the origin as long as there is one.
package plan
