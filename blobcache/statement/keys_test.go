package statement

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	k := signer(t, 1).Key()
	if got, err := ParseKey(k.String()); err != nil || got != k || !strings.HasPrefix(k.String(), "ed25519:") || len(k.String()) != 52 {
		t.Errorf("%s became %s, %v", k, got, err)
	}
	good := k.String()
	secret := strings.Split(string(signer(t, 1).Text()), "\n")[2]
	for _, s := range []string{
		"", "ed25519:", good[8:], "ED25519:" + good[8:], good + "=", good[:51], " " + good, good + "\n", good[:30] + "\n" + good[30:], good[:50] + "B=", secret,
		"ed25519:" + base64.StdEncoding.EncodeToString(make([]byte, 31)), "ed25519:" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		_, err := ParseKey(s)
		if !errors.Is(err, ErrKey) || len(s) > 20 && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Keys of small order are refused; anybody can sign for them.
func TestWeakKeys(t *testing.T) {
	identity := [32]byte{1}
	forged := append(identity[:], make([]byte, 32)...)
	for _, y := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw, err := hex.DecodeString(y)
		if err != nil {
			t.Fatal(err)
		}
		for _, sign := range []byte{0, 0x80} {
			k := Key(raw)
			k[31] |= sign
			passed := false
			for n := range 200 {
				passed = passed || ed25519.Verify(k[:], []byte(fmt.Sprint(n)), forged)
			}
			if _, err := ParseKey(k.String()); !passed || !errors.Is(err, ErrKey) {
				t.Errorf("%s: a forged signature passes: %v; taken: %v", k, passed, err)
			}
		}
	}
}

func TestSigningKeyFile(t *testing.T) {
	s := GenerateSigner()
	if s.Key() == GenerateSigner().Key() || s.Key().weak() {
		t.Error("a new key is none")
	}
	text := string(s.Text())
	if !strings.Contains(text, s.Key().String()) {
		t.Errorf("the public key is not in the file: %s", text)
	}
	got, err := ParseSigner([]byte("\n # mine\r\n" + strings.ReplaceAll(text, "\n", " \r\n\n")))
	if err != nil || got.Key() != s.Key() {
		t.Errorf("%v, %v", got, err)
	}
	lines := strings.Split(text, "\n")
	for name, bad := range map[string]string{
		"empty": "", "no header": lines[2], "no key": lines[0], "newer": strings.Replace(text, "/1", "/2", 1), "two keys": text + lines[2] + "\n",
		"short": lines[0] + "\nAAAA\n", "not base64": lines[0] + "\n!" + lines[2][1:], "loose base64": lines[0] + "\n" + lines[2][:42] + "B=", "public key": lines[0] + "\n" + s.Key().String(),
		"long": text + strings.Repeat("#\n", maxSignerSize), "a swarm key": "shoal-swarm-key/1\n" + lines[2],
	} {
		_, err := ParseSigner([]byte(bad))
		if !errors.Is(err, ErrKey) || strings.Contains(err.Error(), lines[2]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if out := fmt.Sprintf(verb, s); out != "signer("+s.Key().String()+")" {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

// FuzzParseSigner: a file is a key that prints as one that is the same, and no
// error tells what was in the file.
func FuzzParseSigner(f *testing.F) {
	f.Add(signer(f, 1).Text())
	f.Add([]byte(signerHeader + "\nAAAA\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSigner(text)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Errorf("%v", err)
			}
			return
		}
		if again, err := ParseSigner(s.Text()); err != nil || again.Key() != s.Key() {
			t.Errorf("read back %v, %v", again, err)
		}
		if k, err := ParseKey(s.Key().String()); err != nil || k != s.Key() {
			t.Errorf("its public key: %v, %v", k, err)
		}
	})
}
