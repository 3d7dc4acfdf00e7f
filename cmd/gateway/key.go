package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	gateway "gearman-gateway"
)

type keyCmd struct {
	New newKeyCmd `cmd:"" help:"Make an API key and print it, once: it is stored nowhere."`
}

type newKeyCmd struct {
	Name       string          `required:"" help:"Whose key it is: letters, digits and . _ @ / -, up to 64. Keys with one name share their jobs."`
	Scopes     []gateway.Scope `required:"" help:"What it may do: submit, read, cancel, admin." placeholder:"SCOPE"`
	Functions  []string        `help:"Functions that it may submit, or patterns such as img.* (all)." placeholder:"NAME"`
	Priorities []string        `help:"Priorities that it may use: high, normal, low (all)." placeholder:"PRIORITY"`
	Expires    string          `help:"When it ends (never)." placeholder:"90d|12h|2030-01-31T00:00:00Z"`
	Append     string          `help:"Add its entry to this file for --keys-file, and print the key alone." placeholder:"FILE"`
}

// Run prints a new key and what the configuration is to hold of it.
func (c *newKeyCmd) Run() error {
	expires, err := expiry(c.Expires, time.Now())
	if err != nil {
		return usageError{err}
	}
	g := gateway.Grant{Name: c.Name, Scopes: c.Scopes, Functions: c.Functions, Priorities: c.Priorities}
	key, stored, err := gateway.NewKey(g, expires)
	if err != nil {
		return usageError{err}
	}
	if c.Append != "" {
		if err := gateway.AppendKey(c.Append, stored); err != nil {
			return err
		}
		_, err = fmt.Println(key)
		return err
	}
	entry, err := yaml.Marshal([]gateway.APIKey{stored})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "The key, which is shown this once and kept nowhere:\n\n    %s\n\nIts entry, for auth.keys or for the file of --keys-file:\n\n%s", key, entry)
	return err
}

// expiry reads a time in the future, which is given as days, as a duration or as RFC 3339 writes it; "" is none.
func expiry(text string, now time.Time) (end time.Time, err error) {
	if text == "" {
		return end, nil
	}
	if count, ok := strings.CutSuffix(text, "d"); ok {
		var days int
		days, err = strconv.Atoi(count)
		end = now.AddDate(0, 0, days)
	} else if d, notDuration := time.ParseDuration(text); notDuration == nil {
		end = now.Add(d)
	} else {
		end, err = time.Parse(time.RFC3339, text)
	}
	if err != nil || end.Year() > 9999 { // which RFC 3339 cannot write
		return end, fmt.Errorf("--expires: %q is neither like 90d or 12h nor like 2030-01-31T00:00:00Z", text)
	}
	if !end.After(now) {
		return end, errors.New("--expires: is not in the future")
	}
	return end.UTC().Truncate(time.Second), nil
}
