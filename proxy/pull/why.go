package pull

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
)

// why says in a sentence what held the pull up: what it waited for longest, how
// long, and at which rate that went.
func why(r *Report, client float64) string {
	if r.Result == Aborted {
		return "the client left before it had everything"
	}
	if r.Result == Failed {
		return "failed: " + r.Error
	}
	waited := fmt.Sprintf("%s of %s", seconds(r.Waits[0].Seconds), seconds(r.Seconds))
	switch r.Bottleneck {
	case Lookup:
		return "nobody was found to ask for " + waited
	case Connect:
		return "who was asked gave no first byte for " + waited
	case Registry:
		return origin(r, waited)
	case Peers:
		return peers(r)
	case Proof:
		return "the bytes were here and being proven for " + waited
	case Disk:
		return "the disk was waited for, " + waited
	case Client:
		return fmt.Sprintf("the client read slower than the bytes came: %s, and they waited for %s", rate(float64(r.Bytes)/client), waited)
	}
	return "the client asked for nothing for " + waited
}

// origin is the sentence about a registry.
func origin(r *Report, waited string) string {
	var most Source
	for _, s := range r.Sources {
		if s.Kind == OriginSource && s.Bytes > most.Bytes {
			most = s
		}
	}
	host, _, _ := strings.Cut(most.Name, "/")
	switch {
	case most.Bytes > 0 && most.Rate == 0:
		return fmt.Sprintf("%s gave %s, past the cache", host, rate(float64(most.Bytes)/r.Waits[0].Seconds))
	case most.Rate == 0 || most.Busy*r.Seconds < r.Waits[0].Seconds/2:
		return "the registry was asked what there is for " + waited
	}
	return fmt.Sprintf("%s gave %s and was busy %.0f %% of the time", host, rate(most.Rate), 100*most.Busy)
}

// peers is the sentence about members.
func peers(r *Report) string {
	var count int
	var busy, all float64
	for _, s := range r.Sources {
		if s.Kind == PeerSource && s.Bytes > 0 {
			count++
			busy, all = max(busy, s.Busy), all+s.Rate
		}
	}
	who := fmt.Sprintf("%d members", count)
	if count == 1 {
		who = "one member"
	}
	if count == 0 {
		return fmt.Sprintf("members were asked for %s of %s and gave nothing", seconds(r.Waits[0].Seconds), seconds(r.Seconds))
	}
	return fmt.Sprintf("%s gave %s and were busy %.0f %% of the time", who, rate(all), 100*busy)
}

// rate is in bytes a second.
func rate(n float64) string { return units.BytesSize(n) + "/s" }

// seconds are for people: three digits, and no more.
func seconds(s float64) string {
	switch {
	case s < 0.1:
		return fmt.Sprintf("%.1f ms", 1000*s)
	case s < 1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	case s < 10:
		return fmt.Sprintf("%.2f s", s)
	case s < 100:
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}
