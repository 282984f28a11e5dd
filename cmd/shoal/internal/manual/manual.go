// Package manual holds the texts of "shoal help TOPIC": one Markdown file for
// each topic in the folder topics, whose first line is its title. They are part
// of the program, and read well in a repository, too. What a flag means is said
// by the flag's own help, not here. It starts no goroutines.
//
// The commands in these texts are run by a test (cmd/shoal/texts_test.go).
package manual

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed topics/*.md
var files embed.FS

// Topic is one text.
type Topic struct {
	Name  string // as in "shoal help NAME"
	Title string // one line
	text  string // Markdown
}

// UnknownError is a topic that there is not.
type UnknownError struct {
	Name string
}

func (e *UnknownError) Error() string {
	var names []string
	for _, t := range Topics() {
		names = append(names, t.Name)
	}
	return fmt.Sprintf("no command and no topic %q: the topics are %s", e.Name, strings.Join(names, ", "))
}

// Topics returns all topics in the order of their names.
func Topics() []Topic {
	entries, err := fs.ReadDir(files, "topics")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	var topics []Topic
	for _, e := range entries {
		text, err := files.ReadFile(path.Join("topics", e.Name()))
		if err != nil {
			panic(err)
		}
		title, _, _ := strings.Cut(string(text), "\n")
		topics = append(topics, Topic{Name: strings.TrimSuffix(e.Name(), ".md"), Title: strings.TrimPrefix(title, "# "), text: string(text)})
	}
	return topics
}

// Find returns the topic of that name. Error: *UnknownError.
func Find(name string) (Topic, error) {
	topics := Topics()
	i := slices.IndexFunc(topics, func(t Topic) bool { return t.Name == name })
	if i < 0 {
		return Topic{}, &UnknownError{Name: name}
	}
	return topics[i], nil
}

// Text returns the topic for a terminal: headings in capitals, no marks.
func (t Topic) Text() string {
	var b strings.Builder
	for line := range strings.Lines(t.text) {
		switch {
		case strings.HasPrefix(line, "    "): // a command or a file, to be copied as it is
		case strings.HasPrefix(line, "#"):
			line = strings.ToUpper(strings.TrimLeft(line, "# "))
		default:
			line = strings.NewReplacer("**", "", "`", "").Replace(line)
		}
		b.WriteString(line)
	}
	return b.String()
}
