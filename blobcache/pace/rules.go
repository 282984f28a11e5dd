package pace

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Rate is a number of bytes a second; Unlimited is none.
type Rate int64

// Unlimited is no limit at all.
const Unlimited Rate = 0

const (
	// least keeps a typo ("5" for "5MB") from stopping everything, and requests
	// from waiting so long between two bytes that members take each other for
	// dead.
	least Rate = 10_000
	most  Rate = 1e12
)

// rateGrammar is a number, a prefix (powers of 1000, with an i of 1024), a unit,
// and what some write behind it.
var rateGrammar = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,9})?)([kKMGT]?)(i?)(B|bit|)(?:/s)?$`)

// ParseRate reads "50MB" (50,000,000 bytes a second), "50MiB", "400Mbit" (an
// eighth of 400,000,000), "unlimited" or "0".
func ParseRate(s string) (Rate, error) {
	if s == "0" || s == "unlimited" {
		return Unlimited, nil
	}
	m := rateGrammar.FindStringSubmatch(s)
	if m == nil || m[3] != "" && m[2] == "" {
		return 0, fmt.Errorf("%q is no rate: use bytes a second as 50MB or 50MiB, bits as 400Mbit, or unlimited", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil { // the grammar leaves none
		return 0, err
	}
	base := 1000.0
	if m[3] != "" {
		base = 1024
	}
	n *= math.Pow(base, float64(strings.Index(" KMGT", strings.ToUpper(m[2]))))
	if m[4] == "bit" {
		n /= 8
	}
	if n < float64(least) || n > float64(most) {
		return 0, fmt.Errorf("%q is out of range: use %v to %v, or unlimited", s, least, most)
	}
	return Rate(math.Round(n)), nil
}

// String writes r so that ParseRate reads the same: "5MB/s", "unlimited".
func (r Rate) String() string {
	if r == Unlimited {
		return "unlimited"
	}
	unit, name := 1.0, ""
	for _, next := range []string{"k", "M", "G", "T"} {
		if float64(r) < 1000*unit {
			break
		}
		unit, name = 1000*unit, next
	}
	// One division: the shortest decimal is then r's own digits.
	return strconv.FormatFloat(float64(r)/unit, 'f', -1, 64) + name + "B/s"
}

// day is a day in minutes.
const day = 24 * 60

// window is a rate at certain hours: from the minute of the day on, until
// another, which may be on the next day. until may be day.
type window struct {
	from, until int
	rate        Rate
}

func (w window) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d %v", w.from/60, w.from%60, w.until/60, w.until%60, w.rate)
}

// holds reports whether the minute of the day is in the window.
func (w window) holds(minute int) bool {
	if w.from < w.until {
		return w.from <= minute && minute < w.until
	}
	return minute >= w.from || minute < w.until
}

// maxWindows bounds what is looked through at each change of the minute.
const maxWindows = 32

// Rules say which rate counts when. The zero value is no limit.
type Rules struct {
	always  Rate
	windows []window // the last one that holds counts
}

// Error is a wrong word of rules.
type Error struct {
	Word int // its index
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Parse reads rules: one rate, which always counts ("5MB"), and any number of
// windows ("22:00-06:00 unlimited"), which count instead at their hours; of those
// that overlap the last. A window's rate may also be the next word. Errors: *Error.
func Parse(words []string) (Rules, error) {
	var r Rules
	var pending *window // of which the rate follows
	var pendingWord int
	always := false
	for i, word := range words {
		for _, token := range strings.Fields(word) {
			var err error
			var rate Rate
			switch {
			case pending == nil && strings.Contains(token, ":"):
				pending, err = parseHours(token)
				pendingWord = i
			case pending != nil:
				if pending.rate, err = ParseRate(token); err == nil {
					r.windows = append(r.windows, *pending)
					pending = nil
				}
			default:
				if rate, err = ParseRate(token); err == nil && always {
					err = fmt.Errorf("%q is a second rate for all hours: name the hours, as \"22:00-06:00 %s\"", token, token)
				}
				r.always, always = rate, true
			}
			if err != nil {
				return Rules{}, &Error{i, err}
			}
		}
	}
	switch {
	case pending != nil:
		return Rules{}, &Error{pendingWord, errors.New("hours without a rate: use for instance \"22:00-06:00 unlimited\"")}
	case len(r.windows) > maxWindows:
		return Rules{}, &Error{len(words) - 1, fmt.Errorf("more than %d windows", maxWindows)}
	}
	return r, nil
}

var hoursGrammar = regexp.MustCompile(`^([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})$`)

func parseHours(s string) (*window, error) {
	bad := fmt.Errorf("%q are no hours: use HH:MM-HH:MM, for instance 22:00-06:00", s)
	m := hoursGrammar.FindStringSubmatch(s)
	if m == nil {
		return nil, bad
	}
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // two digits
	}
	w := &window{from: 60*n[0] + n[1], until: 60*n[2] + n[3]}
	switch {
	case n[1] > 59 || n[3] > 59 || w.from >= day || w.until > day:
		return nil, bad
	case w.from == w.until:
		return nil, fmt.Errorf("%q is empty, or the whole day: name the rate alone for all hours", s)
	}
	return w, nil
}

// At returns the rate that counts at a moment, by the clock of its location.
func (r Rules) At(t time.Time) Rate {
	rate, minute := r.always, 60*t.Hour()+t.Minute()
	for _, w := range r.windows {
		if w.holds(minute) {
			rate = w.rate
		}
	}
	return rate
}

// Words writes r so that Parse reads the same.
func (r Rules) Words() []string {
	words := []string{r.always.String()}
	for _, w := range r.windows {
		words = append(words, w.String())
	}
	return words
}

// String is the words with commas between.
func (r Rules) String() string { return strings.Join(r.Words(), ", ") }
