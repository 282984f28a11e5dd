package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/runfile"
	"shoal/p2p/swarmkey"
	"shoal/proxy/origin/credential"
	"shoal/proxy/request"
)

// repository is the top of the tree, seen from here.
const repository = "../.."

// texts are the files, as patterns, whose commands are run.
func texts() []string {
	return []string{
		"README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md",
		"cmd/shoal/internal/manual/topics/*.md",
	}
}

// TestTexts runs the commands that the texts show, in their order, each text in
// a machine of its own: a folder for /etc and /var, and addresses on loopback
// instead of the default ports. What cannot be run here is checked as far as
// the rule says. A command or a block that no rule covers fails the test: add
// one to commandRules or blockRules.
func TestTexts(t *testing.T) {
	for _, pattern := range texts() {
		paths, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no such text (%v)", pattern, err)
		}
		for _, path := range paths {
			t.Run(strings.TrimPrefix(path, repository+"/"), func(t *testing.T) {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				m := newScratch(t)
				for _, s := range snippets(string(text)) {
					m.try(t, s)
				}
				m.checkKeys(t)
			})
		}
	}
}

// scratch is the machine that the commands of one text find.
type scratch struct {
	dir   string
	env   []string
	nodes []runfile.Listening
}

type rule struct {
	pattern string
	check   func(t *testing.T, text string)
}

// blockRules are for blocks that are no commands.
func (m *scratch) blockRules() []rule {
	nothing := func(*testing.T, string) {}
	return []rule{
		{`^  dockerd / containerd / podman +other machines`, nothing}, // a drawing
		{`^\{`, checkDaemonJSON},
		{`^notifications:\n`, nothing}, // of docker-registry; seen end to end (e2e.TestRegistryTellsSeeder)
		{`^[a-z-]+:( |\n)`, m.configFile},
		{`^#!/bin/sh\n`, m.credentialHelper},
		// What containerd and podman make of these is seen end to end
		// (e2e.TestDocumentedSettings): here only that they exist.
		{`^\[host\."http://127\.0\.0\.1:5000"\]\n`, nothing},
		{`^\[\[registry\]\]\n`, nothing},
		{`^version = 2\n\[plugins\."io\.containerd\.grpc\.v1\.cri"\.registry\]\n`, nothing},
	}
}

// commandRules are for commands; the first that matches counts.
func (m *scratch) commandRules() []rule {
	nothing := func(*testing.T, string) {}
	return []rule{
		{`^shoal serve( |$)`, m.serve},
		// These are run by the scripts in testdata.
		{`^shoal demo`, m.parses},
		{`^shoal pulls \d+`, m.parses},
		{`^shoal cache (rm|export|import|verify --rate)( |$)`, m.parses},
		{`^shoal (preheat|seeder look) `, m.parses},
		{`^shoal (pull|preheat|cache invalidate)$`, m.parses},
		{`^shoal pull |^curl .*/api/v1/pull$`, m.asksRegistry},
		{`^(shoal|mkdir|chmod|echo|curl|openssl) `, m.shell},
		{`^make( |$)`, m.make},
		{`^(cd /.* && )?go run \./`, m.goRun},
		{`^go (test|tool) `, m.goTool},
		{`^\.ci/`, m.executable},
		{`^docker pull `, m.reference},
		// Need systemd, a dockerd, and the network. What docker's login leaves is
		// seen end to end (e2e.TestCredentials).
		{`^docker --config /etc/shoal/docker login harbor\.example$`, nothing},
		{`^systemctl reload (docker|shoal)$`, nothing},
		{`^docker info( --format '\{\{\.RegistryConfig\.Mirrors\}\}')?$`, nothing},
		{`^apt-get install [a-z0-9 -]+$`, nothing},
	}
}

func newScratch(t *testing.T) *scratch {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"etc/shoal", "etc/docker", "var/lib/shoal"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/shoal/swarm.key"), swarmkey.New().Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	return &scratch{dir: dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir,
		"SHOAL_MIRROR=127.0.0.1:0", "SHOAL_SWARM=/ip4/127.0.0.1/tcp/0", "SHOAL_PIECES=127.0.0.1:0", "SHOAL_NO_MDNS=true",
	}}
}

// try finds the rule for a snippet, or for each command in it.
func (m *scratch) try(t *testing.T, s snippet) {
	t.Helper()
	if s.block {
		if m.apply(t, m.blockRules(), s.text) {
			return
		}
	}
	for line := range strings.SplitSeq(s.text, "\n") {
		line = regexp.MustCompile(`\s\s+#.*$`).ReplaceAllString(line, "")
		for command := range strings.SplitSeq(line, " && ") {
			if command = strings.TrimSpace(command); !m.apply(t, m.commandRules(), command) {
				t.Errorf("no rule says how to check %q", command)
			}
		}
	}
}

