package seeder

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	// maxHolders bounds how many may be wanted: more copies than that are an
	// order to a zone (shoal preheat).
	maxHolders = 32
	// maxAsked bounds the members that are asked about one blob before those
	// that announced it: the first by rank are those that would be ordered to
	// fetch it.
	maxAsked = 16
)

// Member is a node of the swarm, by its peer ID, and where it is.
type Member struct {
	ID   string `json:"id"`
	Zone string `json:"zone,omitempty"`
}

// Swarm is the node among others.
type Swarm interface {
	// Members returns this node, and those that it is connected to. It does not
	// wait.
	Members() (self Member, others []Member)
	// Holders asks members who of them has a blob whole, in their order, and
	// then those who announced it, until enough says so of those that have.
	// Who does not answer has it not.
	Holders(ctx context.Context, d digest.Digest, ask []Member, enough func([]Member) bool) []Member
	// Order has members fetch REGISTRY/REPOSITORY@DIGEST for platforms, all at
	// the same moment, and returns when each has all of it, or why it has not,
	// in the order of members.
	Order(ctx context.Context, image string, platforms []string, members []Member) []error
}

// need is how many members are to hold a blob, and in how many zones.
type need struct{ holders, zones int }

// met tells whether these are enough.
func (n need) met(by []Member) bool { return len(by) >= n.holders && zones(by) >= n.zones }

// zones counts those that members are in; no zone is one.
func zones(members []Member) int { return len(byZone(members)) }

func byZone(members []Member) map[string]int {
	count := map[string]int{}
	for _, m := range members {
		count[m.Zone]++
	}
	return count
}

// rank puts members into the order in which they are to hold an image: the same
// wherever it is computed (rendezvous hashing), with the best of each zone before
// the second of any.
func rank(image digest.Digest, members []Member) []Member {
	weight := make(map[string]string, len(members))
	for _, m := range members {
		weight[m.ID] = digest.FromString(image.String() + " " + m.ID).Encoded()
	}
	ranked := slices.SortedFunc(slices.Values(members), func(a, b Member) int { return strings.Compare(weight[a.ID], weight[b.ID]) })
	place, before := make(map[string]int, len(members)), map[string]int{}
	for _, m := range ranked {
		place[m.ID] = before[m.Zone]
		before[m.Zone]++
	}
	slices.SortStableFunc(ranked, func(a, b Member) int { return place[a.ID] - place[b.ID] })
	return ranked
}

// choose returns who is to fetch an image, so that enough members hold each of
// its blobs: of the candidates, which are ranked, those whose zones hold least. A
// blob that candidates cannot help stays short.
func (n need) choose(held map[digest.Digest][]Member, candidates []Member) (chosen []Member) {
	for _, d := range slices.Sorted(maps.Keys(held)) {
		by := slices.Concat(held[d], missing(chosen, held[d]))
		for !n.met(by) {
			next, ok := n.next(by, missing(candidates, by))
			if !ok {
				break
			}
			by, chosen = append(by, next), append(chosen, next)
		}
	}
	return chosen
}

// next returns who of the candidates helps most with a blob that these hold, if
// any does.
func (n need) next(by, candidates []Member) (best Member, ok bool) {
	in := byZone(by)
	for _, c := range candidates {
		if len(by) >= n.holders && in[c.Zone] > 0 {
			continue // one more of that zone is no other zone
		}
		if !ok || in[c.Zone] < in[best.Zone] {
			best, ok = c, true
		}
	}
	return best, ok
}

// missing returns those of all that are not among some.
func missing(all, some []Member) []Member {
	return slices.DeleteFunc(slices.Clone(all), func(m Member) bool {
		return slices.ContainsFunc(some, func(s Member) bool { return s.ID == m.ID })
	})
}
