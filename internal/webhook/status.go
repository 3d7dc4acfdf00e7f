package webhook

import (
	"fmt"

	"gearman-gateway/internal/event"
)

// SinkState says in a word how a sink is.
type SinkState string

// The states of a sink. A failing one is sent one delivery at a time, with pauses, until it takes one.
const (
	Active   SinkState = "active"
	Failing  SinkState = "failing"
	Paused   SinkState = "paused"
	Disabled SinkState = "disabled"
)

// SinkStatus is what there is to know of a sink.
type SinkStatus struct {
	Name      string
	URL       string // without what may be secret; "" of the callbacks, which have many
	Events    event.Patterns
	Functions []string // nil: all
	State     SinkState
	Standing
	Backlog
}

// CallbackError is why a job's callback is refused. Detail is for the caller.
type CallbackError struct {
	Member string // the callback's member at fault: "url" or "events"
	Detail string
}

func (e *CallbackError) Error() string { return fmt.Sprintf("callback %s: %s", e.Member, e.Detail) }
