//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// What the password is changed to, and its bcrypt.
const (
	newPassword     = "new-sesame-19c4"
	newPasswordHash = "$2a$05$ziB4DQ5JvpEp5I4WLaj8SesthTkXzEWoJJrc88kCtKDk0TKBfjcUq"
)

// TestCredentials: what docker and skopeo leave when somebody logs in, in a
// file and by docker's helper for pass, and programs that an operator writes.
// All is changed while the node runs, and it tells no secret.
func TestCredentials(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 34, 3)
	dir := t.TempDir()
	change := l.guarded(ctx, t, dir)
	hosts := map[string]string{
		"htpasswd": fmt.Sprintf("%v:%d", l.origin.Host.Addr, htpasswdPort),
		"token":    fmt.Sprintf("%v:%d", l.origin.Host.Addr, tokenPort),
	}
	l.pass(ctx, t)
	logins := newLogins(t, l, dir, hosts)
	logins.write(ctx, t, password)

	file := filepath.Join(dir, "shoal.yaml")
	text := "docker-config: " + dir + "/plain/config.json\nregistry:\n"
	for name, r := range map[string]struct{ host, setting string }{
		"all":     {"htpasswd", ""},
		"skopeo":  {"token", "docker-config: " + dir + "/auth.json"},
		"pass":    {"token", "docker-config: " + dir + "/pass/config.json"},
		"command": {"htpasswd", "credential-command: [" + logins.script(t, "ours", "") + ", --account, lab]"},
		"tokens":  {"token", "credential-command: " + logins.script(t, "tokens", "")},
		"wrong":   {"token", "credential-command: " + logins.script(t, "mistaken", "s/sesame/samsam/")},
		"broken":  {"htpasswd", "credential-command: " + logins.script(t, "broken", "s/Username/User/")},
		"none":    {"token", ""},
	} {
		text += fmt.Sprintf("  %s.example: {upstreams: ['https://%s'], ca-file: %s/ca.pem, access: shared, %s}\n", name, hosts[r.host], dir, r.setting)
	}
	check(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, ", }", "}")), 0o600))
	n := l.swarm(ctx, t, 1, "--config", file, "--log-level", "debug")[0]

	var said strings.Builder
	manifest := func(name string) (status int) {
		status, body := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+name+".example/"+img.Repository+"/manifests/"+img.Tag)
		said.WriteString(body)
		return status
	}
	working := []string{"all", "skopeo", "pass", "command", "tokens"}
	for _, name := range working {
		l.copies(ctx, t, n, name+".example/"+img.Ref())
	}
	for name, c := range map[string]struct {
		status int
		why    string // to the client if it is a 401, and in the log
	}{
		"wrong":  {401, hosts["token"] + " does not take the credentials in credential-command of registry.wrong.example: look at what it prints"},
		"none":   {401, "no credentials for " + hosts["token"] + " in docker-config of registry.none.example: run \"docker login " + hosts["token"] + "\" for it"},
		"broken": {404, "broken: its answer is no credential: try it by hand: echo " + hosts["htpasswd"] + " | broken ... get"},
	} {
		said.Reset()
		status, quoted := manifest(name), strings.ReplaceAll(c.why, `"`, `\"`)
		log := string(must(os.ReadFile(n.Process.LogFile))(t))
		if status != c.status || status == 401 && !strings.Contains(said.String(), quoted) || !strings.Contains(log, quoted) {
			t.Errorf("%s: answer %d %s, want %d and there and in the log %s", name, status, &said, c.status, c.why)
		}
	}

	change(newPasswordHash, newPassword)
	logins.write(ctx, t, newPassword)
	for _, name := range working {
		check(t, testhost.Until(ctx, 5*time.Second, func(context.Context) error {
			if status := manifest(name); status != http.StatusOK {
				return fmt.Errorf("with the new password %s: answer %d", name, status)
			}
			return nil
		}))
	}
	// What the programs were started with.
	said.Write(must(os.ReadFile(filepath.Join(dir, "started")))(t))
	if !strings.Contains(said.String(), "ours\x00--account\x00lab\x00get\x00") {
		t.Errorf("the programs were started with %q", &said)
	}
	silent(ctx, t, n, said.String(), password, newPassword, "samsam")
}

