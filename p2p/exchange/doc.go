// Package exchange moves pieces between members: it serves what the cache has,
// and it drives every fill, from members and from the origin. Which piece comes
// from whom is decided by package plan, what is proven by package blobcache;
// the exchange only carries out and reports. It knows nothing about the DHT or
// about registries: members are found by a Swarm, the origin is a blob.Source.
//
// # Fills
//
// Fetch joins the fill of a blob or starts one. A fill has one driver, a
// goroutine that owns its plan; the goroutines that do I/O report to it and
// decide nothing. Members are searched at once (search.go); the origin is asked
// at once if no member is connected or nobody has the blob, and otherwise when
// the swarm has had its time; that of a member to whom a connection is open is
// short, and over for all fills once it was not used. Members that are slower
// than the origin for one fill are so for the others. A fill ends with the blob in the cache, or with
// an error when no source has brought a piece for a while; it never waits for
// ever. That its readers have gone does not end it.
//
// How many members a fill has to do with says plan.Degrees. Those for which the
// plan has no room are let go, so that they have room for others, and asked
// again when some have gone, or when one has so little that another had better
// have its place; a fill takes few followers, so that who comes late finds others
// that came late (spares.go). In a small swarm everybody knows everybody.
//
// Several fills of one node take turns at the origin, in the order of their
// starts (turns.go).
//
// Members that cannot be dialled are asked over streams that somebody else opens
// (streams.go), by the same protocol. One that is relayed counts as far away:
// it is asked for what nobody else offers.
//
// # What always holds
//
// Of a blob that only permitted clients may have (blobcache.Reach) members hear
// and get nothing, and are asked for nothing.
//
// Only whole blobs are served to members, and pieces that are proven or that
// somebody answers for: this member, for what it took from the origin, or who
// signed a voucher for the piece, or for a chain that the piece agrees with
// (lend.go, package statement). What a member says or sends is bounded in size
// and time and believed only as far as it is proven; a piece is stored as the
// signer's, or else the sender's, so that the right one can be convicted when
// the right bytes are known (backing.go, verdict.go). Who passes on what
// another signed is not to blame for it, if the receiver has met that one. A
// member that lied is banned (penalties.go): nothing is fetched from it for a
// while. At most so many pieces are in memory at once, over all fills, as the
// budget says (budget.go).
//
// # Goroutines
//
// New starts none. Those of drivers and their requests belong to the Exchange;
// Close ends and awaits them. What a fill had stored stays on disk, and the
// next fill of the same blob goes on from there.
package exchange
