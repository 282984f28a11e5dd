package scenario

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Rate is the rate of a link in bits per second, written as "200 Mbit/s".
type Rate int64

// Size is a number of bytes, written as "400 MB" (decimal) or "8 MiB" (binary).
type Size int64

// unit is a word behind a number, and what it multiplies it with.
type unit struct {
	name   string
	factor float64
}

func rateUnits() []unit {
	return []unit{{"Gbit/s", 1e9}, {"Mbit/s", 1e6}, {"kbit/s", 1e3}, {"bit/s", 1}}
}

func sizeUnits() []unit {
	return []unit{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// String returns the rate as it is written in files.
func (r Rate) String() string { return format(int64(r), rateUnits()) }

// String returns the size as it is written in files.
func (s Size) String() string { return format(int64(s), sizeUnits()) }

// UnmarshalYAML reads a rate.
func (r *Rate) UnmarshalYAML(node ast.Node) error { return unmarshal(node, (*int64)(r), rateUnits()) }

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(node ast.Node) error { return unmarshal(node, (*int64)(s), sizeUnits()) }

// unmarshal reads a number with a unit.
func unmarshal(node ast.Node, to *int64, units []unit) error {
	text := strings.Trim(node.String(), `"'`)
	n, err := parse(text, units)
	if err != nil {
		return &yaml.SyntaxError{Message: err.Error(), Token: node.GetToken()}
	}
	*to = n
	return nil
}

// parse reads text such as "1.5 MB". The blank is not needed.
func parse(text string, units []unit) (int64, error) {
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.name)
		number, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil {
			continue // "Mbit/s" ends in "bit/s" too
		}
		if n*u.factor < 0 || n*u.factor > 1e15 {
			return 0, fmt.Errorf("%q is out of range", text)
		}
		return int64(n * u.factor), nil
	}
	return 0, fmt.Errorf("%q must be a number and one of %s", text, strings.Join(names, ", "))
}

// format writes n in the shortest way that has no more than one digit behind the
// point.
func format(n int64, units []unit) string {
	shortest := strconv.FormatInt(n, 10) + " " + units[len(units)-1].name
	for _, u := range units {
		tenths := float64(n) * 10 / u.factor
		if tenths < 10 || tenths != float64(int64(tenths)) {
			continue
		}
		if text := strconv.FormatFloat(tenths/10, 'f', -1, 64) + " " + u.name; len(text) < len(shortest) {
			shortest = text
		}
	}
	return shortest
}
