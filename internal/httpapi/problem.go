package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/limit"
	"gearman-gateway/internal/webhook"
)

// problemType and the kind's name make the "type" of a problem (RFC 9457). It names the kind and cannot be fetched.
const problemType = "urn:gearman-gateway:problem:"

// A kind of problem. Callers tell problems apart by its name; the status is the same for all of a kind.
type kind struct {
	name       string
	status     int
	title      string
	retryAfter string // seconds
}

var (
	invalidJSON          = kind{"invalid-json", http.StatusBadRequest, "The body is not the JSON it must be", ""}
	invalidHeader        = kind{"invalid-header", http.StatusBadRequest, "A header cannot be honoured", ""}
	invalidBody          = kind{"invalid-body", http.StatusBadRequest, "The body could not be read", ""}
	unauthorized         = kind{"unauthorized", http.StatusUnauthorized, "Credentials are needed", ""}
	forbidden            = kind{"forbidden", http.StatusForbidden, "The request is refused", ""}
	notFound             = kind{"not-found", http.StatusNotFound, "There is nothing here", ""}
	jobNotFound          = kind{"job-not-found", http.StatusNotFound, "No such job", ""}
	sinkNotFound         = kind{"sink-not-found", http.StatusNotFound, "No such sink", ""}
	functionNotFound     = kind{"function-not-found", http.StatusNotFound, "No such function", ""}
	deliveryNotFound     = kind{"delivery-not-found", http.StatusNotFound, "No such delivery", ""}
	methodNotAllowed     = kind{"method-not-allowed", http.StatusMethodNotAllowed, "The method is not for this path", ""}
	notAcceptable        = kind{"not-acceptable", http.StatusNotAcceptable, "Only JSON can be had here", ""}
	requestTimeout       = kind{"request-timeout", http.StatusRequestTimeout, "The body did not arrive in time", ""}
	idempotencyPending   = kind{"idempotency-in-progress", http.StatusConflict, "The first request with this key is not done", "1"}
	jobEnded             = kind{"job-ended", http.StatusConflict, "The job has ended already", ""}
	jobRunning           = kind{"job-running", http.StatusConflict, "The job runs where it cannot be stopped", ""}
	jobNotEnded          = kind{"job-not-ended", http.StatusConflict, "The job has not ended", ""}
	jobCompleted         = kind{"job-completed", http.StatusConflict, "The job has completed", ""}
	workloadUnavailable  = kind{"workload-unavailable", http.StatusConflict, "The job's workload was not kept", ""}
	resultUnavailable    = kind{"result-unavailable", http.StatusConflict, "The job has no result to give", ""}
	deliveryPending      = kind{"delivery-pending", http.StatusConflict, "The delivery has not ended", ""}
	resultExpired        = kind{"result-expired", http.StatusGone, "The result is no longer kept", ""}
	eventsExpired        = kind{"events-expired", http.StatusGone, "The events are no longer kept", ""}
	payloadTooLarge      = kind{"payload-too-large", http.StatusRequestEntityTooLarge, "The body or the workload is too large", ""}
	unsupportedMediaType = kind{"unsupported-media-type", http.StatusUnsupportedMediaType, "The body is of a type that is not read here", ""}
	validationError      = kind{"validation-error", http.StatusUnprocessableEntity, "The request has mistakes", ""}
	keyReused            = kind{"idempotency-key-reused", http.StatusUnprocessableEntity, "The key was used for another submission", ""}
	internalError        = kind{"internal-error", http.StatusInternalServerError, "The gateway made a mistake", ""}
	gearmanError         = kind{"gearman-error", http.StatusBadGateway, "The job server refused the request", ""}
	jobFailed            = kind{"job-failed", http.StatusBadGateway, "The job did not complete", ""}
	rateLimited          = kind{"rate-limited", http.StatusTooManyRequests, "A limit is reached", "1"}
	overloaded           = kind{"overloaded", http.StatusServiceUnavailable, "More comes in than can be done", "1"}
	gearmanUnavailable   = kind{"gearman-unavailable", http.StatusServiceUnavailable, "No job server can be reached", "1"}
	queueFull            = kind{"queue-full", http.StatusServiceUnavailable, "Too much is waiting already", "1"}
	noWorker             = kind{"no-worker", http.StatusServiceUnavailable, "No worker can do this function", "1"}
	eventsFull           = kind{"events-full", http.StatusServiceUnavailable, "Too many events wait to be delivered", "5"}
	storageUnavailable   = kind{"storage-unavailable", http.StatusServiceUnavailable, "Nothing can be stored", "5"}
	shuttingDown         = kind{"shutting-down", http.StatusServiceUnavailable, "The gateway is shutting down", "5"}
	gearmanTimeout       = kind{"gearman-timeout", http.StatusGatewayTimeout, "The job server did not answer", ""}
)

