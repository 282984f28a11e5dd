package demo

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what the demo found out.
type report struct {
	imageBytes int64         // of index, manifest, config and layers of one platform
	direct     time.Duration // of the pull that measured the uplink
	makespan   time.Duration // from the start of the common pull to its last byte
	seeded     int64         // bytes that the origin sent to seed node 1
	rows       []row
}

// row is a node in the common pull.
type row struct {
	name   string
	took   time.Duration
	read   int64 // bytes that its client got
	origin int64 // bytes that the origin sent to it
	blobs  int   // digests that its client found right
	seeded bool
}

// local is what the client got and the origin did not send: it came from other
// nodes, or, on the seeded node, from its own disk. A node may have asked the
// origin for a little that it got elsewhere first.
func (r row) local() int64 { return max(0, r.read-r.origin) }

// String is the table and what to read off it.
func (r report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', tabwriter.AlignRight)
	line := func(cells ...any) { // a strings.Builder takes everything
		_, _ = fmt.Fprintf(w, strings.Repeat("%v\t", len(cells))+"\n", cells...)
	}
	line("node", "time", "from origin", "from peers", "from own cache", "digests right")
	var origin int64
	for _, row := range r.rows {
		peers, own := row.local(), int64(0)
		if row.seeded {
			peers, own = 0, peers
		}
		origin += row.origin
		line(row.name, seconds(row.took), megabytes(row.origin), megabytes(peers), megabytes(own), row.blobs)
	}
	_ = w.Flush()
	once, all := r.direct, time.Duration(len(r.rows))*r.direct
	fmt.Fprintf(&b, "\nMakespan %s. The bound for a swarm with nothing at hand is %s: the image once over the origin's\n"+
		"uplink, which gave %.1f Mbit/s of %d. Without a swarm, %d pulls over it take %s.\n",
		seconds(r.makespan), seconds(once), float64(r.imageBytes)*8/1e6/once.Seconds(), uplinkBits/1_000_000, len(r.rows), seconds(all))
	fmt.Fprintf(&b, "Copies of the image that left the origin: %.2f to seed node 1, %.2f in the common pull (without a swarm: %d).\n",
		r.copies(r.seeded), r.copies(origin), len(r.rows))
	return b.String()
}

func (r report) copies(n int64) float64 { return float64(n) / float64(r.imageBytes) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