// pass makes a store of passwords that is locked by a key without a
// passphrase, and builds docker's helper for it.
func (l *lab) pass(ctx context.Context, t *testing.T) {
	t.Helper()
	home := must(os.MkdirTemp("", "pass"))(t) // short: the agent's socket is in there
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	t.Setenv("GNUPGHOME", home)
	t.Setenv("PASSWORD_STORE_DIR", filepath.Join(home, "store"))
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	for _, args := range [][]string{
		{"go", "build", "-o", filepath.Join(home, "docker-credential-pass"), "github.com/docker/docker-credential-helpers/pass/cmd"},
		{"gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "lab", "default", "default", "never"},
		{"pass", "init", "lab"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
}

// logins are those of an operator, by all ways.
type logins struct {
	lab   *lab
	dir   string
	hosts map[string]string
}

func newLogins(t *testing.T, l *lab, dir string, hosts map[string]string) *logins {
	t.Helper()
	ca := must(os.ReadFile(filepath.Join(dir, "ca.pem")))(t)
	for _, host := range hosts {
		certs := filepath.Join("/etc/docker/certs.d", host)
		check(t, os.MkdirAll(certs, 0o755))
		check(t, os.WriteFile(filepath.Join(certs, "ca.crt"), ca, 0o644))
		t.Cleanup(func() { _ = os.RemoveAll(certs) })
	}
	// To a file without a login docker would add pass by itself.
	for config, text := range map[string]string{"plain": `{"auths":{"other.example":{}}}`, "pass": `{"credsStore":"pass"}`} {
		check(t, os.Mkdir(filepath.Join(dir, config), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, config, "config.json"), []byte(text), 0o600))
	}
	return &logins{lab: l, dir: dir, hosts: hosts}
}

// write logs in with a password, and keeps it where scripts find it.
func (o *logins) write(ctx context.Context, t *testing.T, password string) {
	t.Helper()
	m := o.lab.machines[0]
	for config, host := range map[string]string{"plain": o.hosts["htpasswd"], "pass": o.hosts["token"]} {
		must(m.docker.Docker(ctx, "--config", filepath.Join(o.dir, config), "login", "--username", user, "--password", password, host))(t)
	}
	for config, inFile := range map[string]bool{"plain": true, "pass": false} {
		if kept := must(os.ReadFile(filepath.Join(o.dir, config, "config.json")))(t); bytes.Contains(kept, []byte(`"auth":`)) != inFile {
			t.Errorf("docker keeps for %s:\n%s", config, kept)
		}
	}
	// Of the token server docker gets, and keeps, an identity token.
	kept := exec.CommandContext(ctx, "docker-credential-pass", "get")
	kept.Stdin = strings.NewReader(o.hosts["token"])
	if out := must(kept.Output())(t); !bytes.Contains(out, []byte(`"Secret":"identity-`+password)) {
		t.Errorf("docker keeps in pass: %s", out)
	}
	must(m.Run(ctx, testhost.Command{Path: must(testhost.Program("skopeo"))(t), Args: []string{
		"login", "--authfile", filepath.Join(o.dir, "auth.json"), "--cert-dir", filepath.Join("/etc/docker/certs.d", o.hosts["token"]),
		"--username", user, "--password", password, o.hosts["token"],
	}}))(t)
	answer := fmt.Sprintf(`{"ServerURL":"","Username":%q,"Secret":%q}`, user, password)
	check(t, os.WriteFile(filepath.Join(o.dir, "answer"), []byte(answer), 0o600))
}

// script is a helper as operators write them. It notes what it was started
// with, and changes its answer by a command of sed.
func (o *logins) script(t *testing.T, name, sed string) string {
	t.Helper()
	path := filepath.Join(o.dir, name)
	text := fmt.Sprintf("#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >>%[1]s/started\necho %[2]s >&2\nexec sed '%[3]s' %[1]s/answer\n", o.dir, password, sed)
	check(t, os.WriteFile(path, []byte(text), 0o700))
	return path
}
