package name

import (
	"regexp"
	"strings"
	"testing"
)

// grammar is <name> as the specification has it.
var grammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

func TestValid(t *testing.T) {
	good := []string{"a", "library/alpine", "a.b/c_d/e__f/g---h", "0/1", strings.Repeat("a", 255)}
	bad := []string{
		"", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a_.b", "a-_b", "-a", "a-", ".a", "a.", "_a", "a_",
		"ü", "a\n", "a b", "a/../b", strings.Repeat("a", 256),
	}
	for _, s := range good {
		if !Valid(s) {
			t.Errorf("%q is no name", s)
		}
	}
	for _, s := range bad {
		if Valid(s) {
			t.Errorf("%q is a name", s)
		}
	}
}

// Every string of a few characters of the alphabet that matters means the same
// to the grammar.
func TestValidIsTheGrammar(t *testing.T) {
	const alphabet = "a0._-/A"
	names := 0
	var all func(s string, more int)
	all = func(s string, more int) {
		want := grammar.MatchString(s)
		if got := Valid(s); got != want {
			t.Errorf("Valid(%q) = %v, the grammar says %v", s, got, want)
		}
		if want {
			names++
		}
		for i := range len(alphabet) * min(1, more) {
			all(s+alphabet[i:i+1], more-1)
		}
	}
	all("", 6)
	if names < 1000 {
		t.Fatalf("only %d of them are names", names)
	}
}
