package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// snippet is something in a text that is meant to be typed or copied.
type snippet struct {
	text  string
	block bool // set off from the text, and not within a sentence
}

// inline is code within a sentence that is a command and no name.
var inline = regexp.MustCompile(`^(\.ci/\S+|(shoal|make|go run|docker|curl|systemctl|apt-get) .*)$`)

// snippets returns the blocks of a Markdown text, indented or fenced, and the
// commands in its sentences.
func snippets(text string) []snippet {
	var all []snippet
	for _, part := range regexp.MustCompile("(?s)```.*?\n(.*?)```").Split(text, -1) {
		for paragraph := range strings.SplitSeq(part, "\n\n") {
			paragraph = strings.Trim(paragraph, "\n")
			if strings.HasPrefix(paragraph, "    ") {
				all = append(all, snippet{strings.ReplaceAll(strings.TrimPrefix(paragraph, "    "), "\n    ", "\n"), true})
				continue
			}
			for _, code := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(paragraph, -1) {
				if command := strings.Join(strings.Fields(code[1]), " "); inline.MatchString(command) {
					all = append(all, snippet{command, false})
				}
			}
		}
	}
	for _, fenced := range regexp.MustCompile("(?s)```.*?\n(.*?)```").FindAllStringSubmatch(text, -1) {
		all = append(all, snippet{strings.TrimRight(fenced[1], "\n"), true})
	}
	return all
}

// What no rule covers is noticed, wherever it stands.
func TestSnippets(t *testing.T) {
	const text = "Say `shoal id` and `make\nlint`; `--flag` and `shoal` are names.\n\n    curl x  # why\n    new-tool && shoal id\n\n```\nfenced\n```\n"
	var got []string
	for _, s := range snippets(text) {
		got = append(got, fmt.Sprintf("%v %q", s.block, s.text))
	}
	want := `false "shoal id", false "make lint", true "curl x  # why\nnew-tool && shoal id", true "fenced"`
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
	m := &scratch{}
	for _, unknown := range []string{"new-tool", "docker frobnicate", "systemctl stop docker"} {
		if m.apply(t, m.commandRules(), unknown) {
			t.Errorf("%q has a rule", unknown)
		}
	}
}
