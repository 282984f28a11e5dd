package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	barWidth = 30
	// A terminal is redrawn often enough to look alive; plain lines are for
	// logs, where one a second is plenty.
	redrawEvery = 100 * time.Millisecond
	printEvery  = time.Second
)

// progress shows how far clients are, until it is stopped.
type progress struct {
	out      io.Writer
	terminal bool
	names    []string
	clients  []*client
	total    int64 // bytes that each client reads
	drawn    bool
	quit     chan struct{}
	done     chan struct{}
}

// newProgress starts the goroutine that draws; stop ends it.
func newProgress(out io.Writer, terminal bool, names []string, clients []*client, total int64) *progress {
	p := &progress{
		out: out, terminal: terminal, names: names, clients: clients, total: total,
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run()
	return p
}

// stop draws the last state and returns when the goroutine has ended.
func (p *progress) stop() {
	close(p.quit)
	<-p.done
}

func (p *progress) run() {
	defer close(p.done)
	every := printEvery
	if p.terminal {
		every = redrawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.draw()
		case <-p.quit:
			p.draw()
			_, _ = io.WriteString(p.out, "\n")
			return
		}
	}
}

// draw writes the state: bars over the former ones, or one line.
func (p *progress) draw() {
	var b strings.Builder
	if p.terminal && p.drawn {
		fmt.Fprintf(&b, "\x1b[%dA", len(p.names)) // up to the first bar
	}
	p.drawn = true
	for i, name := range p.names {
		share := min(1, float64(p.clients[i].read.Load())/float64(p.total))
		if p.terminal {
			full := int(share * barWidth)
			fmt.Fprintf(&b, "   %-7s [%s%s] %3.0f %%\x1b[K\n", name, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), share*100)
		} else {
			fmt.Fprintf(&b, "   %s %3.0f %%", name, share*100)
		}
	}
	if !p.terminal {
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(p.out, b.String())
}
