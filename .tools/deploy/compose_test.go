package main

import (
	"os"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestCompose: the compose file is one to compose itself, and has what it says.
func TestCompose(t *testing.T) {
	const file = root + "/deploy/compose/compose.yaml"
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: root + "/deploy/compose", ConfigFiles: []types.ConfigFile{{Filename: file}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if names := project.ServiceNames(); !slices.Equal(names, []string{"a", "b", "c", "origin"}) {
		t.Errorf("services %v", names)
	}
	if _, err := os.Stat(project.Services["a"].Build.Context + "/" + project.Services["a"].Build.Dockerfile); err != nil {
		t.Error(err)
	}
	for name, s := range project.Services {
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("port %s of %s is open to the network", p.Published, name)
			}
		}
		if name != "origin" && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.MemLimit == 0) {
			t.Errorf("%s is not shut in", name)
		}
	}
}
