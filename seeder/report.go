package seeder

import (
	"slices"
	"time"
)

const (
	// maxTold bounds the images that a report of a run names.
	maxTold = 1000
	// maxErrors bounds what went wrong with lists, in a report.
	maxErrors = 100
	// maxRuns is how many runs of a selection are reported on.
	maxRuns = 8
)

// Why a run began.
const (
	ByStart        = "start"
	BySchedule     = "schedule"
	ByFollow       = "follow"
	ByNotification = "notification"
	ByOperator     = "operator"
)

// Report is what the seeder does, has done and is going to do.
type Report struct {
	Selections []SelectionReport `json:"selections"`
}

// SelectionReport is that of a selection.
type SelectionReport struct {
	Name string `json:"name"`
	// Chosen is the number of images, also those that were chosen before a
	// restart, and Listed when a list named the one that was longest not in any.
	Chosen int       `json:"chosen"`
	Listed time.Time `json:"listed,omitzero"`
	// Next is when registries are asked next what there is; zero is when
	// somebody says so.
	Next time.Time `json:"next,omitzero"`
	// Followed is when the tags were last asked for, and nothing was new.
	Followed time.Time `json:"followed,omitzero"`
	// Running is the run that goes on, nil if none does.
	Running *Run `json:"running,omitempty"`
	// Runs are the last ones, newest first, without those of Followed.
	Runs []Run `json:"runs"`
	// Holders is the last check of who else holds it, nil before the first.
	Holders *Holders `json:"holders,omitempty"`
}

// Run is one look at a selection.
type Run struct {
	Why   string    `json:"why"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Chosen is the number of images; of them so many are here already, have
	// come, or could not be had.
	Chosen    int   `json:"chosen"`
	Unchanged int   `json:"unchanged"`
	Fetched   int   `json:"fetched"`
	Failed    int   `json:"failed"`
	Bytes     int64 `json:"bytes"` // that came
	// LeftOut counts tags that a pattern covers and rules leave out, by reason.
	LeftOut map[string]int `json:"left_out,omitempty"`
	// Images are those that are under way, failed, or have come, in this order,
	// and those of which nobody could ask what they are.
	Images []Progress `json:"images"`
	// Errors is why lists could not be had, and how much of them stays chosen, as
	// of when.
	Errors []string `json:"errors,omitempty"`
}

// good tells whether all that was to be had was.
func (r Run) good() bool { return r.Failed == 0 && len(r.Errors) == 0 }

// take counts an image that has ended.
func (r *Run) take(p Progress) {
	switch p.State {
	case Failed:
		r.Failed++
	case Fetched:
		r.Fetched++
		r.Bytes += p.Missing
	default:
		if r.Unchanged++; !p.Stale {
			return
		}
	}
	r.Images = append(r.Images, p)
}

// sorted puts what people look for first, and cuts the rest off.
func (r Run) sorted() Run {
	rank := map[State]int{Fetching: -2, Failed: -1}
	r.Images = slices.SortedStableFunc(slices.Values(r.Images), func(a, b Progress) int { return rank[a.State] - rank[b.State] })
	if len(r.Images) == 0 {
		r.Images = []Progress{} // as JSON has lists
	}
	r.Images = r.Images[:min(len(r.Images), maxTold)]
	return r
}

func (r *Run) fail(err error) {
	if len(r.Errors) < maxErrors {
		r.Errors = append(r.Errors, err.Error())
	}
}
