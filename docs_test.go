package gateway_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	gateway "gearman-gateway"
)

// Whoever copies a configuration out of the documentation has one that works, once it has secrets of its own.
func TestConfigurationsOfTheDocumentationAreValid(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	n := 0
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks.FindAllStringSubmatch(string(text), -1) {
			n++
			c := gateway.DefaultConfig()
			file := filepath.Join(t.TempDir(), "gateway.yaml")
			yaml := strings.ReplaceAll(block[1], "whsec_…", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
			if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.ReadFile(file); err != nil {
				t.Errorf("%s: %v\n%s", page, err, yaml)
			} else if err := c.Check(); err != nil {
				t.Errorf("%s: %v\n%s", page, err, yaml)
			}
		}
	}
	if n == 0 {
		t.Error("found no configuration")
	}
}

// Each of the ten risks is shown to be met by tests, and none of them is a test that there is not.
func TestTheSecurityPageNamesTestsThatThereAre(t *testing.T) {
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	for _, m := range named.FindAllSubmatch(page, -1) {
		if !there[string(m[1])] {
			t.Errorf("there is no test %s", m[1])
		}
	}
	for i := range 10 {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| API%d:2023 .*$`, i+1)).FindAll(page, -1)
		if len(row) != 1 || !named.Match(row[0]) {
			t.Errorf("API%d has %d rows, or no test", i+1, len(row))
		}
	}
}
