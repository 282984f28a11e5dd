package manual

import (
	"strings"
	"testing"
)

// Topics fit a terminal, are named once, and those that are named exist.
func TestTopics(t *testing.T) {
	for _, topic := range Topics() {
		if topic.Title == "" || len(topic.Title) > 70 || !strings.HasPrefix(topic.text, "# "+topic.Title+"\n\n") {
			t.Errorf("%s: no title: %q", topic.Name, topic.Title)
		}
		for line := range strings.Lines(topic.text) {
			if len(line) > 130 {
				t.Errorf("%s: a line of %d bytes: %s", topic.Name, len(line), line)
			}
			if _, name, ok := strings.Cut(line, "`shoal help "); ok {
				name, _, _ = strings.Cut(name, "`")
				if _, err := Find(name); err != nil {
					t.Errorf("%s: %v", topic.Name, err)
				}
			}
		}
	}
}

func TestText(t *testing.T) {
	topic := Topic{text: "# A title\n\nSay `this` **now**.\n\n    echo `id` **\n\n## Next\n"}
	if got, want := topic.Text(), "A TITLE\n\nSay this now.\n\n    echo `id` **\n\nNEXT\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
