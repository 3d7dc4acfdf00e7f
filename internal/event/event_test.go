package event_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
)

func TestTypesListsEveryConstant(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []event.Type
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Type" {
			for _, v := range spec.Values {
				value, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				declared = append(declared, event.Type(value))
			}
		}
		return true
	})
	if len(declared) < 20 {
		t.Fatalf("only %d constants of type Type found", len(declared))
	}
	all := append(slices.Clone(event.Types), event.SinkTest) // to which nobody can subscribe
	if diff := cmp.Diff(slices.Sorted(slices.Values(declared)), slices.Sorted(slices.Values(all))); diff != "" {
		t.Errorf("Types is not the list of the constants (-constants +Types):\n%s", diff)
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(declared))); len(unique) != len(declared) {
		t.Error("two constants have one value")
	}
}

func TestPatternsMatch(t *testing.T) {
	tests := []struct {
		patterns event.Patterns
		t        event.Type
		want     bool
	}{
		{nil, event.JobCompleted, false},
		{event.Patterns{"job.completed"}, event.JobCompleted, true},
		{event.Patterns{"job.completed"}, event.JobFailed, false},
		{event.Patterns{"job.complete"}, event.JobCompleted, false},
		{event.Patterns{"job.*"}, event.JobCompleted, true},
		{event.Patterns{"job.*"}, event.WorkerAfterRun, false},
		{event.Patterns{"worker.function.*"}, event.FunctionOnFailure, true},
		{event.Patterns{"worker.function.*"}, event.WorkerOnFailure, false},
		{event.Patterns{"worker.*"}, event.FunctionOnFailure, true},
		{event.Patterns{"*"}, event.WorkerOnIOWait, true},
		{event.Patterns{"worker.*", "job.lost"}, event.JobLost, true},
		{event.Patterns{"worker.*", "job.lost"}, event.JobFailed, false},
	}
	for _, tt := range tests {
		if got := tt.patterns.Match(tt.t); got != tt.want {
			t.Errorf("%q matches %s: %v, want %v", tt.patterns, tt.t, got, tt.want)
		}
	}
}

func TestDefaultPatternsLeaveOutTheTicks(t *testing.T) {
	left := []event.Type{event.WorkerOnIOWait, event.WorkerOnNoJobs, event.WorkerOnWork, event.JobProgress, event.JobData}
	for _, typ := range event.Types {
		if got, want := event.DefaultPatterns.Match(typ), !slices.Contains(left, typ); got != want {
			t.Errorf("the default selects %s: %v, want %v", typ, got, want)
		}
	}
}

func TestCheckNamesThePatternThatSelectsNothing(t *testing.T) {
	tests := []struct {
		patterns event.Patterns
		want     string
	}{
		{nil, ""},
		{event.DefaultPatterns, ""},
		{event.Patterns{"*", "job.*", "worker.function.*", "job.lost"}, ""},
		{event.Patterns{"job.*", "job.completd"}, "job.completd"},
		{event.Patterns{"jobs.*"}, "jobs.*"},
		{event.Patterns{"nothing", "job.*", "nobody"}, "nothing"},
		{event.Patterns{"job.*", ""}, `""`},
		{event.Patterns{"jo*"}, "jo*"},
	}
	for _, tt := range tests {
		err := tt.patterns.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Check of %q: %v, want an error that names %q", tt.patterns, err, tt.want)
		}
	}
}

func TestNewGivesEachEventItsOwnID(t *testing.T) {
	now := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	one := event.New(event.JobStarted, "job-1", 7, now, event.Data{Function: "reverse"})
	two := event.New(event.JobStarted, "job-1", 7, now, event.Data{Function: "reverse"})
	if one.ID == two.ID || !strings.HasPrefix(one.ID, "evt_") {
		t.Errorf("ids %q and %q, want two that begin with evt_", one.ID, two.ID)
	}
	want := event.Event{ID: one.ID, Type: event.JobStarted, Subject: "job-1", Seq: 7, Time: now, Data: event.Data{Function: "reverse"}}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