func (*scratch) apply(t *testing.T, rules []rule, text string) bool {
	t.Helper()
	for _, r := range rules {
		if regexp.MustCompile(r.pattern).MatchString(text) {
			r.check(t, text)
			return true
		}
	}
	return false
}

// here puts what exists on this scratch machine in the place of what stands in
// the texts.
func (m *scratch) here(text string) string {
	text = strings.NewReplacer("/etc/", m.dir+"/etc/", "/var/lib/shoal", m.dir+"/var/lib/shoal", " TOPIC", " zones").Replace(text)
	if len(m.nodes) > 0 {
		first := m.nodes[0]
		text = strings.NewReplacer("/ip4/10.0.0.1/tcp/4001/p2p/ID", first.Addrs[0],
			"curl -i http://127.0.0.1:5000/", "curl -f -i http://"+first.Mirror+"/", "http://127.0.0.1:5050/", "http://"+first.Admin+"/").Replace(text)
	}
	return text
}

// command returns line as a shell's child that ends soon.
func (m *scratch) command(t *testing.T, line string, env ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return m.commandUntil(ctx, line, env...)
}

// commandUntil returns line as a shell's child that is killed when ctx ends.
func (m *scratch) commandUntil(ctx context.Context, line string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", m.here(line))
	cmd.Dir, cmd.Env = m.dir, append(m.env[:len(m.env):len(m.env)], env...)
	return cmd
}

// shell runs a command beside a node, and wants it to succeed.
func (m *scratch) shell(t *testing.T, line string) {
	t.Helper()
	asksNode := strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "shoal status") || strings.HasPrefix(line, "shoal peers") || line == "shoal pulls" || strings.HasPrefix(line, "shoal limits") || strings.HasPrefix(line, "shoal cache ") || strings.HasPrefix(line, "shoal seeder")
	if asksNode && len(m.nodes) == 0 {
		m.serve(t, "shoal serve")
	}
	env := []string{"SHOAL_DATA_DIR=" + m.dir + "/own"}
	if len(m.nodes) > 0 {
		env = append(env, "SHOAL_ADMIN="+m.nodes[0].Admin)
	}
	if out, err := m.command(t, line, env...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	if _, file, ok := strings.Cut(line, "> /etc/docker/"); ok {
		text, err := os.ReadFile(filepath.Join(m.dir, "etc/docker", file))
		if err != nil {
			t.Fatal(err)
		}
		checkDaemonJSON(t, string(text))
	}
}

// asksRegistry runs a command that wants something of a public registry, which
// is not there: it must come as far as that.
func (m *scratch) asksRegistry(t *testing.T, line string) {
	t.Helper()
	other := newScratch(t) // m's nodes may know other registries
	other.serve(t, "shoal serve --registry docker.io=http://127.0.0.1:1 --registry ghcr.io=http://127.0.0.1:1")
	out, err := other.command(t, line, "SHOAL_ADMIN="+other.nodes[0].Admin).CombinedOutput()
	if !bytes.Contains(out, []byte("docker.io/library/nginx:1.27")) || !bytes.Contains(out, []byte("127.0.0.1:1")) {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// serve starts a node, which must become ready, and runs until the end of the
// test. The first one is the one that later commands ask.
func (m *scratch) serve(t *testing.T, line string) {
	t.Helper()
	if strings.HasSuffix(line, " --help") {
		m.parses(t, line)
		return
	}
	data := fmt.Sprintf("%s/node%d", m.dir, len(m.nodes))
	// Not with the test's context: the clean-up stops it.
	cmd := m.commandUntil(context.Background(), "exec "+strings.TrimSuffix(line, " &"), "SHOAL_DATA_DIR="+data, "SHOAL_ADMIN=127.0.0.1:0")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			t.Errorf("%s: %v\n%s", line, err, &log)
		}
	})
	var l runfile.Listening
	until(t, line+" is ready", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s: ended: %v", line, err)
		default:
		}
		var err error
		if l, err = runfile.Read(data); err != nil {
			return false
		}
		code, _, err := get("http://" + l.Admin + "/readyz")
		return err == nil && code == http.StatusOK
	})
	m.nodes = append(m.nodes, l)
}