// goneEvents is told of an event that never was, too: it cannot be told apart from one that was forgotten.
const goneEvents = "What followed after this is no longer kept, or it never was here. Begin without after: with the oldest event that is kept."

// failures maps errors of the packages below to problems; the first that errors.Is finds counts. ErrOutcomeUnknown comes first
// because it wraps the cause, such as ErrClosed, and only it tells that submitting again may make two jobs.
var failures = []struct {
	err    error
	kind   kind
	detail string
}{
	{limit.ErrOverloaded, overloaded, "More requests come in than can be worked on. Nothing was done."},
	{gearman.ErrOutcomeUnknown, gearmanTimeout, "The job was on its way when the answer failed to come: it may or may not run."},
	{errStopped, shuttingDown, "The gateway stopped before the job had ended; the job may go on."},
	{gearman.ErrClosed, shuttingDown, "The gateway stopped before the job was submitted."},
	{ledger.ErrNotFound, jobNotFound, "Neither the gateway nor a job server knows this job."},
	{ledger.ErrStoreFailed, storageUnavailable, "The job could not be stored, so it was not accepted."},
	{ledger.ErrKeyReused, keyReused, "Another submission was sent with this Idempotency-Key before. Nothing was submitted."},
	{ledger.ErrKeyPending, idempotencyPending, "The first request with this Idempotency-Key is still being submitted."},
	{ledger.ErrRunning, jobRunning, "The job runs on a worker that is not the gateway's own, and Gearman has no way to stop that."},
	{ledger.ErrEnded, jobEnded, "A job that has ended cannot be cancelled."},
	{ledger.ErrNotEnded, jobNotEnded, "Only a job that has ended can be run again."},
	{ledger.ErrCompleted, jobCompleted, "A job that has completed is not run again."},
	{ledger.ErrNoWorkload, workloadUnavailable, "Only of tracked jobs the workload is kept, and only for a time."},
	{ledger.ErrFull, queueFull, "The gateway holds as many waiting jobs as it may."},
	{ledger.ErrEventsFull, eventsFull, "So many events wait for their webhook sinks that those of one more job might not be kept; nothing was submitted."},
	{webhook.ErrEventsExpired, eventsExpired, goneEvents},
	{webhook.ErrNoEvent, eventsExpired, goneEvents},
	{webhook.ErrNoSink, sinkNotFound, "No sink of this name is configured."},
	{webhook.ErrNoDelivery, deliveryNotFound, "There is no delivery of this event to this sink, or it is no longer kept."},
	{webhook.ErrPending, deliveryPending, "Only a delivery that has ended can be made again; this one is still tried."},
	{gearman.ErrBusy, queueFull, "The job servers do not keep up with what is sent to them; nothing was submitted."},
	{gearman.ErrNotSent, gearmanUnavailable, "Nothing was submitted; it is safe to try again."},
	{gearman.ErrUnavailable, gearmanUnavailable, "No job server could be asked."},
	{context.DeadlineExceeded, gearmanUnavailable, "The job server did not answer in time."},
}

// A problem is an error that knows its response. Its detail is for the client and names no address, job server text or
// worker text; its cause is for the log.
type problem struct {
	kind
	detail string
	fields []fieldError
	job    string // the id of the job it is about
	reason string // of jobFailed: the kind of the job's error
	limit  *limit.Exceeded
	cause  error
}

