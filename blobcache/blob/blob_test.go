package blob

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

// FuzzParseDigest: what passes is the canonical form, which is safe as a file
// name and in a URL, and nothing else; and no error repeats a long text.
func FuzzParseDigest(f *testing.F) {
	sum := strings.Repeat("0123456789abcdef", 4)
	for _, s := range []string{
		"sha256:" + sum, "sha256:" + strings.ToUpper(sum), "sha256:" + sum[1:], "sha256:" + sum + "0", sum, "SHA256:" + sum,
		"sha512:" + sum + sum, "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../" + sum[3:], "sha256:" + sum + "\n", strings.Repeat("a", 1000), "",
	} {
		f.Add(s)
	}
	canonical := regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)
	long := regexp.MustCompile(`\Asha(256:[0-9a-f]{64}|512:[0-9a-f]{128})\z`)
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if (err == nil) != canonical.MatchString(s) || err == nil && d.String() != s {
			t.Errorf("%q gives %q, %v", s, d, err)
		}
		if err != nil && (!errors.Is(err, ErrDigestInvalid) || len(err.Error()) > 600) {
			t.Errorf("%q: %v", s, err)
		}
		if err == nil {
			Descriptor{Digest: d}.Hash() // panics if it is none
		}
		other, anyErr := ParseAny(s)
		if (anyErr == nil) != long.MatchString(s) || anyErr == nil && (other.String() != s || other.Validate() != nil || Shared(other) != (err == nil)) {
			t.Errorf("ParseAny: %q gives %q, %v", s, other, anyErr)
		}
	})
}
