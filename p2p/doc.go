// Package p2p is the node of a swarm: it finds other members and is found by
// them, tells them which blobs it has, learns who has a blob, moves pieces, and
// passes on what operators have signed (spread.go).
// It is not the cache, which keeps and proves the bytes, and it knows nothing
// about registries, tags or manifests.
//
// # Membership
//
// A Node is a libp2p host on a private network (package pnet) and a server in
// a Kademlia DHT of its own prefix. It starts from the addresses in
// Options.Join and, on a local network, from mDNS; the DHT does the rest.
// Members that connect tell each other where their piece channel listens and
// which zone they are in (hello.go). The DHT keeps one record per blob, never
// per piece, under a name that only members can compute (swarmkey.Key.CID);
// records last recordValidity and are renewed at a third of that. Nothing
// withdraws a record, so a holder may turn out to have nothing, or to be gone.
//
// A node that cannot be dialled finds that out by what members see of it
// (reach.go). It is asked over its own connections (streams.go), through holes
// in NATs (punch.go), or over members that relay (relay.go, reserve.go). None of
// this costs a swarm anything of which all members can be dialled.
//
// Without a swarm key a node keeps to the loopback interface: anything else
// is ErrNeedsKey.
//
// # What always holds
//
// A lookup never waits for a dead holder: each is dialled on its own, for at
// most dialTimeout, and is left alone for a while after it did not answer. A
// member that cannot be reached at the start is tried again with backoff; no
// member waits for another to be ready. What a stranger sends is bounded in
// size and time.
//
// # Goroutines
//
// New opens the sockets, so that an address in use is an error at once; Run
// owns all goroutines and returns when they have ended. A Node whose Run was
// never called is released by Close.
package p2p
