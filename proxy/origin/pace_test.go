package origin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

// paced returns a repository of u.test that is read at most at that rate.
func (w *world) paced(rate string) (*origin.Repository, *origintest.Registry) {
	w.t.Helper()
	rules, err := pace.Parse([]string{rate})
	if err != nil {
		w.t.Fatal(err)
	}
	r := w.registry("u.test:80", origintest.Options{})
	c := w.client(origin.Options{
		Registries: origin.Registries{"r.test": {Upstreams: []string{"http://u.test"}}}, Pace: pace.Limits{pace.New(rules)},
	})
	return w.of(c, "r.test", "lib/x"), r
}

// Everything that a registry sends is read at the pace: blobs over any number of
// connections, and manifests.
func TestPace(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		repo, reg := w.paced("1MB")
		content := make([]byte, 3_000_000)
		d := reg.AddBlob("lib/x", content)
		began := time.Now()
		errs := make(chan error)
		for range 2 {
			go func() {
				st, err := repo.Blobs().Open(t.Context(), d, whole)
				if err != nil {
					errs <- err
					return
				}
				defer st.Body.Close()
				got, err := io.ReadAll(st.Body)
				if err == nil && !bytes.Equal(got, content) {
					err = errors.New("other bytes")
				}
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began).Seconds(); took < 5.8 || took > 6.1 {
			t.Errorf("6 MB took %.2f s", took)
		}
		index := reg.AddManifest("lib/x", "big", "application/vnd.oci.image.index.v1+json", append([]byte(`{"schemaVersion":2,"manifests":[]`), append(bytes.Repeat([]byte(" "), 1_500_000), '}')...))
		began = time.Now()
		if _, _, err := repo.Manifest(t.Context(), index.Digest.String(), nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began).Seconds(); took < 1.3 || took > 1.6 {
			t.Errorf("a manifest of 1.5 MB took %.2f s", took)
		}
	})
}

// A pace that is slow beside the deadlines is nobody's fault: no stall, and no
// mark against the upstream, though each byte takes longer than NoProgress.
func TestWaitingForThePaceIsNoStall(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		repo, reg := w.paced("10kB")
		d := reg.AddBlob("lib/x", make([]byte, 3<<10))
		const readers = 150 // each gets 1 KiB in 15 s
		began, errs := time.Now(), make(chan error)
		for range readers {
			go func() {
				st, err := repo.Blobs().Open(t.Context(), d, whole)
				if err == nil {
					_, err = io.Copy(io.Discard, st.Body)
					st.Body.Close()
				}
				errs <- err
			}()
		}
		for range readers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took < 45*time.Second {
			t.Errorf("it took %v", took)
		}
		if n, err := testutil.GatherAndCount(w.metrics, "shoal_upstream_failures_total"); err != nil || n != 0 {
			t.Errorf("the upstream is said to fail, %v", err)
		}
	})
}

// Who gives up while it waits for the pace does not wait on.
func TestGivingUpEndsTheWait(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		repo, reg := w.paced("10kB")
		d := reg.AddBlob("lib/x", make([]byte, 600_000))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		st, err := repo.Blobs().Open(ctx, d, whole)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Body.Close()
		if _, err := io.Copy(io.Discard, st.Body); err == nil || errors.Is(err, blob.ErrStalled) || time.Since(began) > 1100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
