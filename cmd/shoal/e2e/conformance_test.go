//go:build linux

package e2e

import (
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"shoal/cmd/shoal/e2e/testhost"
)

// TestConformance runs the pull part of the conformance suite of the OCI
// distribution specification on a node in front of docker-registry, into which
// the suite itself has put all its kinds of content before.
func TestConformance(t *testing.T) {
	ctx, l := scenario(t)
	n := l.swarm(ctx, t, 1)[0]
	const repository = "conformance/pulled"
	suite := func(h *testhost.Host, registry string, env ...string) string {
		// It ends with an error where it finds something, and with a panic behind
		// its report when it may not push: the report is what counts.
		out, err := h.Run(ctx, testhost.Command{Path: l.conformance, Env: append([]string{
			"OCI_REGISTRY=" + registry, "OCI_TLS=disabled", "OCI_REPO1=" + repository, "OCI_REPO2=conformance/other", "OCI_RESULTS_DIR=" + t.TempDir(),
			"OCI_API_TAGS_DELETE=false", "OCI_API_TAGS_ATOMIC=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_BLOBS_ATOMIC=false",
			"OCI_API_MANIFESTS_DELETE=false", "OCI_API_MANIFESTS_ATOMIC=false",
		}, env...)})
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return out
	}
	// What docker-registry does not take is no matter here.
	suite(l.origin.Host, strings.TrimPrefix(l.origin.Backend(), "http://"), "OCI_API_PULL=false", "OCI_API_REFERRER=false", "OCI_API_TAGS_LIST=false")
	tags, manifests, blobs, err := l.origin.Contents(repository)
	check(t, err)
	if len(tags) < 10 || len(manifests) < 20 || len(blobs) < 50 {
		t.Fatalf("the suite has put %d tags, %d manifests and %d blobs into the registry", len(tags), len(manifests), len(blobs))
	}
	report := suite(n.Host, "127.0.0.1:5000", "OCI_API_PUSH=false", "OCI_API_REFERRER=true",
		"OCI_RO_DATA_TAGS="+strings.Join(tags, " "), "OCI_RO_DATA_MANIFESTS="+strings.Join(manifests, " "),
		"OCI_RO_DATA_BLOBS="+strings.Join(blobs, " "), "OCI_RO_DATA_REFERRERS="+strings.Join(manifests[:3], " "))
	count := map[string]int{}
	for _, line := range regexp.MustCompile(`(?m)^  (Pass|FAIL|Error|Skip|Disabled|Total)\.+: +(\d+)$`).FindAllStringSubmatch(report, -1) {
		count[line[1]] = must(strconv.Atoi(line[2]))(t)
	}
	t.Logf("passed %d, failed %d, skipped %d, disabled %d", count["Pass"], count["FAIL"]+count["Error"], count["Skip"], count["Disabled"])
	// Each content is asked for by GET and by HEAD.
	if count["FAIL"]+count["Error"] > 0 || count["Pass"] < 2*(len(tags)+len(manifests)+len(blobs)) {
		t.Errorf("the suite reports\n%s", report)
	}
}
