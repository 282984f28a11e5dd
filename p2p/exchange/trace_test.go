package exchange

import (
	"os"
	"syscall"
	"testing"
	"time"

	"shoal/blobcache/trace"
	"shoal/proxy/origin/origintest"
)

// traced makes m record its fills, and returns the last one once it has ended.
func (m *member) traced() func() *trace.Fill {
	seen := make(chan *trace.Live, 64)
	m.trace = func(l *trace.Live) { seen <- l }
	return func() *trace.Fill {
		l := <-seen
		eventually(m.mesh.t, "the end of the record", func() bool { return !l.Fill().Ended.IsZero() })
		return l.Fill()
	}
}

// The record of a fill tells from whom its bytes came, and when.
func TestTrace(t *testing.T) {
	data := content(1, 6*mib+5)
	size := int64(len(data))
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	holder, one := mesh.member(nil), mesh.member(nil)
	recorded := one.traced()

	one.mustPull(data, reg.src)
	got := recorded()
	if got.Digest != reg.d.Digest || got.Size != size || got.Err != "" || len(got.Sources) != 1 {
		t.Fatalf("%+v", got)
	}
	o := got.Sources[0]
	took := got.Ended.Sub(got.Began)
	if o.Member != "" || o.Bytes != size || o.Came.Total() != size {
		t.Errorf("from %q %d bytes, of which %d came", o.Member, o.Bytes, o.Came.Total())
	}
	if busy := time.Duration(o.Busy.Total()); busy <= 0 || busy > took || got.Stored.Before(got.Began) || got.Stored.After(got.Ended) || got.Writing <= 0 || got.Flying < busy {
		t.Errorf("busy %v of %v, stored %v, writing %v, flying %v", busy, took, got.Stored.Sub(got.Began), got.Writing, got.Flying)
	}

	one.mustPull(data, reg.src) // which is here: that is no fill
	more := content(2, 5*mib)
	holder.announce(holder.seed(more))
	one.mustPull(more, nil)
	got = recorded()
	if len(got.Sources) != 1 || got.Sources[0].Member != holder.id.String() || got.Sources[0].Bytes != int64(len(more)) {
		t.Errorf("from a member: %+v", got.Sources)
	}

	d := describe(content(3, 10))
	if _, err := one.Fetch(t.Context(), d, nil); err == nil {
		t.Fatal("nobody has it")
	}
	if got = recorded(); got.Err == "" || len(got.Sources) != 0 {
		t.Errorf("%+v", got)
	}
}

// BenchmarkRecording takes turns between fills from a member that are recorded and
// those that are not, and tells the processor time of each (both ends): other
// programs of the machine disturb it less than the rate.
func BenchmarkRecording(b *testing.B) {
	const size = 256 << 20
	m := newMesh(b)
	d := m.member(nil).seed(content(1, size))
	var spent [2]time.Duration
	for b.Loop() {
		for on := range spent {
			p := m.member(nil)
			if on == 1 {
				p.trace = func(*trace.Live) {}
			}
			before := processorTime(b)
			f, err := p.Fetch(b.Context(), d, nil)
			if err != nil {
				b.Fatal(err)
			}
			if <-f.Done(); f.Err() != nil {
				b.Fatal(f.Err())
			}
			spent[on] += processorTime(b) - before
			p.close()
			os.RemoveAll(p.dir)
		}
	}
	b.ReportMetric(spent[0].Seconds()*1000/float64(b.N), "off-cpu-ms/op")
	b.ReportMetric(spent[1].Seconds()*1000/float64(b.N), "on-cpu-ms/op")
	b.ReportMetric(spent[1].Seconds()/spent[0].Seconds(), "on/off")
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
