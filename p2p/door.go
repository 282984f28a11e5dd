package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/amino"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	"github.com/multiformats/go-multihash"
)

// A door is an address to join that does not say who is there: a host and port,
// a name with the addresses of many members (a headless service of Kubernetes),
// or /dnsaddr/NAME, whose TXT records are addresses
// (github.com/multiformats/multiaddr, protocols/DNSADDR.md).
const (
	// resolveTimeout bounds the questions for one door. The system's resolver
	// goes on to its second name server after 5 s.
	resolveTimeout = 12 * time.Second
	// maxBehindDoor bounds the addresses that one look at a door tries, chosen
	// at random: members that know as many others hang together, and a fleet
	// that boots does not meet at the first name.
	maxBehindDoor = 32
	// maxDNSAddrDepth bounds how often a dnsaddr may point to another one.
	maxDNSAddrDepth = 4
	// lookAgain is the pause between two looks at a door that led in: two parts
	// of a fleet that booted apart find each other by it.
	lookAgain = 30 * time.Second
)

// newResolver asks through r. Answers come in random order, as lists are cut
// off at their ends.
func newResolver(r *net.Resolver) network.MultiaddrDNSResolver {
	if r == nil {
		r = net.DefaultResolver
	}
	names, err := madns.NewResolver(madns.WithDefaultResolver(shuffled{r}))
	if err != nil {
		panic(err) // only for options that fail, and this one does not
	}
	return swarm.ResolverFromMaDNS{Resolver: names}
}

type shuffled struct{ *net.Resolver }

func (s shuffled) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	addrs, err := s.Resolver.LookupIPAddr(ctx, name)
	shuffle(addrs)
	return addrs, err
}

func (s shuffled) LookupTXT(ctx context.Context, name string) ([]string, error) {
	texts, err := s.Resolver.LookupTXT(ctx, name)
	shuffle(texts)
	return texts, err
}

func shuffle[T any](s []T) {
	mrand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

// enter joins members behind a door. It returns nil if it leads to one, or this
// node is in the swarm already.
func (j *joiner) enter(ctx context.Context, door ma.Multiaddr) error {
	addrs, err := j.behind(ctx, door)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	failures := make(chan error, len(addrs))
	for _, a := range addrs {
		all.Go(func() { failures <- j.meet(ctx, a) })
	}
	all.Wait()
	close(failures)
	if j.n.Joined() {
		return nil
	}
	err = errors.New("nobody else is there")
	for failure := range failures {
		if failure != nil {
			err = failure
		}
	}
	return err
}

// behind returns the addresses of a door that are worth a dial: those that no
// connected member has, a few, or a single one if this node knows many members.
func (j *joiner) behind(ctx context.Context, door ma.Multiaddr) ([]ma.Multiaddr, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	all, err := j.names.ResolveDNSAddr(ctx, "", door, maxDNSAddrDepth, maxBehindDoor)
	if err != nil {
		return nil, err
	}
	most := maxBehindDoor
	if j.n.Peers() >= amino.DefaultBucketSize {
		most = 1
	}
	known := j.n.addrsOfMembers()
	var addrs []ma.Multiaddr
	var failure error
	for _, a := range all {
		some := []ma.Multiaddr{a}
		if _, id := peer.SplitAddr(a); id == "" {
			if some, err = j.names.ResolveDNSComponent(ctx, a, maxBehindDoor); err != nil {
				failure = err
			}
		}
		for _, a := range some {
			place, _ := peer.SplitAddr(a)
			if _, _, err := hostPort(place); err == nil && !known[string(place.Bytes())] && len(addrs) < most {
				addrs = append(addrs, a)
			}
		}
	}
	if len(addrs) > 0 {
		failure = nil
	}
	return addrs, failure
}

// addrsOfMembers returns what connected members, and this node, say their
// addresses are.
func (n *Node) addrsOfMembers() map[string]bool {
	known := make(map[string]bool)
	for _, a := range n.host.Addrs() {
		known[string(a.Bytes())] = true
	}
	for _, id := range n.host.Network().Peers() {
		for _, a := range n.host.Peerstore().Addrs(id) {
			known[string(a.Bytes())] = true
		}
	}
	return known
}

// meet joins whoever is at an address.
func (j *joiner) meet(ctx context.Context, a ma.Multiaddr) error {
	place, id := peer.SplitAddr(a)
	if id == "" {
		var err error
		if id, err = j.n.whoIsAt(ctx, place); err != nil {
			return err
		}
	}
	if id == j.n.s.id || j.n.connected(id) {
		return nil
	}
	return j.join(ctx, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{place}})
}

// whoIsAt returns the ID of the member at an address. libp2p dials nobody whose
// ID it is not told, so this looks for somebody whom nobody is: the handshake
// ends when the other side has proven, first, that it has a key of the swarm,
// and then who it is instead.
func (n *Node) whoIsAt(ctx context.Context, place ma.Multiaddr) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	s, ok := n.host.Network().(*swarm.Swarm)
	if !ok {
		return "", errors.New("this network cannot dial without an ID")
	}
	t := s.TransportForDialing(place)
	if t == nil {
		return "", fmt.Errorf("%s cannot be dialled", place)
	}
	// Another one each time: the connections to one ID are limited.
	var hash [32]byte
	rand.Read(hash[:]) // never fails (crypto/rand)
	nobody, err := multihash.Encode(hash[:], multihash.SHA2_256)
	if err != nil {
		return "", err
	}
	c, err := t.Dial(ctx, place, peer.ID(nobody))
	if err == nil {
		return "", errors.Join(fmt.Errorf("%s claims to be whoever is looked for", place), c.Close())
	}
	if other, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return other.Actual, nil
	}
	return "", err
}
