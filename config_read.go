package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"
)

// ReadFile sets what a YAML file says. Unknown and duplicate keys and bad values are errors that name the line and the key.
func (c *Config) ReadFile(name string) error { return readYAML(name, c) }

// readYAML decodes a file with one document, or none, which sets nothing.
func readYAML(name string, to any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(to); err != nil && !errors.Is(err, io.EOF) {
		return mistakes(name, text, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is a second document in it, which nothing would read", name)
	}
	return nil
}

// mistakes returns an error for each value that could not be taken. The decoder tells the place of each; its key is found here.
func mistakes(name string, text []byte, err error) error {
	var wrong *yaml.LoadErrors
	var document yaml.Node
	if !errors.As(err, &wrong) || yaml.Unmarshal(text, &document) != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	errs := make([]error, len(wrong.Errors))
	for i, e := range wrong.Errors {
		key := keyAt(&document, "", e.Mark.Line, e.Mark.Column)
		if key != "" {
			key += ": "
		}
		errs[i] = fmt.Errorf("%s: line %d: %s%s", name, e.Mark.Line, key, e.Message)
	}
	return errors.Join(errs...)
}

// keyAt returns the key, such as sinks[0].url, of what begins at a place in n, which itself is the value of key; "" if there is none.
func keyAt(n *yaml.Node, key string, line, column int) string {
	if n.Line == line && n.Column == column {
		return key
	}
	for i, below := range n.Content {
		k := key
		switch n.Kind {
		case yaml.SequenceNode:
			k = fmt.Sprintf("%s[%d]", key, i)
		case yaml.MappingNode: // keys and values, in turn
			k = strings.TrimPrefix(key+"."+n.Content[i&^1].Value, ".")
		}
		if found := keyAt(below, k, line, column); found != "" {
			return found
		}
	}
	return ""
}
