package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

func TestRule9Ranges(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		b := addBlob(r.hub, "library/app", random(1, 3*blob.PieceSize+5))
		path := "/v2/library/app/blobs/" + b.ref()
		size := len(b.bytes)
		for range 2 { // from the fill, then from the cache
			for _, c := range []struct {
				header   string
				from, to int
			}{
				{"bytes=0-", 0, size},
				{"bytes=1048576-", blob.PieceSize, size},
				{"bytes=100-199", 100, 200},
				{"bytes=3145000-9999999", 3145000, size},
				{"bytes=-7", size - 7, size},
			} {
				a := r.get(path, "Range: "+c.header)
				a.wants(t, http.StatusPartialContent, b.bytes[c.from:c.to])
				if want := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size); a.Header.Get("Content-Range") != want {
					t.Errorf("%s: Content-Range %q, want %q", c.header, a.Header.Get("Content-Range"), want)
				}
			}
			a := r.get(path, fmt.Sprintf("Range: bytes=%d-", size))
			a.refused(t, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID")
			if want := fmt.Sprintf("bytes */%d", size); a.Header.Get("Content-Range") != want {
				t.Errorf("Content-Range %q, want %q", a.Header.Get("Content-Range"), want)
			}
			// What means nothing, or is of another content, is the whole.
			for _, header := range []string{"bytes=0-1,5-6", "bytes=9-5", "bytes=five", "lines=1-2"} {
				r.get(path, "Range: "+header).wants(t, http.StatusOK, b.bytes)
			}
			r.get(path, "Range: bytes=1-2", `If-Range: "`+b.ref()+`"`).wants(t, http.StatusPartialContent, b.bytes[1:3])
			r.get(path, "Range: bytes=1-2", `If-Range: "`+zero+`"`).wants(t, http.StatusOK, b.bytes)
			r.get(path, "Range: bytes=-0").refused(t, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID")
			r.get(path, `If-None-Match: "`+b.ref()+`"`).wants(t, http.StatusNotModified, nil)
		}
		r.asked(r.hub, "GET blob "+b.ref()+" -> 200") // one fill for all
	})
}

// containerd 2.1 fetches a layer in parallel by open-ended ranges: it reads one
// chunk of each and resets the connection.
func TestRule9OpenEndedRangesThatAreReset(t *testing.T) {
	bubble(t, options{}, func(r *rig) {
		t := r.t
		const chunk = 100 << 10
		b := addBlob(r.hub, "library/app", random(1, 8*blob.PieceSize))
		r.hub.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Trickle(256<<10, time.Second/10)})
		for off := 0; off < 8*blob.PieceSize; off += 2 * blob.PieceSize {
			conn, err := r.dial(t.Context(), "tcp", "mirror:80")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET /v2/library/app/blobs/%s HTTP/1.1\r\nHost: mirror\r\nRange: bytes=%d-\r\n\r\n", b.ref(), off)
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got := make([]byte, chunk)
			if _, err := io.ReadFull(resp.Body, got); err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(got, b.bytes[off:off+chunk]) {
				t.Errorf("at %d: %d, %v", off, resp.StatusCode, err)
			}
			conn.Close()
		}
		synctest.Wait()
		// No more was sent than was read, but for buffers of net/http.
		if sent := r.counter("shoal_proxy_served_bytes_total"); sent > 4*chunk+4*writeChunk {
			t.Errorf("%v bytes went out for %d that were read", sent, 4*chunk)
		}
		// The fill goes on, and ends.
		sleep(10 * time.Second)
		r.get("/v2/library/app/blobs/"+b.ref()).wants(t, http.StatusOK, b.bytes)
		r.asked(r.hub, "GET blob "+b.ref()+" -> 200")
		if n := r.logged("not served"); n != 0 {
			t.Errorf("clients that leave are worth no line, there are %d:\n%s", n, r.log)
		}
	})
}
