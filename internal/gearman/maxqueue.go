package gearman

import (
	"context"
	"errors"
	"fmt"
)

// MaxQueue bounds the jobs of a function that a job server has, those that run too: a job is refused where there are as many as the
// number for its priority, or more. 0: it is not refused.
type MaxQueue struct{ High, Normal, Low int }

// MaxMaxQueue is the largest number in a MaxQueue: what job servers keep in 32 bits.
const MaxMaxQueue = 1<<31 - 1

// SetMaxQueue bounds the jobs of a function, until the job server ends. Jobs that it has already stay.
func (a *Admin) SetMaxQueue(ctx context.Context, function string, m MaxQueue) error {
	if err := CheckFunction(function); err != nil {
		return err
	}
	for _, n := range []int{m.High, m.Normal, m.Low} {
		if n < 0 || n > MaxMaxQueue {
			return fmt.Errorf("a queue of %d jobs: not from 0 to %d", n, MaxMaxQueue)
		}
	}
	// gearmand says OK to the bound of a function that it does not know, and forgets it. Job servers that cannot create functions need not.
	_, err := a.line(ctx, "create function "+function)
	if _, refused := errors.AsType[*ServerError](err); err != nil && !refused {
		return err
	}
	command := fmt.Sprintf("maxqueue %s %d %d %d", function, m.High, m.Normal, m.Low)
	if m.High == m.Normal && m.Normal == m.Low { // which more of them understand
		command = fmt.Sprintf("maxqueue %s %d", function, m.High)
	}
	line, err := a.line(ctx, command)
	if err == nil && line != "OK" {
		err = a.errorf(command, fmt.Errorf("answer %q", line))
	}
	return err
}

// Answer is what one job server of several said.
type Answer struct {
	Server string
	Err    error // nil: it did what it was asked
}

// SetMaxQueue is Admin.SetMaxQueue on each server at once. The answers are in the order of the configuration.
func (c *Cluster) SetMaxQueue(ctx context.Context, function string, q MaxQueue) []Answer {
	errs := c.each(func(_ int, m *member) error { return m.admin.SetMaxQueue(ctx, function, q) })
	answers := make([]Answer, len(errs))
	for i, err := range errs {
		answers[i] = Answer{c.members[i].Addr(), err}
	}
	return answers
}
