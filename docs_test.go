package gateway_test

import (
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
