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
			switch e.name {
			case registryKey:
				err = f.registries(l, e)
			case seederKey:
				err = f.seeder(l, e)
			default:
				l[e.name], err = f.setting(e)
			}
			if err != nil {
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
		return nil, f.errorf(e.key, e.path, "is no setting: there are %s", strings.Join(append(names(), seederKey), ", "))
	case s.list:
		return f.list(e)
	}
	w, err := f.scalar(e.value, e.path)
	return []word{w}, err
}

// registries puts NAME: {upstreams: [URL, ...], KEY: VALUE, ...} into l: the
// upstreams as words NAME=URL, as a flag has them, other keys as
// registry.NAME.KEY, and where the registry stands.
func (f file) registries(l layer, e entry) error {
	registries, err := f.entries(e.value, e.path)
	if err != nil {
		return err
	}
	for _, r := range registries {
		keys, err := f.entries(r.value, r.path)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			return f.errorf(r.key, r.path, "says nothing: name its upstreams")
		}
		l[registryPlace+r.name] = []word{{text: r.name, where: f.where(r.key, r.path)}}
		for _, k := range keys {
			words, err := f.registrySetting(k)
			if err != nil {
				return err
			}
			if k.name != upstreamsKey {
				l[k.path] = words
				continue
			}
			for _, w := range words {
				l[registryKey] = append(l[registryKey], word{text: r.name + "=" + w.text, where: w.where})
			}
		}
	}
	return nil
}

// registrySetting returns the words of a key of a registry.
func (f file) registrySetting(k entry) ([]word, error) {
	s, known := findRegistrySetting(k.name)
	if !known && k.name != upstreamsKey {
		return nil, f.errorf(k.key, k.path, "is no setting of a registry: there are %s", strings.Join(registryNames(), ", "))
	}
	if known && !s.list {
		w, err := f.scalar(k.value, k.path)
		return []word{w}, err
	}
	words, err := f.list(k)
	if err == nil && len(words) == 0 {
		return nil, f.errorf(k.key, k.path, "is empty: leave it out instead")
	}
	return words, err
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
