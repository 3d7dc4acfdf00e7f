package launch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArgumentsAreReadAsTheyWereWritten(t *testing.T) {
	for _, want := range []Limits{{}, {Data: 1 << 40, CPU: 3, Files: 64}, {CPU: 1, Processes: 2, Group: 4}} {
		argv := []string{"name", "", "a b", "$HOME", "-x"}
		got, path, rest, err := parse(want.Args("/bin/a b", argv))
		if err != nil || got != want || path != "/bin/a b" || !cmp.Equal(rest, argv) {
			t.Errorf("%+v, %q, %q, %v", got, path, rest, err)
		}
	}
	for _, args := range [][]string{nil, {Name}, {Name, "0,0,0,0,0", "/bin/true"}, {Name, "0,0,0,0", "a", "a"}, {Name, "0,x,0,0,0", "a", "a"}} {
		if _, _, _, err := parse(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
