package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shoal/blobcache/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "open-sesame"

// write makes a file in dir, which may be run.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// helper puts a shell script into the path as docker-credential-NAME. $server
// is what it is asked for, and $action what it shall do.
func helper(t *testing.T, name, script string) (file string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return write(t, dir, "docker-credential-"+name, "#!/bin/sh\nread -r server\nfor action; do :; done\necho \"$@\" >>\"$0.runs\"\n"+script)
}

// runs returns the arguments of each run of a helper.
func runs(t *testing.T, file string) []string {
	t.Helper()
	raw, err := os.ReadFile(file + ".runs")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
}

// keychain has whatever it is asked for.
const keychain = `case $action/$server in
get/none*) echo "credentials not found in native keychain"; exit 1 ;;
get/token*) echo '{"Username":"<token>","Secret":"identity"}' ;;
get/*) printf '{"ServerURL":"%s","Username":"of %s","Secret":"open-sesame"}' "$server" "$server" ;;
esac`

func TestDocker(t *testing.T) {
	helper(t, "chain", keychain)
	// base64 of me:open-sesame
	const auth = `{"auth":"bWU6b3Blbi1zZXNhbWU="}`
	me := Credential{Username: "me", Password: secret}
	for _, tt := range []struct {
		config, host string
		want         Credential
	}{
		{`{"auths":{"r.example":` + auth + `}}`, "r.example", me},
		{`{"auths":{"r.example":` + auth + `}}`, "other.example", Credential{}},
		{`{"auths":{"r.example":` + auth + `}}`, "r.example:5000", Credential{}},
		{`{"auths":{"r.example:5000":` + auth + `}}`, "r.example:5000", me},
		{`{"auths":{"https://r.example/v2/":` + auth + `}}`, "r.example", me},
		{`{"auths":{"r.example":{"username":"me","password":"open-sesame"}}}`, "r.example", me}, // as Kubernetes has it
		{`{"auths":{"https://index.docker.io/v1/":` + auth + `}}`, "registry-1.docker.io", me},
		{`{"auths":{"docker.io":` + auth + `}}`, "registry-1.docker.io", me},
		{`{"auths":{"docker.io/team":` + auth + `}}`, "registry-1.docker.io", me},
		{`{"auths":{"r.example/team":` + auth + `,"r.example":{"auth":"eW91Ong="}}}`, "r.example", me},
		{`{"auths":{"r.example/team/app":` + auth + `}}`, "r.example", me},
		{`{"auths":{"r.example/team/other":` + auth + `,"r.example/te":` + auth + `}}`, "r.example", Credential{}},
		{`{"auths":{"r.example":{"auth":"bWU6","identitytoken":"identity"}}}`, "r.example", Credential{Username: "me", IdentityToken: "identity"}},
		{`{"auths":{"r.example":{"registrytoken":"registry"}}}`, "r.example", Credential{RegistryToken: "registry"}},
		{`{"auths":{"r.example":{}},"credsStore":"chain"}`, "r.example", Credential{Username: "of r.example", Password: secret}},
		{`{"credsStore":"nothing","credHelpers":{"r.example":"chain"}}`, "r.example", Credential{Username: "of r.example", Password: secret}},
		{`{"credHelpers":{"r.example":"chain"}}`, "other.example", Credential{}},
		{`{"credsStore":"chain"}`, "registry-1.docker.io", Credential{Username: "of https://index.docker.io/v1/", Password: secret}},
		{`{"credsStore":"chain"}`, "token.example", Credential{IdentityToken: "identity"}},
		{`{"credsStore":"chain"}`, "none.example", Credential{}},
		{`{"credsStore":"chain","auths":{"none.example":` + auth + `}}`, "none.example", me},
		{`{"credsStore":"chain","auths":{"r.example/team":` + auth + `}}`, "r.example", me},
		{`{}`, "r.example", Credential{}},
	} {
		s, err := Docker(write(t, t.TempDir(), "config.json", tt.config))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(t.Context(), tt.host, "team/app", Credential{})
		if err != nil || got != tt.want {
			t.Errorf("%s has for %s %q, %v", tt.config, tt.host, got.Username+" "+got.Header(), err)
		}
	}
}

// TestFilesAreReadAgain: who has read them once hears of what is in them now.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	config := func(user, password string) string {
		return fmt.Sprintf(`{"auths":{"r.example":{"username":%q,"password":%q}}}`, user, password)
	}
	d, err := Docker(write(t, dir, "config.json", config("me", "old")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Password("me", write(t, dir, "password", "old"))
	if err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"old", secret} {
		write(t, dir, "config.json", config("me", password))
		write(t, dir, "password", password+"\r\n")
		for _, s := range []Source{d, p} {
			if c, err := s.Get(t.Context(), "r.example", "x", Credential{}); err != nil || c != (Credential{Username: "me", Password: password}) {
				t.Errorf("%T: %q, %v", s, c.Password, err)
			}
		}
	}
}

func TestUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		`{"auths":{"r.example":{"auth":"open-sesame"}}}`:       "is no config.json of docker",
		`{"auths":{"r.example":{"auth":5}}}`:                   "is no config.json of docker",
		`open-sesame`:                                          "is no config.json of docker",
		`{"x":"` + strings.Repeat(secret, dockerMax/11) + `"}`: "has more than 1048576 bytes",
	} {
		_, err := Docker(write(t, dir, "config.json", text))
		if !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"\n":                                     "password-file " + filepath.Join(dir, "password") + " is empty",
		strings.Repeat(secret, passwordMax/11+1): "has more than 16384 bytes",
	} {
		_, err := Password("me", write(t, dir, "password", text))
		if !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if _, err := Docker("/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no config.json: %v", err)
	}
	if _, err := Command([]string{"docker-credential-nowhere"}); err == nil || !strings.Contains(err.Error(), `credential-command: exec: "docker-credential-nowhere": executable file not found in $PATH`) {
		t.Errorf("no program: %v", err)
	}
}

