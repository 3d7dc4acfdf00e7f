// Package handler holds the kinds of handler that a worker pool can run.
package handler

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gearman-gateway/internal/workerpool"
)

// Builtin returns the built-in functions, enough to try every way that a job can go:
//
//	echo       returns the workload
//	reverse    returns the workload backwards: by characters if it is UTF-8, else by bytes
//	wordcount  returns the number of words in the workload
//	sleep      takes a number of seconds, reports progress ten times meanwhile
//	fail       fails, with an exception for the workload "exception" and a panic for "panic"
func Builtin() map[string]workerpool.Handler {
	return map[string]workerpool.Handler{
		"echo":      workerpool.HandlerFunc(echo),
		"reverse":   workerpool.HandlerFunc(reverse),
		"wordcount": workerpool.HandlerFunc(wordcount),
		"sleep":     workerpool.HandlerFunc(sleep),
		"fail":      workerpool.HandlerFunc(fail),
	}
}

func echo(_ context.Context, j *workerpool.Job) ([]byte, error) { return j.Workload, nil }

func reverse(_ context.Context, j *workerpool.Job) ([]byte, error) {
	if !utf8.Valid(j.Workload) {
		b := slices.Clone(j.Workload)
		slices.Reverse(b)
		return b, nil
	}
	r := []rune(string(j.Workload))
	slices.Reverse(r)
	return []byte(string(r)), nil
}

func wordcount(_ context.Context, j *workerpool.Job) ([]byte, error) {
	n := 0
	for range bytes.FieldsSeq(j.Workload) {
		n++
	}
	return strconv.AppendInt(nil, int64(n), 10), nil
}

const (
	sleepSteps = 10
	sleepMost  = 24 * time.Hour
)

func sleep(ctx context.Context, j *workerpool.Job) ([]byte, error) {
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(j.Workload)), 64)
	if err != nil || !(seconds >= 0 && seconds <= sleepMost.Seconds()) {
		return nil, fmt.Errorf("sleep takes a number of seconds from 0 to %v", sleepMost.Seconds())
	}
	total := time.Duration(seconds * float64(time.Second))
	step := time.NewTicker(max(total/sleepSteps, 1))
	defer step.Stop()
	for i := range uint64(sleepSteps) {
		select {
		case <-step.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		_ = j.Progress(i+1, sleepSteps) // who cannot hear it now can ask later
	}
	return fmt.Appendf(nil, "slept %v", total), nil
}

func fail(_ context.Context, j *workerpool.Job) ([]byte, error) {
	switch string(j.Workload) {
	case "exception":
		return nil, fmt.Errorf("this is the exception that was asked for")
	case "panic":
		panic("this is the panic that was asked for")
	}
	return nil, workerpool.ErrFailed
}
