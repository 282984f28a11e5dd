package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../.."
	chart = root + "/deploy/helm/shoal"
)

// The paths of the programs.
var shoal, helmPath string

func TestMain(m *testing.M) {
	code, err := withPrograms(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withPrograms builds shoal for as long as run takes, and helm.
func withPrograms(run func() int) (int, error) {
	dir, err := os.MkdirTemp("", "shoal-chart-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	shoal = filepath.Join(dir, "shoal")
	build := exec.Command("go", "build", "-o", shoal, "./cmd/shoal")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build shoal: %w: %s", err, out)
	}
	out, err := exec.Command("go", "tool", "-n", "helm").Output() // builds it, and says where it is
	if err != nil {
		return 1, fmt.Errorf("build helm: %w", err)
	}
	helmPath = strings.TrimSpace(string(out))
	return run(), nil
}

// podMonitor is the part of the Prometheus operator's resource that the chart
// uses; what is not in it is a mistake.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// kinds are the resources that the chart may make.
func kinds() map[string]any {
	return map[string]any{
		"apps/v1 DaemonSet":                   &appsv1.DaemonSet{},
		"v1 ConfigMap":                        &corev1.ConfigMap{},
		"v1 Secret":                           &corev1.Secret{},
		"v1 Service":                          &corev1.Service{},
		"v1 ServiceAccount":                   &corev1.ServiceAccount{},
		"networking.k8s.io/v1 NetworkPolicy":  &networkingv1.NetworkPolicy{},
		"scheduling.k8s.io/v1 PriorityClass":  &schedulingv1.PriorityClass{},
		"monitoring.coreos.com/v1 PodMonitor": &podMonitor{},
	}
}

// needed are the values that have no default.
const needed = `
image: {repository: registry.example/shoal}
init: {image: registry.example/busybox}
swarmKey: {existingSecret: my-key}
`

// valueSets are installations that must work, over what is needed.
var valueSets = map[string]string{
	"default": "",
	"own key": `swarmKey: {existingSecret: "", value: "shoal-swarm-key/1\nc2VjcmV0\n"}`,
	"zones":   `{zone: eu/1, nodeSelector: {topology.kubernetes.io/zone: eu-1}, join: [/dns4/other-shoal-members.shoal.svc/tcp/4001, /dnsaddr/swarm.example]}`,
	"offline": `{offline: true, behindNAT: true}`,
	"everything": `
imagePullSecrets: [{name: pull}]
ports: {mirror: 5001, admin: 5051, swarm: 4011, pieces: 4012}
registry:
  ghcr.io: {upstreams: [https://mirror.example, https://ghcr.io], max-age: ["*/*:v*=1h"], stale-if-error: 48h, tag-leases: prefer}
  registry.example:
    {upstreams: [https://registry.example], access: shared, username: robot, password-file: /etc/shoal-secrets/robot/password, deny: [secret/*]}
secrets: [robot]
cacheSize: 100GiB
cache: {highWater: 90%, lowWater: 80.5%, minFree: 20GiB, maxAge: 720h, scrubEvery: "0", scrubRate: 10MB, reverify: 12h}
limits: {upload: [5MB, "22:00-06:00 unlimited"], download: [400Mbit], origin: ["08:00-18:00 2MB"]}
behindNAT: false
relay: {enabled: true, rate: 50MiB, circuitRate: 10MiB, reservations: 10, circuits: 20}
trustedKeys: ["ed25519:JAwdsvrBXKlI6cVgvXRLDe9euM1J/5o50IQnUSYcArY="]
signingKey: {existingSecret: my-signing-key}
seeder:
  concurrency: 2
  rate: 20MiB
  checkHolders: 5m
  select:
    base: {images: ["docker.io/library/nginx:1.2*"], platforms: [linux/amd64], every: 6h, follow: 1m, min-holders: 3, min-zones: 2}
    own: {images: ["ghcr.io/org/*"], versions: ">=1.4 <3", newest: 3, schedule: "30 2 * * mon-fri", time-zone: Europe/Berlin}
  webhook: {port: 5060, existingSecret: my-webhook}
logLevel: debug
logFormat: text
dataDir: /mnt/shoal
containerd: {mode: write, certsDir: /etc/containers/certs.d}
priorityClass: {name: images, value: 5}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: Exists}]}]}}}
podAnnotations: {a: b}
podMonitor: {enabled: true, labels: {release: prometheus}}
networkPolicy: {enabled: true, members: [10.0.0.0/8]}
`,
}

// helm runs helm on the chart with values, and returns what it prints.
func helm(t *testing.T, verb, values string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	args := []string{verb}
	if verb == "template" {
		args = append(args, "shoal", "--namespace=shoal")
	}
	args = append(args, chart)
	for i, text := range []string{needed, values} {
		file := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--values="+file)
	}
	cmd := exec.CommandContext(t.Context(), helmPath, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(err.Error() + ": " + stderr.String() + string(out))
	}
	return string(out), err
}

// render returns the resources of the chart by "VERSION KIND", each decoded
// into its type, in which every field must have its place.
func render(t *testing.T, values string) map[string]any {
	t.Helper()
	text, err := helm(t, "template", values)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	all := kinds()
	for _, doc := range strings.Split(text, "\n---\n") {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if meta.Kind == "" {
			continue
		}
		kind := meta.APIVersion + " " + meta.Kind
		into, ok := all[kind]
		if !ok {
			t.Fatalf("a %s", kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			t.Errorf("%s: %v in\n%s", kind, err, doc)
		}
		found[kind] = into
	}
	return found
}

func TestChart(t *testing.T) {
	for name, values := range valueSets {
		t.Run(name, func(t *testing.T) {
			if out, err := helm(t, "lint", values); err != nil || strings.Contains(out, "[WARNING]") {
				t.Errorf("lint: %v\n%s", err, out)
			}
			found := render(t, values)
			everything := name == "everything"
			for kind := range kinds() {
				want := everything
				switch kind {
				case "v1 Secret":
					want = name == "own key"
				case "networking.k8s.io/v1 NetworkPolicy", "monitoring.coreos.com/v1 PodMonitor":
				default:
					want = true
				}
				if _, ok := found[kind]; ok != want {
					t.Errorf("%s: %v, want %v", kind, ok, want)
				}
			}
			checkDaemonSet(t, found["apps/v1 DaemonSet"].(*appsv1.DaemonSet), everything)
			checkConfig(t, found["v1 ConfigMap"].(*corev1.ConfigMap).Data["shoal.yaml"], everything)
		})
	}
}

// checkDaemonSet looks for what keeps the node shut in and its mirror private.
func checkDaemonSet(t *testing.T, d *appsv1.DaemonSet, everything bool) {
	t.Helper()
	pod := d.Spec.Template.Spec
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 1 {
		t.Fatal("not one container and one init container")
	}
	c := pod.Containers[0]
	admin := "--admin=127.0.0.1:5050"
	if everything {
		admin = "--admin=$(HOST_IP):5051"
	}
	for what, ok := range map[string]bool{
		"on the machine's network":   pod.HostNetwork && pod.DNSPolicy == corev1.DNSClusterFirstWithHostNet,
		"without a token":            pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken,
		"not root":                   *pod.SecurityContext.RunAsNonRoot && *pod.SecurityContext.RunAsUser > 0 && c.SecurityContext.RunAsUser == nil,
		"without capabilities":       len(c.SecurityContext.Capabilities.Drop) == 1 && len(c.SecurityContext.Capabilities.Add) == 0,
		"with a read-only root":      *c.SecurityContext.ReadOnlyRootFilesystem && !*c.SecurityContext.AllowPrivilegeEscalation,
		"longer stopped than drains": *pod.TerminationGracePeriodSeconds > 30,
		"with a memory limit":        !c.Resources.Limits.Memory().IsZero(),
		"admin " + admin:             strings.Contains(strings.Join(c.Args, " "), admin),
		"probed":                     c.LivenessProbe.HTTPGet.Path == "/healthz" && c.ReadinessProbe.HTTPGet.Path == "/readyz" && c.StartupProbe != nil,
		"probed where it listens":    (c.ReadinessProbe.HTTPGet.Host == "127.0.0.1") != everything,
		"with a priority":            pod.PriorityClassName != "",
	} {
		if !ok {
			t.Errorf("the node is not %s", what)
		}
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	mounted := map[string]bool{}
	for _, m := range append(c.VolumeMounts, pod.InitContainers[0].VolumeMounts...) {
		if mounted[m.MountPath] = true; !volumes[m.Name] {
			t.Errorf("no volume %s", m.Name)
		}
	}
	for _, folder := range []string{"/etc/shoal-secrets/robot", "/etc/shoal-signing-key", "/etc/shoal-webhook"} {
		if mounted[folder] != everything {
			t.Errorf("%s is there: %v", folder, mounted[folder])
		}
	}
}

// checkConfig lets shoal read its configuration: what it then misses is the first
// key, which is not here. With everything it names all that the file of the
// systemd unit does, but for what is the machine's, or the flags', here.
func checkConfig(t *testing.T, config string, everything bool) {
	t.Helper()
	example, err := os.ReadFile(root + "/deploy/systemd/shoal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range regexp.MustCompile(`(?m)^#([a-z-]+):`).FindAllStringSubmatch(string(example), -1) {
		elsewhere := slices.Contains([]string{"admin", "swarm", "pieces", "announce", "zone", "manifest-size", "docker-config", "offline"}, key[1])
		if everything && !elsewhere && !strings.Contains(config, "\n"+key[1]+":") && !strings.HasPrefix(config, key[1]+":") {
			t.Errorf("no value sets %s", key[1])
		}
	}
	if !strings.Contains(config, "mirror: 127.0.0.1:") {
		t.Errorf("the mirror is not on loopback alone:\n%s", config)
	}
	missing := "/etc/shoal-key/swarm.key"
	if everything {
		missing = "/etc/shoal-signing-key/signing.key"
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "shoal.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), shoal, "serve", "--config", file, "--data-dir", dir,
		"--mirror=127.0.0.1:0", "--admin=127.0.0.1:0", "--swarm=/ip4/127.0.0.1/tcp/0", "--pieces=127.0.0.1:0").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out, []byte(missing)) {
		t.Errorf("%v: %s of\n%s", err, out, config)
	}
}

// TestValuesThatCannotBe: the schema refuses them.
func TestValuesThatCannotBe(t *testing.T) {
	for name, values := range map[string]string{
		"no key":                 `swarmKey: {existingSecret: ""}`,
		"two keys":               `swarmKey: {value: "shoal-swarm-key/1\nx\n"}`,
		"something else as key":  `swarmKey: {existingSecret: "", value: abc}`,
		"no image":               `image: {repository: ""}`,
		"no image for init":      `init: {image: ""}`,
		"a misspelt name":        `cachesize: 1GiB`,
		"a misspelt inner name":  `ports: {miror: 1}`,
		"a port out of range":    `ports: {mirror: 70000}`,
		"a path with a blank":    `dataDir: "/var/lib/a b"`,
		"an unknown mode":        `containerd: {mode: overwrite}`,
		"a join that is none":    `join: [10.0.0.1:4001]`,
		"a member that is none":  `networkPolicy: {members: [everybody]}`,
		"upstream without HTTP":  `registry: {ghcr.io: {upstreams: [ghcr.io]}}`,
		"a size that is none":    `cacheSize: many`,
		"a zone with a blank":    `zone: a b`,
		"an interval of nothing": `podMonitor: {interval: often}`,
		"a share that is none":   `cache: {highWater: "0.9"}`,
		"a misspelt bound":       `cache: {minfree: 1GiB}`,
		"an age that is none":    `cache: {maxAge: a week}`,
		"a limit of nothing":     `limits: {upload: [fast]}`,
		"a limit at odd hours":   `limits: {upload: ["at night 5MB"]}`,
		"a relay of nothing":     `relay: {reservations: many}`,
		"half behind NAT":        `behindNAT: perhaps`,
		"a selection of nothing": `seeder: {select: {base: {every: 1h}}}`,
		"a misspelt selection":   `seeder: {select: {base: {image: [nginx]}}}`,
		"a webhook for anybody":  `seeder: {webhook: {port: 5060}}`,
		"a key of a registry":    `registry: {ghcr.io: {upstreams: ["https://ghcr.io"], acces: shared}}`,
		"a secret that is none":  `secrets: ["a b"]`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := helm(t, "template", values); err == nil || !strings.Contains(err.Error(), "schema") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestInitStep runs the script of the init container: it writes its file, again
// and again, takes it away, and never touches one that is not its own.
func TestInitStep(t *testing.T) {
	script := filepath.Join(t.TempDir(), "init.sh")
	config := render(t, "")["v1 ConfigMap"].(*corev1.ConfigMap)
	if err := os.WriteFile(script, []byte(config.Data["init.sh"]), 0o600); err != nil {
		t.Fatal(err)
	}
	certs := t.TempDir()
	file := filepath.Join(certs, "_default", "hosts.toml")
	run := func(mode string) error {
		cmd := exec.CommandContext(t.Context(), "sh", script)
		cmd.Env = []string{"PATH=" + fakeChown(t) + ":" + os.Getenv("PATH"), "MODE=" + mode, "MIRROR=http://127.0.0.1:5000", "DATA_DIR=" + t.TempDir(), "CERTS_DIR=" + certs}
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %v %s", mode, err, out)
		return err
	}
	const host = "[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	expect := func(mode string, fails bool, want string) {
		t.Helper()
		if err := run(mode); (err != nil) != fails {
			t.Errorf("%s: %v", mode, err)
		}
		got, _ := os.ReadFile(file) // none is no content
		if _, rest, ours := strings.Cut(string(got), "containerd.mode=remove.\n"); ours {
			got = []byte(rest)
		}
		if string(got) != want {
			t.Errorf("after %s the file is\n%s", mode, got)
		}
	}
	expect("none", false, "")
	expect("remove", false, "")
	expect("write", false, host)
	expect("write", false, host)
	expect("none", false, host)
	expect("remove", false, "")
	if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder that it made is left: %v", err)
	}
	const foreign = "server = \"https://mirror.example\"\n"
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(foreign), 0o600)); err != nil {
		t.Fatal(err)
	}
	expect("remove", false, foreign)
	expect("write", true, foreign)
}

// fakeChown is a folder with a chown that does nothing: the tests need no root.
func fakeChown(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "chown"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