func TestCommand(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   Credential
		err    string // empty for none; the secret is in none
	}{
		"found":         {script: keychain, want: Credential{Username: "of r.example", Password: secret}},
		"more":          {script: `echo '{"Username":"me","Secret":"open-sesame","Expires":1}'; echo open-sesame >&2`, want: Credential{Username: "me", Password: secret}},
		"not found":     {script: `echo credentials not found in native keychain; exit 1`},
		"fails":         {script: `echo open-sesame; echo open-sesame >&2; exit 3`, err: "docker-credential-x: exit status 3: try it by hand: echo r.example | docker-credential-x ... get"},
		"no JSON":       {script: `echo open-sesame`, err: "docker-credential-x: its answer is no credential"},
		"no secret":     {script: `echo '{"Username":"me"}'`, err: "its answer is no credential"},
		"no user":       {script: `echo '{"User":"me","Secret":"open-sesame"}'`, err: "its answer is no credential"},
		"other JSON":    {script: `echo '{"Username":"me","Secret":{"open-sesame":1}}'`, err: "its answer is no credential"},
		"endless":       {script: `yes open-sesame | head -c 1000000`, err: "its answer has more than 65536 bytes"},
		"gone at once":  {script: `kill -9 $$`, err: "docker-credential-x: signal: killed"},
		"without input": {script: `exec </dev/null; echo '{"Username":"me","Secret":"open-sesame"}'`, want: Credential{Username: "me", Password: secret}},
	} {
		t.Run(name, func(t *testing.T) {
			file := helper(t, "x", tt.script)
			c, err := Command([]string{file, "--profile", "a b"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Get(t.Context(), "r.example", "team/app", Credential{})
			if got != tt.want || (err == nil) != (tt.err == "") {
				t.Errorf("%q, %v", got.Header(), err)
			}
			if err != nil && (!errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("error %q, want %s", err, tt.err)
			}
			if r := runs(t, file); len(r) != 1 || r[0] != "--profile a b get" {
				t.Errorf("it was run with %q", r)
			}
		})
	}
}

// TestAHelperThatHangs: it and what it has started are ended, and who waits
// does so no longer than he wants.
func TestAHelperThatHangs(t *testing.T) {
	file := helper(t, "x", `sleep 100 & echo $! >"$0.child"; wait`)
	c, err := Command([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	c.(command).helpers.limit = 3 * time.Second // in which a busy machine starts it
	hasty, cancel := context.WithCancelCause(t.Context())
	cancel(blob.ErrStalled)
	if _, err := c.Get(hasty, "r.example", "x", Credential{}); !errors.Is(err, blob.ErrStalled) || err.Error() != "docker-credential-x: "+blob.ErrStalled.Error() {
		t.Errorf("in a hurry: %v", err)
	}
	if _, err := c.Get(t.Context(), "r.example", "x", Credential{}); !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), "docker-credential-x: it takes too long") {
		t.Errorf("error %v", err)
	}
	raw, err := os.ReadFile(file + ".child")
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
	for until := time.Now().Add(10 * time.Second); running(child); {
		if time.Now().After(until) {
			t.Fatalf("what it has started still runs")
		}
		<-time.After(5 * time.Millisecond)
	}
	if n := len(runs(t, file)); n != 1 {
		t.Errorf("it was run %d times", n)
	}
}

// running tells whether there is such a process that has not ended: nobody may
// be there to wait for it.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil // another system than Linux
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// TestAnAnswerIsKept: the program is not run for each request, but again when
// somebody refuses what it has said.
func TestAnAnswerIsKept(t *testing.T) {
	file := helper(t, "x", `printf '{"Username":"me","Secret":"%s"}' "$(cat "$0.secret")"`)
	say := func(secret string) { write(t, filepath.Dir(file), filepath.Base(file)+".secret", secret) }
	c, err := Command([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	c.(command).helpers.pause = 0
	get := func(refused Credential, want string, times int) Credential {
		t.Helper()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if got, err := c.Get(t.Context(), "r.example", "x", refused); err != nil || got.Password != want {
					t.Errorf("%q, %v, want %q", got.Password, err, want)
				}
			})
		}
		all.Wait()
		if n := len(runs(t, file)); n != times {
			t.Fatalf("it was run %d times, want %d", n, times)
		}
		return Credential{Username: "me", Password: want}
	}
	say("old")
	old := get(Credential{}, "old", 1)
	say("new")
	get(Credential{}, "old", 1)
	get(old, "new", 2)
	get(Credential{}, "new", 2)
	c.(command).helpers.pause = time.Hour
	if got, err := c.Get(t.Context(), "r.example", "x", Credential{Username: "me", Password: "new"}); err != nil || got.Password != "new" || len(runs(t, file)) != 2 {
		t.Errorf("refused at once: %q, %v, after %q", got.Password, err, runs(t, file))
	}
}

func TestNothingIsToldByMistake(t *testing.T) {
	c := Credential{Username: "me", Password: secret, IdentityToken: secret, RegistryToken: secret}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "p", &c)
	if said := fmt.Sprintf("%v %+v %#v %s %v", c, c, c, c, &c) + log.String(); strings.Contains(said, secret) {
		t.Error(said)
	}
}