// A fieldError is one mistake of the request: in the body at Pointer, or in the path or query parameter Parameter.
type fieldError struct {
	Pointer, Parameter string
	Detail             string
}

func (k kind) because(format string, args ...any) *problem {
	return &problem{kind: k, detail: fmt.Sprintf(format, args...)}
}

func (p *problem) causedBy(err error) *problem {
	p.cause = err
	return p
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.name + ": " + p.cause.Error()
	}
	return p.name + ": " + p.detail
}

func (p *problem) Unwrap() error { return p.cause }

// asProblem finds the problem for any error.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.kind.because("%s", f.detail).causedBy(err)
		}
	}
	if e, ok := errors.AsType[*limit.Exceeded](err); ok {
		return exceeded(rateLimited, e)
	}
	if e, ok := errors.AsType[*gearman.ServerError](err); ok {
		if e.QueueFull() {
			return queueFull.because("The queue of this function is full.").causedBy(err)
		}
		return gearmanError.because("The job server answered with an error.").causedBy(err)
	}
	if e, ok := errors.AsType[*gearman.NameError](err); ok {
		p := validationError.because("The %s cannot be used.", e.Field).causedBy(err)
		p.fields = []fieldError{{Parameter: e.Field, Detail: e.Reason}}
		return p
	}
	return internalError.because("It was logged under this response's X-Request-Id.").causedBy(err)
}

// fail is the one place where an error becomes a response. The access log line has the error, so nobody else logs it.
func (a *API) fail(w *response, r *http.Request, err error) {
	w.err = err
	if err = stopped(r.Context(), err); r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		w.status = statusClientGone // nobody is there to be answered; only the log sees it
		return
	}
	if w.status != 0 {
		return // the response was under way, and is cut short
	}
	p := asProblem(err)
	if p.job == "" {
		p.job = w.job
	}
	if p.retryAfter != "" {
		w.set("Retry-After", p.retryAfter)
	}
	w.send(p.status, "application/problem+json", append(p.append(nil), '\n'))
}

// stopped returns errStopped for an err that is nothing but the end of ctx by Server.Shutdown, and else err.
func stopped(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), errStopped) {
		return errStopped
	}
	return err
}

// statusClientGone is what logs show, since nginx, for a request whose client did not wait for the answer.
const statusClientGone = 499

// errStopped is the cause of a request's context that Server.Shutdown ended.
var errStopped = errors.New("gateway stopped")

func (p *problem) append(b []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, problemType...)
	b = append(b, p.name...)
	b = append(b, `","title":`...)
	b = appendString(b, p.title)
	b = fmt.Appendf(b, `,"status":%d,"detail":`, p.status)
	b = appendString(b, p.detail)
	if p.job != "" {
		b = append(b, `,"id":`...)
		b = appendString(b, p.job)
	}
	if p.reason != "" {
		b = append(b, `,"error":{"kind":`...)
		b = appendString(b, p.reason)
		b = append(b, '}')
	}
	if p.limit != nil {
		b = fmt.Appendf(b, `,"limit":"%s","of":"%s"`, p.limit.Limit, p.limit.Of)
		if p.retryAfter != "" {
			b = fmt.Appendf(b, `,"retry_after":%s`, p.retryAfter) // the items of a batch have no headers
		}
	}
	if len(p.fields) > 0 {
		b = append(b, `,"errors":[`...)
		for i, f := range p.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = f.append(b)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func (f fieldError) append(b []byte) []byte {
	where, value := `{"pointer":`, f.Pointer
	if f.Parameter != "" {
		where, value = `{"parameter":`, f.Parameter
	}
	b = append(b, where...)
	b = appendString(b, value)
	b = append(b, `,"detail":`...)
	b = appendString(b, f.Detail)
	return append(b, '}')
}

// appendString appends s as a JSON string, with U+FFFD for what is not UTF-8.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // its error tells of the U+FFFD only
	return b
}
