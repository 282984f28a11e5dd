package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExampleFile: the file that operators begin with names every setting, and all
// of it at once is a configuration.
func TestExampleFile(t *testing.T) {
	text, err := os.ReadFile("../../../../deploy/systemd/shoal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	settings := regexp.MustCompile(`(?m)^#([a-z]|  )`).ReplaceAllString(string(text), "$1")
	path := filepath.Join(t.TempDir(), "shoal.yaml")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Flags{Common: Common{Config: Words{path}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Seeder.Selections) != 2 || len(c.Registries) != 2 {
		t.Errorf("%d selections, %d registries", len(c.Seeder.Selections), len(c.Registries))
	}
	wanted := names()
	for path := range seederSettings() {
		wanted = append(wanted, path[strings.LastIndexByte(path, '.')+1:])
	}
	for name := range selectionSettings() {
		wanted = append(wanted, name)
	}
	for _, name := range wanted {
		if !regexp.MustCompile(`(?m)^#.*\b`+name+`: `).MatchString(string(text)) && !strings.Contains(string(text), "\n#"+name+":\n") {
			t.Errorf("%s is not in the file", name)
		}
	}
}
