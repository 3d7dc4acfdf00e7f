package webhook

import (
	"context"
	"errors"
	"time"

	"gearman-gateway/internal/event"
)

// An Outbox keeps events until every sink has had them, and what became of each delivery. Its events are a log, numbered from 1 in the
// order in which they were given; each sink works through it by itself:
//
//	log       1  2  3  4  5  6  7  8  9
//	                     ▲
//	                     position of a sink: up to here it has looked, and has a delivery of each event that it wants
//
// A delivery is pending until the sink has taken it (delivered) or it has failed too often (dead). Of the pending deliveries of one
// sink with one subject only the first, by number, is due at some time; the next becomes due when it ends: that is what keeps the
// events of a job in order. The Outbox sees to it in the same transaction, so that a crash at any moment leaves none waiting for ever.
//
// When its bound is reached the oldest events that are settled go, and with them what can be read of the log before; events among them that
// a sink is still to get are left, for its delivery alone, unless the sink is given up:
//
//	2     4     6  7  8  9
//	            ▲
//	            the log begins here; 2 and 4 are pending, and go when that has ended
//
// DB of package store is durable; Memory is what a gateway without a data directory has. Both are safe for concurrent use.
type Outbox interface {
	// Publish adds events to the log, those that anybody may want (see Wanted). It does not block. When the outbox is full, or events come
	// faster than they can be stored, those that are not Promised are dropped, counted and logged.
	event.Sink

	// Full reports whether the events that wait for their sinks have reached the bound of the outbox, what is settled for all of them
	// having been given up already. New tracked and scheduled jobs are then to be refused.
	Full() bool

	// Dropped returns how many events were dropped, since there was no room or they could not be stored.
	Dropped() uint64

	// Register makes a sink known and returns how it stands; one that is new begins at the end of the log. The events that a sink of this
	// life is still to get are kept, unless it is Disabled; those of sinks that are not registered may be given up for others.
	Register(ctx context.Context, sink string) (Standing, error)

	// Unregister says that a sink is not one of this life any more. It may be registered again, and goes on where it was.
	Unregister(ctx context.Context, sink string) error

	// Advance takes one step of a sink, in one transaction that is durable when it returns.
	Advance(ctx context.Context, sink string, s Step) (Advanced, error)

	// Due returns lines of a registered sink whose first delivery is due, those that are due longest first.
	Due(ctx context.Context, sink string, q DueQuery) (Ready, error)

	// Events returns a page of the log. The error is ErrEventsExpired where it would have a gap, and for an After beyond the end, which
	// is of another log: whoever asks would wait for ever.
	Events(ctx context.Context, q EventQuery) (EventPage, error)

	// Grown returns a channel that is closed when the next event is in the log.
	Grown() <-chan struct{}

	// Backlog returns how far a sink is behind; of one that is not known it is all zero.
	Backlog(ctx context.Context, sink string) (Backlog, error)

	// Deliveries returns deliveries without their Log, newest event first.
	Deliveries(ctx context.Context, q DeliveryQuery) ([]Delivery, error)

	// Delivery returns one; ErrNoDelivery if the sink has none of the event (yet).
	Delivery(ctx context.Context, sink, eventID string) (Delivery, error)

	// Requeue makes a delivery that has ended pending once more, due at once and with all its attempts. The error is ErrNoDelivery, or
	// ErrPending for one that has not ended.
	Requeue(ctx context.Context, sink, eventID string) error

	// Replay is Requeue for all dead deliveries of a sink whose events happened at since or later and before until (zero: any time). It
	// returns how many there were.
	Replay(ctx context.Context, sink string, since, until time.Time) (int, error)

	// Hasten makes every pending delivery of a sink that waits for its next attempt due now.
	Hasten(ctx context.Context, sink string) error
}

// Why the outbox has no answer.
var (
	ErrEventsExpired = errors.New("events after the cursor are not kept")
	ErrNoEvent       = errors.New("no such event")
	ErrNoDelivery    = errors.New("no such delivery")
	ErrPending       = errors.New("the delivery has not ended")
	ErrNoSink        = errors.New("no such sink")
)

// Standing is how a sink stands. It is kept across restarts.
type Standing struct {
	Paused       bool
	Disabled     string    // why; "": it is not
	FailingSince time.Time // the first failure since the last success; zero: its last attempt was a success, or there was none
	LastError    string
	LastErrorAt  time.Time
	LastSuccess  time.Time
}

// Head is what decides whether a sink wants an event.
type Head struct {
	Type     event.Type
	Function string // "": the event is of no function
	Callback bool   // a job's own callback wants it
}

