package workerpool_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/workerpool"
)

type killedError struct{ exitError }

func (killedError) Died() bool { return true }

func TestAFailureIsObservedWithWhatItMeansForAnotherTry(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want event.Verdict
	}{
		"plain":     {errors.New("no luck"), event.Verdict{MaxDeaths: 4}},
		"retry":     {fmt.Errorf("f: %w", &workerpool.RetryError{After: time.Minute}), event.Verdict{MaxDeaths: 4, After: time.Minute}},
		"never":     {fmt.Errorf("f: %w", &workerpool.NeverRetryError{}), event.Verdict{MaxDeaths: 4, Never: true}},
		"died":      {&workerpool.RetryError{Err: killedError{}}, event.Verdict{MaxDeaths: 4, Died: true}},
		"timed out": {errors.Join(context.DeadlineExceeded, killedError{}), event.Verdict{MaxDeaths: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			rec := newRecorder()
			s := startServer(t, "127.0.0.1:0")
			startPool(t, workerpool.Options{Observer: rec, MaxDeaths: 4, Functions: functions{
				"f": fn(func(context.Context, *workerpool.Job) ([]byte, error) { return nil, test.err }),
			}}, s.Addr())
			call(t, connect(t, s.Addr()), "f", "")
			heard := rec.all()
			if diff := cmp.Diff(&test.want, heard[len(heard)-1].Data.Verdict); diff != "" {
				t.Error(diff)
			}
		})
	}
}
