package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"shoal/proxy/pull"
)

func TestPullsForPeople(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	list := []pull.Summary{
		{ID: 3, Began: began, Image: "ghcr.io/org/app@sha256:" + strings.Repeat("ab", 32), Seconds: 0.25, Result: pull.Failed, Why: "failed: manifest: not known"},
		{
			ID: 2, Began: began, Image: "docker.io/library/nginx:1.27", Platform: "linux/amd64", Seconds: 4.2, Result: pull.OK, Bytes: 96 << 20,
			FromOrigin: 90 << 20, FromPeers: 6 << 20, Ratio: 1.064, Why: "docker.io gave 25MiB/s and was busy 94 % of the time",
		},
		{ID: 1, Began: began},
	}
	var out bytes.Buffer
	if err := printPulls(&out, list, 2); err != nil {
		t.Fatal(err)
	}
	want := `ID  BEGAN           IMAGE                                PLATFORM     TOOK    BYTES  REGISTRY  MEMBERS  CACHE  RATIO  WHY
3   01-02 03:04:05  ghcr.io/org/app@sha256:abababababab  -            250 ms  0B     -         -        -      -      failed: manifest: not known
2   01-02 03:04:05  nginx:1.27                           linux/amd64  4.20 s  96MiB  90MiB     6MiB     -      1.06   docker.io gave 25MiB/s and was busy 94 % of the time
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	if err := printPulls(&out, nil, 2); err != nil || !strings.HasPrefix(out.String(), "no pull has ended yet") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("none: %q, %v", out.String(), err)
	}
}
