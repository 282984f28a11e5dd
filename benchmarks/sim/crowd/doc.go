// Package crowd simulates the fill of one blob by a crowd of nodes, on virtual
// time. Each node runs the planner of the real one (package plan); the network,
// the origin and the way in which members find each other are models, described
// below. Run is the whole of it: it starts no goroutines, and the same Config
// gives the same Result.
//
// # Links
//
// A node has an uplink and a downlink, the origin an uplink. An uplink serves
// the requests that it has to answer turn by turn, a chunk of 256 KiB each, as
// TCP connections share a line. Chunks arrive after the latency and pass the
// downlink in the order of their arrival, bytes as they come: a single transfer
// takes its size divided by the slower rate, and the latency. A sender does not
// send towards a downlink that has more than Config.Buffer waiting, and serves
// others meanwhile: congestion control without its packets. Messages (requests,
// states, answers) take the latency and no bandwidth.
//
// Machines may be in zones, each with a link to everywhere else. What passes
// between two zones, or comes from the origin, passes these links instead of
// those of the nodes, which are taken to be faster.
//
// # Costs of connections
//
// A request needs a connection of its own (HTTP/1.1): one that is idle, or a new
// one, which takes three round trips and processor time at both ends (Costs).
// The processor of a node sets up one connection after the other. One to each of
// the members that a fill asks first is idle from the start, unless the
// processes start then.
//
// # Finding each other
//
// Members are connected at random, Costs.Connected on average. A node that
// starts asks Ask of them to be followed, and joins those who fill or
// have the blob to its plan, at most Costs.Degree of them; volunteers take
// other volunteers besides. Who is asked follows back if it has room, and if it
// has not begun, remembers the asker for the moment when it does. A filler has
// Costs.Followers followers at most; answers name some other members, who are
// asked then. States are told to followers when they changed, every Costs.Tell
// at most.
//
// Volunteers write their record into the DHT, and read when it is written.
// Others look there only if they lack members. A lookup returns the records
// that were there when it reached their holders, of which there are
// Costs.Holders, whose processors every visitor costs time. The origin is
// asked when everybody has answered, or after Costs.Hold.
//
// The degrees are those of the node (plan.Degrees). It differs in what is cheap
// there: after the first ones it asks all other members to whom it is connected,
// 64 at most, and lets those go for which its plan has no room; it hears a
// moment later whether a follower volunteers; and members that have the whole
// blob do not count against Degree.
//
// # What is left out
//
// Packets, loss, slow start, and queues that messages would wait in; the
// processor time of moving and hashing bytes, disks; closure and audits: a
// piece is whole and shared when its last byte came, a liar's first piece is
// refused and it is banned by whoever it lied to.
package crowd
