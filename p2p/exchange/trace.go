package exchange

import (
	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
	"shoal/blobcache/trace"
	"shoal/p2p/plan"
)

// record begins the record of the fill, if somebody wants one.
func (d *driver) record() {
	if d.x.trace != nil {
		d.trace = trace.Record(d.want.Digest, d.want.Size, d.x.trace)
	}
}

// traced returns the number of a member, or of the origin, in the record. It is
// asked for each piece, and looks for nothing twice.
func (d *driver) traced(m plan.Member) int {
	number := &d.traces
	src := d.byID[m]
	switch {
	case d.trace == nil:
		return 0
	case src != nil:
		number = &src.traced
	case m != plan.Origin: // gone meanwhile
		return d.trace.Source(trace.Source{Member: trace.Others})
	}
	if *number == 0 {
		s := trace.Source{}
		if src != nil {
			s = trace.Source{Member: src.holder.Peer.String(), Zone: src.holder.Zone}
		} else if o := d.origins.current(); o != nil {
			s.Name = repository(o)
		}
		*number = 1 + d.trace.Source(s)
	}
	return *number - 1
}

// here returns how many bytes these pieces have.
func (d *driver) here(have *bitset.BitSet) (sum int64) {
	for i := range have.EachSet() {
		sum += blob.Piece(int(i), d.want.Size).Length
	}
	return sum
}
