// Package name is the grammar of repositories' names. It is pure, and read by
// hand: a name comes with every request, and of the time of a HEAD that is
// answered from memory a regular expression took a twentieth.
package name

import "strings"

// most is what registries enforce for the length of a name in bytes.
const most = 255

// Valid tells whether s is a <name> of the OCI distribution specification 1.1,
// "Pulling manifests":
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
//
// of at most 255 bytes.
func Valid(s string) bool {
	if len(s) > most {
		return false
	}
	for component := range strings.SplitSeq(s, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

// validComponent tells whether s is words with separators between them.
func validComponent(s string) bool {
	for {
		word := len(s)
		for i := range len(s) {
			if !alphanumeric(s[i]) {
				word = i
				break
			}
		}
		if word == 0 {
			return false
		}
		if s = s[word:]; s == "" {
			return true
		}
		s = afterSeparator(s)
	}
}

// afterSeparator returns what comes after the separator that s begins with,
// or s if it begins with none.
func afterSeparator(s string) string {
	if s[0] == '-' {
		return strings.TrimLeft(s, "-")
	}
	for _, separator := range []string{"__", "_", "."} {
		if rest, ok := strings.CutPrefix(s, separator); ok {
			return rest
		}
	}
	return s
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
