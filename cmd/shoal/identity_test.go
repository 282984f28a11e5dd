package main

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
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
