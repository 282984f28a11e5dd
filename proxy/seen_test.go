package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"shoal/blobcache/blob"
	"shoal/proxy/pull"
)

// reports returns a recorder, and what it has said by the end.
func reports(t *testing.T) (r *pull.Recorder, end func() []pull.Report) {
	t.Helper()
	var all []pull.Report
	r = pull.NewRecorder(func(p pull.Report) { all = append(all, p) })
	return r, func() []pull.Report {
		ended := errors.New("ended")
		ctx, cancel := context.WithCancelCause(context.Background()) // t is not of the bubble
		cancel(ended)
		if err := r.Run(ctx); !errors.Is(err, ended) {
			t.Errorf("run: %v", err)
		}
		return all
	}
}

// What a runtime asks for is told as one pull, with what came of it, and with no
// more of the request than its name.
func TestPullsAreReported(t *testing.T) {
	recorder, end := reports(t)
	bubble(t, options{pulls: recorder}, func(r *rig) {
		img := addImage(r.t, r.hub, "library/app", "v1")
		var size int64
		for _, b := range img.mine.blobs {
			size += b.Size
		}
		secrets := []string{"Authorization: Bearer secret-token", "User-Agent: docker/28.5.2 secret-os"}
		for _, path := range []string{"HEAD manifests/v1", "GET manifests/" + img.index.ref(), "GET manifests/" + img.mine.manifest.ref()} {
			method, path, _ := strings.Cut(path, " ")
			r.do(method, "/v2/library/app/"+path+"?q=secret-query", secrets...)
		}
		for _, b := range img.mine.blobs {
			r.do(http.MethodGet, "/v2/library/app/blobs/"+b.ref()+"?q=secret-query", secrets...).wants(r.t, http.StatusOK, b.bytes)
		}
		sleep(time.Minute)
		r.do(http.MethodGet, "/v2/library/app/manifests/none", secrets...)
		sleep(time.Minute)
		r.do(http.MethodGet, "/v2/library/app/blobs/"+img.mine.blobs[1].ref(), "Range: bytes=5-14")
		got := end()
		if len(got) != 3 {
			r.t.Fatalf("%d pulls: %+v", len(got), got)
		}
		first := got[0]
		kinds := ""
		for _, w := range first.Rows {
			kinds += w.Kind + " "
		}
		if first.Image != "docker.io/library/app:v1" || first.Platform != "linux/"+runtime.GOARCH || first.Result != pull.OK || !strings.HasSuffix(first.Client, " docker/28.5.2") ||
			first.Bytes != size+img.index.Size+img.mine.manifest.Size || kinds != "tag index manifest config layer layer " {
			r.t.Errorf("%+v of %s", first.Summary, kinds)
		}
		if second := got[1]; second.Image != "docker.io/library/app:none" || second.Result != pull.Failed || second.Error != "manifest: not known to the registry, nor to a member of the swarm" {
			r.t.Errorf("%+v", second.Summary)
		}
		if third := got[2]; third.Image != "docker.io/library/app" || third.Bytes != 10 || third.FromCache != 10 || third.Rows[0].Size != img.mine.blobs[1].Size || third.Result != pull.OK {
			r.t.Errorf("%+v", third)
		}
		text, err := json.Marshal(got)
		if err != nil || strings.Contains(string(text), "secret") {
			r.t.Errorf("%v, %s", err, text)
		}
	})
}

// A client that leaves in the middle is told of, and so is one that is slow.
func TestClientsThatLeaveAreReported(t *testing.T) {
	recorder, end := reports(t)
	bubble(t, options{pulls: recorder}, func(r *rig) {
		b := addBlob(r.hub, "a/b", random(1, 20*blob.PieceSize))
		resp := r.open("/v2/a/b/blobs/" + b.ref())
		if _, err := io.ReadFull(resp.Body, make([]byte, 2*blob.PieceSize)); err != nil {
			r.t.Fatal(err)
		}
		sleep(5 * time.Second)
		resp.Body.Close()
		sleep(5 * time.Second)
		got := end()
		if len(got) != 1 || got[0].Result != pull.Aborted || got[0].Rows[0].Error != "the client left" || got[0].Rows[0].Sent == 0 {
			r.t.Fatalf("%+v", got)
		}
		if got[0].Waits[0].For != pull.Client || got[0].Waits[0].Seconds < 4.9 {
			r.t.Errorf("%v", got[0].Waits)
		}
	})
}

// That requests are recorded costs no allocation, however often the same is asked for.
func TestRecordingDoesNotAllocate(t *testing.T) {
	m := benchManifest()
	handler, digests := benchServer(t, random(1, 8*blob.PieceSize), m)
	for _, request := range []string{
		"GET blobs/" + digests[0].String(), "HEAD blobs/" + digests[0].String(), "HEAD manifests/" + digests[1].String(),
	} {
		method, path, _ := strings.Cut(request, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, "/v2/library/x/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("User-Agent", "docker/28.5.2 go/go1.25.3")
		w := &plainWriter{header: http.Header{}}
		allocs := func(recorder *pull.Recorder) float64 {
			handler.(*Proxy).pulls = recorder
			for range 20 { // the first ones are kept
				handler.ServeHTTP(w, r)
			}
			return testing.AllocsPerRun(200, func() { handler.ServeHTTP(w, r) })
		}
		off, on := allocs(nil), allocs(pull.NewRecorder(func(pull.Report) {}))
		if on > off || w.status != http.StatusOK {
			t.Errorf("%s: %v allocations instead of %v, status %d", request, on, off, w.status)
		}
	}
}

// What is kept of a long User-Agent does not keep all of it in memory.
func TestAskerIsShort(t *testing.T) {
	agent := "docker/28.5.2 " + strings.Repeat("x", maxHeaderBytes)
	got := asker(&http.Request{RemoteAddr: "10.0.0.1:5", Header: http.Header{"User-Agent": {agent}}})
	if got.String() != "10.0.0.1 docker/28.5.2" {
		t.Errorf("%q", got)
	}
	if unsafe.StringData(got.Agent) == unsafe.StringData(agent) {
		t.Error("it is a part of the header")
	}
}

// A cached blob without and with its request being recorded: what that costs.
func BenchmarkRecorded(b *testing.B) {
	data := random(1, 8*blob.PieceSize)
	for name, recorder := range map[string]*pull.Recorder{"off": nil, "on": pull.NewRecorder(func(pull.Report) {})} {
		b.Run(name, func(b *testing.B) {
			handler, digests := benchServer(b, data)
			handler.(*Proxy).pulls = recorder
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/v2/library/app/blobs/"+digests[0].String(), nil)
			if err != nil {
				b.Fatal(err)
			}
			req.RemoteAddr = "127.0.0.1:1"
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(&plainWriter{header: http.Header{}}, req)
			}
		})
	}
}
