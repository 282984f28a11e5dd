package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// readFile reads the file that the word names.
func readFile(path word) (layer, error) {
	text, err := os.ReadFile(path.text)
	if err != nil {
		return nil, &Error{Where: path.where, Err: err}
	}
	return parseFile(path.text, text)
}

// parseFile reads the settings of a YAML document. name is for messages.
func parseFile(name string, text []byte) (layer, error) {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, syntaxError(name, err)
	}
	f := file{name: name}
	l := layer{}
	for i, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if i > 0 {
			return nil, f.errorf(doc.Body, "", "a second document: put all settings into one")
		}
		entries, err := f.entries(doc.Body, "")
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if l[e.name], err = f.setting(e); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// file makes words and errors of nodes of one file.
type file struct{ name string }

// entry is a key of a mapping, its path from the top, and its value.
type entry struct {
	key   ast.Node
	name  string
	path  string
	value ast.Node
}

// setting returns the words of a top-level entry.
func (f file) setting(e entry) ([]word, error) {
	s, known := find(e.name)
	switch {
	case !known:
		return nil, f.errorf(e.key, e.path, "is no setting: there are %s", strings.Join(names(), ", "))
	case e.name == "registry":
		return f.registries(e)
	case s.list:
		return f.list(e)
	}
	w, err := f.scalar(e.value, e.path)
	return []word{w}, err
}

// registries turns NAME: {upstreams: [URL, ...]} into words NAME=URL.
func (f file) registries(e entry) ([]word, error) {
	registries, err := f.entries(e.value, e.path)
	if err != nil {
		return nil, err
	}
	var words []word
	for _, r := range registries {
		keys, err := f.entries(r.value, r.path)
		if err != nil {
			return nil, err
		}
		before := len(words)
		for _, k := range keys {
			if k.name != "upstreams" {
				return nil, f.errorf(k.key, k.path, "is no setting of a registry: there is upstreams")
			}
			urls, err := f.list(k)
			if err != nil {
				return nil, err
			}
			for _, u := range urls {
				words = append(words, word{text: r.name + "=" + u.text, where: u.where})
			}
		}
		if len(words) == before {
			return nil, f.errorf(r.key, r.path, "has no upstreams")
		}
	}
	return words, nil
}

// list returns the words of a sequence of scalars; a scalar is a list of one.
func (f file) list(e entry) ([]word, error) {
	seq, ok := e.value.(*ast.SequenceNode)
	if !ok {
		w, err := f.scalar(e.value, e.path)
		return []word{w}, err
	}
	words := []word{}
	for _, node := range seq.Values {
		w, err := f.scalar(node, e.path)
		if err != nil {
			return nil, err
		}
		words = append(words, w)
	}
	return words, nil
}

// scalar returns the word that a plain value spells.
func (f file) scalar(node ast.Node, path string) (word, error) {
	w := word{where: f.where(node, path)}
	switch n := node.(type) {
	case *ast.StringNode:
		w.text = n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		w.text = n.GetToken().Value
	case *ast.NullNode:
		return word{}, f.errorf(node, path, "has no value")
	default:
		return word{}, f.errorf(node, path, "must be a plain value, not a %s", strings.ToLower(node.Type().String()))
	}
	return w, nil
}

// entries returns the keys of a mapping in their order.
func (f file) entries(node ast.Node, path string) ([]entry, error) {
	var values []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, f.errorf(node, path, "must be a mapping of names to values")
	}
	var entries []entry
	for _, v := range values {
		key, err := f.scalar(v.Key, path)
		if err != nil {
			return nil, err
		}
		full := key.text
		if path != "" {
			full = path + "." + key.text
		}
		entries = append(entries, entry{key: v.Key, name: key.text, path: full, value: v.Value})
	}
	return entries, nil
}

func (f file) where(node ast.Node, path string) string {
	pos := node.GetToken().Position
	where := fmt.Sprintf("%s:%d:%d", f.name, pos.Line, pos.Column)
	if path != "" {
		where += ": " + path
	}
	return where
}

func (f file) errorf(node ast.Node, path, format string, args ...any) error {
	return &Error{Where: f.where(node, path), Err: fmt.Errorf(format, args...)}
}

// syntaxError puts what the parser says, which comes with a drawing of the
// place, into one line.
func syntaxError(name string, err error) error {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		pos := e.GetToken().Position
		return &Error{Where: fmt.Sprintf("%s:%d:%d", name, pos.Line, pos.Column), Err: errors.New(e.GetMessage())}
	}
	return &Error{Where: name, Err: err}
}

// names returns the names of all settings.
func names() []string {
	var all []string
	for _, s := range settings() {
		all = append(all, s.name)
	}
	return all
}