// parses checks the words of a command without running it.
func (m *scratch) parses(t *testing.T, line string) {
	t.Helper()
	if out, err := m.command(t, strings.TrimSuffix(line, " --help")+" --help").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Usage: shoal ")) {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// configFile loads a YAML file, and leaves it where "shoal serve --config"
// looks for it.
func (m *scratch) configFile(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(m.dir, "etc/shoal/shoal.yaml")
	// The public key is that of the key that was made before.
	if key, err := os.ReadFile(filepath.Join(m.dir, "signing.key")); err == nil {
		public := regexp.MustCompile(`ed25519:\S+`)
		text = public.ReplaceAllString(text, public.FindString(string(key)))
	}
	if err := os.WriteFile(path, []byte(m.here(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(config.Flags{Common: config.Common{Config: config.Words{path}}}, nil); err != nil {
		t.Error(err)
	}
}

// credentialHelper runs a script for credential-command.
func (m *scratch) credentialHelper(t *testing.T, text string) {
	t.Helper()
	program := filepath.Join(m.dir, "helper")
	for file, text := range map[string]string{program: m.here(text), filepath.Join(m.dir, "etc/shoal/robot.password"): "sesame\n"} {
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	source, err := credential.Command([]string{program})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := source.Get(t.Context(), "r.example", "x", credential.Credential{}); err != nil || c.Password != "sesame" {
		t.Errorf("%q, %v", c.Password, err)
	}
}

// make checks that a target exists, and the commands that it comes to.
func (m *scratch) make(t *testing.T, line string) {
	t.Helper()
	cmd := m.command(t, "make -n "+strings.TrimPrefix(line, "make"))
	cmd.Dir = repository
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	for step := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(step, "go run ./") {
			m.goRun(t, step)
		}
	}
}

// goRun builds a program of the tree and checks the words after it: each flag
// exists, as -h comes last and is only reached if it does, and so does each
// file of the tree.
func (m *scratch) goRun(t *testing.T, line string) {
	t.Helper()
	pkg, args, _ := strings.Cut(strings.TrimPrefix(line, "go run "), " ")
	bin := filepath.Join(m.dir, filepath.Base(pkg))
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, pkg)
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	cmd := m.command(t, bin+" "+args+" -h")
	cmd.Dir = repository
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 2) || !bytes.Contains(out, []byte("Usage")) ||
		bytes.Contains(out, []byte("not defined")) || bytes.Contains(out, []byte("invalid value")) {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	for _, word := range strings.Fields(args) {
		if _, err := os.Stat(filepath.Join(repository, word)); err != nil && strings.HasPrefix(word, "benchmarks/") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// goTool runs a command of the go tool in the tree, with each benchmark once.
func (m *scratch) goTool(t *testing.T, line string) {
	t.Helper()
	line = strings.NewReplacer("-count 10", "-benchtime 1x -short", "old.txt", m.dir+"/old.txt", "new.txt", m.dir+"/new.txt").Replace(line)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// executable checks a script of the tree.
func (m *scratch) executable(t *testing.T, line string) {
	t.Helper()
	if info, err := os.Stat(filepath.Join(repository, line)); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("%s: no script that can be run (%v)", line, err)
	}
}

// reference checks what "docker pull" makes of an image that is named by way of
// the mirror, and what the mirror makes of that.
func (m *scratch) reference(t *testing.T, line string) {
	t.Helper()
	name, byMirror := strings.CutPrefix(strings.TrimPrefix(line, "docker pull "), "localhost:5000/")
	if !byMirror {
		if !regexp.MustCompile(`^[a-z0-9/]+(:[a-z0-9.]+)?$`).MatchString(name) {
			t.Errorf("%s: no image of Docker Hub", line)
		}
		return
	}
	repo, tag, _ := strings.Cut(name, ":")
	r, err := request.Parse(&url.URL{Path: "/v2/" + repo + "/manifests/" + tag})
	if err != nil || !strings.HasPrefix(repo, r.Registry+"/") {
		t.Errorf("%s: %+v %v", line, r, err)
	}
}

// checkDaemonJSON reads what is written into dockerd's file.
func checkDaemonJSON(t *testing.T, text string) {
	t.Helper()
	var file struct {
		Mirrors []string `json:"registry-mirrors"`
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil || len(file.Mirrors) != 1 || file.Mirrors[0] != "http://"+defaultMirror(t) {
		t.Errorf("daemon.json: %v %q", err, file.Mirrors)
	}
}

func defaultMirror(t *testing.T) string {
	t.Helper()
	cfg, err := config.Load(config.Flags{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Mirror
}

// checkKeys reads the swarm keys that the commands made.
func (m *scratch) checkKeys(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "swarm.key" {
			_, err = swarmkey.Load(path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
