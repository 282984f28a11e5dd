package seeder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache"
)

// DefaultConcurrency is how many images are asked for or fetched at a time if the
// operator says nothing: enough that questions about the next ones are answered
// while one fills the link.
const DefaultConcurrency = 4

// MaxConcurrency bounds it.
const MaxConcurrency = 64

// ErrUnknown is a selection that there is not.
var ErrUnknown = errors.New("no such selection")

// Config is what the operator wants to have at hand.
type Config struct {
	// Concurrency is how many images are asked for or fetched at a time by all
	// selections; 0 is DefaultConcurrency.
	Concurrency int
	// Rate bounds what they take, in bytes a second on the average; 0 is no
	// bound. It is kept from blob to blob.
	Rate int64
	// CheckEvery is the time between two checks of who holds what; 0 is
	// DefaultCheck.
	CheckEvery time.Duration
	Selections []Selection
	Webhook    Webhook
}

// Check returns the first thing that is wrong, or nil. It opens no files.
func (c Config) Check() error {
	if len(c.Selections) > maxSelections {
		return fmt.Errorf("%d selections: use at most %d", len(c.Selections), maxSelections)
	}
	if c.CheckEvery != 0 && c.CheckEvery < minCheck {
		return fmt.Errorf("check-holders is %v: use %v or more", c.CheckEvery, minCheck)
	}
	for _, s := range c.Selections {
		if err := s.Check(); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return c.Webhook.check()
}

// Options say what a Seeder works with. Mirror, Lister and Cache are needed.
type Options struct {
	Mirror Mirror
	Lister Lister
	Cache  *blobcache.Cache
	// Swarm is needed if a selection has MinHolders.
	Swarm Swarm
	// Busy tells whether a runtime waits for a download; nil is never.
	Busy func() bool
	// Platforms are those of selections that name none.
	Platforms []string
	// Looked is the file that says when selections with a schedule were looked at
	// last; with none, no look is made up for. Chosen is the folder of what each
	// selection chose last; with none, a new Seeder knows nothing of it until
	// registries list what there is.
	Looked  string
	Chosen  string
	Logger  *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil registers nothing
}

// Seeder keeps selections at hand. Its methods may be called from any goroutine.
type Seeder struct {
	o       Options
	log     *slog.Logger
	metrics *metrics
	rests   *rests
	looked  *looked
	chosen  choices
	changed chan struct{} // holds one: there is another config

	mu      sync.Mutex
	config  Config
	runners []*runner
}

// New returns a Seeder that does nothing until Run. Errors: those of Config.Check,
// and of metrics that are there already.
func New(o Options, c Config) (*Seeder, error) {
	s := &Seeder{o: o, log: o.Logger, rests: newRests(), chosen: choices{o.Chosen}, changed: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("seeder: %w", err)
	}
	if s.looked, err = openLooked(o.Looked); err != nil {
		s.log.Warn("looks that were missed are not made up for", "error", err)
	}
	return s, s.Apply(c)
}

// Apply takes a config in place of the one before. Selections that are the same go
// on; a run of one that is not is given up, what has come stays. If the config is
// wrong the one before stays.
func (s *Seeder) Apply(c Config) error {
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.CheckEvery == 0 {
		c.CheckEvery = DefaultCheck
	}
	if err := c.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	s.config = c
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run keeps selections at hand until ctx ends, and returns when its goroutines
// have.
func (s *Seeder) Run(ctx context.Context) error {
	defer s.follow(ctx, Config{}, nil)
	var lim *limits
	var last Config
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		s.mu.Lock()
		c := s.config
		s.mu.Unlock()
		if lim == nil || c.Concurrency != last.Concurrency || c.Rate != last.Rate || c.CheckEvery != last.CheckEvery {
			lim = newLimits(c, s.o.Busy)
		}
		s.follow(ctx, c, lim)
		last = c
	}
}

// follow has runners for the selections of c and for no others.
func (s *Seeder) follow(ctx context.Context, c Config, lim *limits) {
	s.mu.Lock()
	old := s.runners
	s.mu.Unlock()
	var now []*runner
	var add []rules
	for _, selection := range c.Selections {
		if len(selection.Platforms) == 0 {
			selection.Platforms = s.o.Platforms
		}
		i := slices.IndexFunc(old, func(r *runner) bool { return r.limits == lim && reflect.DeepEqual(r.Selection, selection) })
		if i >= 0 {
			now = append(now, old[i])
			continue
		}
		rules, err := selection.compile()
		if err != nil { // Apply has checked it; a time zone may have gone
			s.log.Error("selection left out", "selection", selection.Name, "error", err)
			continue
		}
		add = append(add, rules)
	}
	for _, r := range old { // before another of the same name begins
		if !slices.Contains(now, r) {
			r.stop()
			<-r.ended
			s.metrics.failing.DeleteLabelValues(r.Name)
			s.metrics.short.DeleteLabelValues(r.Name)
		}
	}
	for _, rules := range add {
		now = append(now, s.start(ctx, rules, lim))
	}
	slices.SortFunc(now, func(a, b *runner) int { return strings.Compare(a.Name, b.Name) })
	s.mu.Lock()
	s.runners = now
	s.mu.Unlock()
}

func (s *Seeder) start(ctx context.Context, rules rules, lim *limits) *runner {
	ctx, stop := context.WithCancel(ctx)
	r := &runner{
		rules: rules, s: s, limits: lim, began: time.Now(), wake: make(chan struct{}, 1),
		brought: make(chan struct{}, 1), stop: stop, ended: make(chan struct{}), failing: map[string]string{},
	}
	var err error
	if r.choice, err = s.chosen.read(rules); err != nil {
		s.log.Warn("what a selection chose before is not known until its registries list it", "selection", r.Name, "error", err)
	}
	if len(r.choice) > 0 {
		r.looked = r.began // the tags are followed, also if the next look is far
	}
	if at, ok := s.looked.last(r.Name, r.began); ok && r.schedule != nil {
		r.began = at
	}
	go r.run(ctx)
	return r
}

// note writes down that a selection with a schedule was looked at.
func (s *Seeder) note(name string, at time.Time) {
	s.mu.Lock()
	selections := s.config.Selections
	s.mu.Unlock()
	if err := s.looked.note(name, at, selections); err != nil {
		s.log.Error("a look may be made up for that was not missed", "selection", name, "error", err)
	}
}

// keep writes down what a selection chose.
func (s *Seeder) keep(name string, text []byte) {
	s.mu.Lock()
	selections := s.config.Selections
	s.mu.Unlock()
	if err := s.chosen.write(name, text, selections); err != nil {
		s.log.Error("what a selection chose will not be known after a restart", "selection", name, "error", err)
	}
}

func (s *Seeder) all() []*runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runners
}

// Look has a selection look at everything now, or all if name is empty. Error:
// ErrUnknown.
func (s *Seeder) Look(name string) error {
	found := false
	for _, r := range s.all() {
		if name == "" || r.Name == name {
			r.ask()
			found = true
		}
	}
	if !found && name != "" {
		return fmt.Errorf("%w: %.80q", ErrUnknown, name)
	}
	return nil
}

// Notify tells what was pushed to a registry. It returns how many of the events
// are for a selection: others are passed over.
func (s *Seeder) Notify(events []Event) (taken int) {
	for _, e := range events {
		mine := false
		for _, r := range s.all() {
			mine = r.notify(e) || mine
		}
		if mine {
			taken++
		}
	}
	return taken
}

// Report tells what is done, was done and will be.
func (s *Seeder) Report() Report {
	report := Report{Selections: []SelectionReport{}}
	for _, r := range s.all() {
		report.Selections = append(report.Selections, r.report())
	}
	return report
}
