// Command shoal is the registry mirror and swarm member that runs on each
// machine. This package is the command line and the wiring; it knows every
// other package and holds no logic of its own.
//
// One file is one verb. A verb returns its error; main prints it as one line
// and exits with 1, or with 2 if the words on the command line, in the
// environment or in the configuration file were wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"shoal/cmd/shoal/internal/config"
	"shoal/cmd/shoal/internal/manual"
	"shoal/p2p"
)

// Exit codes, which scripts rely on.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is the grammar of the command line.
type cli struct {
	Serve    serveCmd    `cmd:"" help:"Run the mirror and swarm member of this machine."`
	Status   statusCmd   `cmd:"" help:"Show what the node of this machine is doing."`
	Peers    peersCmd    `cmd:"" help:"List the members of the swarm, what was traded with each, and who is banned."`
	Pulls    pullsCmd    `cmd:"" help:"List the last pulls, or show of one where its time went."`
	Limits   limitsCmd   `cmd:"" help:"Show the limits of bytes a second, or change them."`
	Pull     pullCmd     `cmd:"" help:"Have the node of this machine fetch images."`
	Preheat  preheatCmd  `cmd:"" help:"Have the node of this machine and other members fetch images."`
	Seeder   seederCmd   `cmd:"" help:"Show what the node fetches by itself, before anybody asks."`
	ID       idCmd       `cmd:"" name:"id" help:"Print the node's peer ID."`
	SwarmKey swarmKeyCmd `cmd:"" name:"swarm-key" help:"Make the key that closes a swarm to strangers."`
	Key      keyCmd      `cmd:"" help:"Make the key of who may tell all nodes what to do."`
	Cache    cacheCmd    `cmd:"" help:"See, keep, prove and remove what the node of this machine has."`
	Demo     demoCmd     `cmd:"" help:"Watch five nodes share an image, on this machine, without a network."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
	Help     helpCmd     `cmd:"" help:"Explain a topic: swarm keys, registries, what goes wrong, ..."`
}

const description = `Shoal shares container images between machines: each node is the registry mirror of its runtime, and takes layers from its neighbours before it asks the registry.

Try it, then set it up on two machines:

    shoal demo

    shoal swarm-key new > swarm.key          # copy it to both machines
    shoal serve --swarm-key swarm.key        # on the first
    shoal status                             # prints its address for --join
    shoal serve --swarm-key swarm.key --join /ip4/10.0.0.1/tcp/4001/p2p/12D3...

    # /etc/docker/daemon.json on both: {"registry-mirrors": ["http://127.0.0.1:5000"]}`

// missingValue is what kong says of a flag without one, in words of its own.
var missingValue = regexp.MustCompile(`expected \S+ value but got "EOL" \(<EOL>\)`)

// environment is what a verb may use of the process.
type environment struct {
	ctx            context.Context
	environ        []string
	stdout, stderr io.Writer
}

func main() {
	os.Exit(run(environment{ctx: context.Background(), environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}

// run executes a command line and returns the exit code.
func run(env environment, args []string) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parser, err := kong.New(&cli{},
		kong.Name("shoal"),
		kong.Description(description),
		kong.Writers(env.stdout, env.stderr),
		kong.Help(printHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.ValueFormatter(withVariable),
		kong.Bind(env),
	)
	if err != nil {
		return complain(env.stderr, err, exitFailed)
	}
	line, err := parser.Parse(args)
	if err != nil {
		text := missingValue.ReplaceAllString(err.Error(), "has no value")
		return complain(env.stderr, fmt.Errorf("%s; see \"shoal --help\"", text), exitUsage)
	}
	err = line.Run()
	switch {
	case err == nil:
		return exitOK
	case isUsage(err):
		return complain(env.stderr, err, exitUsage)
	}
	return complain(env.stderr, err, exitFailed)
}

// isUsage reports whether the words that were given are at fault.
func isUsage(err error) bool {
	_, settings := errors.AsType[*config.Error](err)
	_, swarm := errors.AsType[*p2p.OptionError](err)
	_, topic := errors.AsType[*manual.UnknownError](err)
	return settings || swarm || topic
}

// complain prints err as one line.
func complain(w io.Writer, err error, code int) int {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	_, _ = fmt.Fprintln(w, "shoal: "+text) // nobody is left to tell if stderr is closed
	return code
}

// withVariable adds the name of its environment variable to a flag's help.
func withVariable(v *kong.Value) string {
	if v.Flag == nil || v.Name == "help" || slices.Contains(v.Flag.Envs, "-") {
		return v.Help
	}
	variable := config.Variable(v.Name)
	if len(v.Tag.Envs) > 0 { // another one, where that is a setting of the node
		variable = v.Tag.Envs[0]
	}
	return v.Help + " ($" + variable + ")"
}
