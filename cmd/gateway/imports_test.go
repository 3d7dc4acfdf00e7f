package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "gearman-gateway"

// mayImport is the house's plan: the packages of this module that the non-test files of each package may import. Arrows go
// one way, from HTTP and configuration down to bytes and words; only the root meets everyone.
var mayImport = map[string][]string{
	"cmd/gateway": {""},
	"": {
		"api", "internal/auth", "internal/event", "internal/gearman", "internal/gearman/wire", "internal/handler", "internal/httpapi", "internal/jobserver",
		"internal/ledger", "internal/metrics", "internal/store", "internal/tracing", "internal/webhook", "internal/workerpool",
	},
	"internal/metrics": {
		"internal/gearman", "internal/httpapi", "internal/ledger", "internal/store", "internal/webhook", "internal/workerpool",
	},
	"internal/httpapi":        {"api", "internal/auth", "internal/event", "internal/gearman", "internal/ledger", "internal/tracing", "internal/webhook"},
	"internal/store":          {"internal/event", "internal/gearman", "internal/ledger", "internal/store/query", "internal/webhook"},
	"internal/store/query":    {},
	"internal/ledger":         {"internal/event", "internal/gearman", "internal/tracing"},
	"internal/handler":        {"internal/handler/launch", "internal/workerpool"},
	"internal/handler/launch": {},
	"internal/workerpool":     {"internal/event", "internal/gearman", "internal/tracing"},
	"internal/webhook":        {"internal/event", "internal/tracing"},
	"internal/tracing":        {},
	"internal/jobserver":      {"internal/gearman/wire"},
	"internal/gearman":        {"internal/gearman/wire"},
	"internal/gearman/wire":   {},
	"internal/event":          {},
	"internal/auth":           {},
	"api":                     {},
	// in no list: they support tests, and only those import them
	"internal/gearmandtest":       {},
	"internal/webhook/outboxtest": {"internal/event", "internal/webhook"},
}

func TestImportsGoOneWay(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "vendor" || file != root && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != root { // a module of its own
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(dir)), "/")
		seen[pkg] = true
		allowed, planned := mayImport[pkg]
		if !planned {
			t.Errorf("%s: package %q is not in the table of imports", file, pkg)
		}
		for _, imported := range imports(t, file) {
			if !slices.Contains(allowed, imported) {
				t.Errorf("%s: package %q may not import %q", file, pkg, imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !seen["cmd/gateway"] || !seen["internal/gearman/wire"] {
		t.Errorf("looked at the wrong tree: %v", seen)
	}
}

// imports returns what the file imports of this module, relative to its root: "" is the root package.
func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if name == module {
			ours = append(ours, "")
		} else if rest, ok := strings.CutPrefix(name, module+"/"); ok {
			ours = append(ours, rest)
		}
	}
	return ours
}

func TestTableOfImportsHasNoCycle(t *testing.T) {
	var visit func(pkg string, trail []string)
	visit = func(pkg string, trail []string) {
		if slices.Contains(trail, pkg) {
			t.Fatalf("a cycle: %q", append(trail, pkg))
		}
		for _, next := range mayImport[pkg] {
			if _, planned := mayImport[next]; !planned {
				t.Errorf("%q may import %q, which has no row", pkg, next)
			}
			visit(next, append(trail, pkg))
		}
	}
	for pkg := range mayImport {
		visit(pkg, nil)
	}
}
