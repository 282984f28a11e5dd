package swarmkey

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// vector is a fixed key, so that a change of any derivation shows.
const vector = "shoal-swarm-key/1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

func parse(t *testing.T, text string) *Key {
	t.Helper()
	k, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func secretLine(k *Key) string { return strings.Split(string(k.Text()), "\n")[1] }

func TestTextIsReadBack(t *testing.T) {
	a, b := New(), New()
	both := parse(t, header+"\n# old\n"+secretLine(a)+"\n\n  "+secretLine(b)+" \r\n")
	if got := parse(t, string(both.Text())); !bytes.Equal(got.Text(), both.Text()) {
		t.Errorf("read back %q", got.Text())
	}
	if both.String() != a.String()+","+b.String() {
		t.Errorf("fingerprints %s of %s and %s", both, a, b)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, both.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.String() != both.String() {
		t.Errorf("loaded %s, want %s", loaded, both)
	}
}

func TestInvalidFiles(t *testing.T) {
	s := secretLine(New())
	for name, text := range map[string]string{
		"empty":            "",
		"no header":        s + "\n",
		"newer version":    "shoal-swarm-key/2\n" + s + "\n",
		"no secret":        header + "\n",
		"not base64":       header + "\n!" + s[1:] + "\n",
		"short secret":     header + "\nAAAA\n",
		"long secret":      header + "\n" + strings.Repeat("A", 64) + "\n",
		"three secrets":    header + "\n" + s + "\n" + secretLine(New()) + "\n" + secretLine(New()) + "\n",
		"same twice":       header + "\n" + s + "\n" + s + "\n",
		"loose base64":     header + "\n" + s[:42] + "B=\n",
		"too long":         header + "\n" + s + "\n" + strings.Repeat("#\n", maxFileSize),
		"binary garbage":   "\x00\xff\xfe\n",
		"one endless line": header + "\n" + strings.Repeat("x", maxFileSize-100),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(text))
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v", err)
			}
			if strings.Contains(err.Error(), s) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("what\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	k := New()
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", struct{ K *Key }{k})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", k)
	// %d and the like would show bytes in decimal: look for both spellings.
	raw := k.members[0].secret
	for _, bad := range []string{secretLine(k), fmt.Sprintf("%x", raw[:4]), fmt.Sprintf("%d %d %d", raw[0], raw[1], raw[2])} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("output shows %q:\n%s", bad, &out)
		}
	}
}

func TestDerivationsAreFixed(t *testing.T) {
	k := parse(t, vector)
	d := digest.FromString("hello")
	proof := k.Prove([]byte("message"))
	got := fmt.Sprintf("%s\n%x\n%x\n%s\n%s", k.CID(d), k.Transport()[0][:8], proof[:8], k.ServiceNames()[0], k)
	// Computed with another implementation of HKDF, HMAC and CID.
	const want = `bafkreigxpg3u3eug5nvzsy7xujhwewqewqrcw3zfvmuumt3r26lbzvtd5u
033c47a775153c3c
b79d93ae20570f59
_shoal-bb873ad3._udp
swarmkey(198ee57e)`
	if got != want {
		t.Errorf("members of different versions would not meet:\n%s\nwant\n%s", got, want)
	}
}

func TestNamesHideTheDigest(t *testing.T) {
	d := digest.FromString("a layer")
	a, b := New(), New()
	if a.CID(d).Equals(b.CID(d)) {
		t.Error("two swarms use the same name")
	}
	if a.CID(d).Equals(a.CID(digest.FromString("another layer"))) {
		t.Error("two blobs have the same name")
	}
	if strings.Contains(fmt.Sprintf("%x", a.CID(d).Bytes()), d.Encoded()) {
		t.Error("the name contains the digest")
	}
}

func TestRotation(t *testing.T) {
	older, newer := New(), New()
	second := parse(t, header+"\n"+secretLine(older)+"\n"+secretLine(newer)+"\n")
	first := parse(t, header+"\n"+secretLine(newer)+"\n"+secretLine(older)+"\n")
	d := digest.FromString("a layer")
	message := []byte("exporter and so on")
	// Each step of the rotation next to the one before it.
	for _, pair := range [][2]*Key{{older, second}, {second, first}, {first, newer}} {
		for _, p := range [][2]*Key{pair, {pair[1], pair[0]}} {
			if !p[0].Verify(message, p[1].Prove(message)) {
				t.Errorf("%s does not believe %s", p[0], p[1])
			}
			found := false
			for _, c := range p[0].CIDs(d) {
				found = found || c.Equals(p[1].CID(d))
			}
			if !found {
				t.Errorf("%s does not find what %s announces", p[0], p[1])
			}
		}
	}
	if older.Verify(message, newer.Prove(message)) {
		t.Error("members of two swarms believe each other")
	}
	if first.Transport()[0] != newer.Transport()[0] {
		t.Error("the first secret is not the one that is used")
	}
}

func TestProofCoversTheMessage(t *testing.T) {
	k := New()
	proof := k.Prove([]byte("one"))
	if k.Verify([]byte("other"), proof) {
		t.Error("a proof holds for another message")
	}
	proof[31] ^= 1
	if k.Verify([]byte("one"), proof) {
		t.Error("a changed proof holds")
	}
}

func TestLoopbackKey(t *testing.T) {
	if a, b := Loopback(), Loopback(); a.String() != "none" || !bytes.Equal(a.Text(), b.Text()) {
		t.Error("keyless nodes do not meet")
	}
	if !Loopback().Loopback() || New().Loopback() {
		t.Error("who is keyless?")
	}
}

// FuzzParse: a key prints as a file that holds the same key, and no error tells
// what was in the file.
func FuzzParse(f *testing.F) {
	f.Add(New().Text())
	f.Add(append(New().Text(), bytes.TrimPrefix(New().Text(), []byte(header+"\n"))...))
	f.Add([]byte("# a comment\n\n" + header + "\nAAAA\n"))
	f.Add([]byte(header))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			for line := range bytes.Lines(text) {
				if line = bytes.TrimSpace(line); len(line) > len(header) && bytes.Contains([]byte(err.Error()), line) {
					t.Errorf("the error tells a line of the file: %v", err)
				}
			}
			return
		}
		again, err := Parse(k.Text())
		if err != nil || again.String() != k.String() || len(again.members) != len(k.members) {
			t.Errorf("%v, %v", again, err)
		}
	})
}
