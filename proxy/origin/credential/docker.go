package credential

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"

	"shoal/blobcache/blob"
)

// dockerMax is the largest config.json, in bytes. Real ones have some KiB.
const dockerMax = 1 << 20

type docker struct {
	file    string
	helpers *helpers
}

// Docker returns what a file holds that "docker login", "podman login" or
// Kubernetes wrote: credentials by host or, as podman has them, by a part of the
// repository's name, too, and the names of helpers, which are programs
// docker-credential-NAME. A helper counts more than what the file itself says.
func Docker(file string) (Source, error) {
	d := docker{file: file, helpers: newHelpers()}
	_, err := d.read()
	return d, err
}

func (d docker) Get(ctx context.Context, host, repository string, refused Credential) (Credential, error) {
	config, err := d.read()
	if err != nil {
		return Credential{}, err
	}
	for _, server := range servers(host) {
		for key := server + "/" + repository; len(key) > len(server); key = path.Dir(key) {
			if c := of(config.AuthConfigs[key]); c != (Credential{}) {
				return c, nil
			}
		}
	}
	// The store would take them for their host's.
	maps.DeleteFunc(config.AuthConfigs, func(key string, _ types.AuthConfig) bool {
		return strings.Contains(key, "/") && !strings.Contains(key, "://")
	})
	store := credentials.NewFileStore(config)
	for _, server := range servers(host) {
		helper, ok := config.CredentialHelpers[server]
		if !ok {
			helper = config.CredentialsStore
		}
		if helper != "" {
			c, err := d.helpers.ask(ctx, []string{"docker-credential-" + helper}, server, refused)
			if err != nil || c != (Credential{}) {
				return c, err
			}
		}
		// It never fails: it looks into a map.
		if a, _ := store.Get(server); of(a) != (Credential{}) {
			return of(a), nil
		}
	}
	return Credential{}, nil
}

func (d docker) read() (*configfile.ConfigFile, error) {
	raw, err := readFile(d.file, dockerMax)
	if err != nil {
		return nil, fmt.Errorf("%w: docker-config: %w", blob.ErrUnavailable, err)
	}
	config := configfile.New(d.file)
	if config.LoadFromReader(bytes.NewReader(raw)) != nil { // which may quote the file
		return nil, fmt.Errorf("%w: docker-config: %s is no config.json of docker", blob.ErrUnavailable, d.file)
	}
	return config, nil
}

// servers returns the names that the credentials for a host may have, the
// usual one first. Docker Hub is its old index to docker, and docker.io to
// podman.
func servers(host string) []string {
	if host == "registry-1.docker.io" {
		return []string{"https://index.docker.io/v1/", "docker.io", host}
	}
	return []string{host}
}

func of(a types.AuthConfig) Credential {
	return Credential{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
}
