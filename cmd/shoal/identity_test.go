package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// "shoal id" runs beside a node that starts: whoever is first, both get one key.
func TestIdentityIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", identityFile)
	const processes = 16
	keys := make([][]byte, processes)
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			key, err := loadIdentity(path)
			if err != nil {
				t.Error(err)
				return
			}
			if keys[i], err = key.Raw(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if string(key) != string(keys[0]) {
			t.Fatal("two keys")
		}
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("in the directory: %v, %v", names, err)
	}
}

// FuzzReadIdentity: a key file holds one key, and no error tells what was in it.
func FuzzReadIdentity(f *testing.F) {
	path := filepath.Join(f.TempDir(), identityFile)
	if _, err := loadIdentity(path); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-5])
	f.Add([]byte(identityHeader + "\n"))
	f.Add(append([]byte("# mine\n"), text...))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := readIdentity(path)
		if err != nil {
			_, body, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
			if len(body) > 32 && bytes.Contains([]byte(err.Error()), body) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error tells what is in the file: %v", err)
			}
			return
		}
		raw, err := crypto.MarshalPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := crypto.UnmarshalPrivateKey(raw); err != nil || !again.Equals(key) {
			t.Errorf("%x is another key, %v", raw, err)
		}
	})
}