// HeadOf returns an event's.
func HeadOf(e *event.Event) Head {
	return Head{Type: e.Type, Function: e.Data.Function, Callback: e.Callback != ""}
}

// Step is one step of a sink: what ended is noted, and then so many events of the log are looked at.
type Step struct {
	Ends     []Ended           // in the order in which they happened; several may be of one delivery
	Standing *Standing         // nil: as it was
	Look     int               // most events to look at; 0: none
	Wants    func(h Head) bool // which of them get a delivery. It is called under locks and must not block
}

// Ended is the end of one attempt of a delivery that Due has returned.
type Ended struct {
	N        int64
	Subject  string
	State    DeliveryState // Pending: it is tried again
	Due      time.Time     // of the next attempt, for Pending
	Attempts int           // that count against the schedule, so far
	Log      []Attempt     // all of them, the last ones if there were many
}

// Advanced says how a Step went. Looked less than the Step's Look: the sink is at the end of the log.
type Advanced struct {
	Looked int
}

// DueQuery asks for lines.
type DueQuery struct {
	Now     time.Time
	Early   bool                      // those that are due later will do, too, if there are none
	Lines   int                       // most lines
	Letters int                       // most letters of each line
	Skip    func(subject string) bool // lines that the sink has in hand. It must not block
}

// Ready is the answer: lines, and when the next one that is not among them will be due; zero: there is none. Lines that are skipped
// may count or not.
type Ready struct {
	Lines []Line
	Next  time.Time
}

// Line is pending deliveries of one subject in their order, beginning with the first that is pending.
type Line struct {
	Subject string
	Letters []Letter
}

// Letter is what is needed to make an attempt of a delivery.
type Letter struct {
	N           int64
	EventID     string
	Type        event.Type
	Body        []byte // see Encode
	Callback    string // Event.Callback
	Traceparent string
	Attempts    int       // that counted so far
	Log         []Attempt // those made so far
}

// Attempt is one POST and what came of it.
type Attempt struct {
	At       time.Time
	Duration time.Duration
	Status   int    // of the answer; 0: there was none
	Error    string // why it was no success; "": it was
	Answer   []byte // the first 4 KiB of the answer's body
}

// maxAttempts bounds the attempts that are kept of a delivery: the last ones.
const maxAttempts = 20

// EventQuery selects events of the log. Zero fields select all.
type EventQuery struct {
	Owner   string         // only events of its jobs; another's AfterID is not in the log
	After   int64          // only events with a greater number
	AfterID string         // only events after the one with this ID, in place of After; ErrNoEvent if it is not in the log
	Types   event.Patterns // nil: any
	Subject string
	Limit   int // at most so many; it is always set
}

// EventPage is a part of the log: bodies as Encode makes them, in order. Next is the After of the next page, and End says that there is
// nothing beyond it yet. A page may be empty and not the End, where many events were looked at that the query does not select.
type EventPage struct {
	Bodies [][]byte
	Next   int64
	End    bool
}

// Backlog is how far a sink is behind.
type Backlog struct {
	Behind  int64     // events of the log that it has not looked at; it may not want them all
	Pending int64     // deliveries
	Dead    int64     // deliveries
	Oldest  time.Time // of the events of both; zero: there is none
}

// DeliveryState is where a delivery is.
type DeliveryState string

// The states.
const (
	Pending   DeliveryState = "pending"
	Delivered DeliveryState = "delivered"
	Dead      DeliveryState = "dead"
)

// DeliveryStates lists them all.
var DeliveryStates = []DeliveryState{Pending, Delivered, Dead}

// DeliveryQuery selects deliveries. Zero fields select all.
type DeliveryQuery struct {
	Owner  string
	Sink   string
	State  DeliveryState
	Before int64 // N: only those of older events
	// BeforeSink goes on within one event: deliveries of the event Before whose sink's name is greater belong to the selection, too.
	// Several sinks may have a delivery of one event; those of one event come in the order of their sinks' names.
	BeforeSink string
	Limit      int // at most so many; it is always set
}

// Delivery is one event on its way to one sink.
type Delivery struct {
	N        int64 // of the event in the log
	Sink     string
	Owner    string // of the event's job; "": nobody
	EventID  string
	Type     event.Type
	Subject  string
	Time     time.Time // of the event
	State    DeliveryState
	Attempts int       // that count against the schedule
	Due      time.Time // of the next attempt; zero: it has ended, or waits for one of its subject in front of it
	Log      []Attempt // set by Outbox.Delivery
}
