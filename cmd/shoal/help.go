package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"shoal/cmd/shoal/internal/manual"
)

type helpCmd struct {
	Words []string `arg:"" optional:"" name:"topic" help:"A topic, or a command."`
}

// Help shows examples.
func (helpCmd) Help() string {
	return `    $ shoal help
    $ shoal help troubleshooting
    $ shoal help swarm-key new`
}

// Run prints a topic, or the help of a command, or what topics and commands
// there are.
func (c helpCmd) Run(env environment, line *kong.Context) error {
	node, words := line.Model.Node, c.Words
	for len(words) > 0 {
		next := child(node, words[0])
		if next == nil {
			break
		}
		node, words = next, words[1:]
	}
	if len(words) == 0 { // all of them name a command
		run(env, append(c.Words, "--help"))
		return nil
	}
	topic, err := manual.Find(c.Words[0])
	if err == nil && len(c.Words) > 1 {
		err = &manual.UnknownError{Name: c.Words[1]}
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(env.stdout, topic.Text())
	return err
}

// child returns the command of that name below node, nil if there is none.
func child(node *kong.Node, name string) *kong.Node {
	for _, n := range node.Children {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// printHelp is kong's help, and for the whole program the topics, too.
func printHelp(options kong.HelpOptions, line *kong.Context) error {
	if n := line.Selected(); n != nil && strings.HasPrefix(n.Detail, "    ") { // which kong cuts off
		n.Detail = "Examples:\n\n" + n.Detail
	}
	if err := kong.DefaultHelpPrinter(options, line); err != nil || line.Selected() != nil {
		return err
	}
	w := tabwriter.NewWriter(line.Stdout, 0, 0, 4, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nTopics, shown by \"shoal help TOPIC\":") // Flush tells
	for _, t := range manual.Topics() {
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", t.Name, t.Title)
	}
	return w.Flush()
}
