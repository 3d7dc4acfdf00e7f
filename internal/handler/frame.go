package handler

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"gearman-gateway/internal/workerpool"
)

// The frames between the gateway and a persistent process; docs/persistent.md is for those who write one. A frame is a line of
// words and then, except for ready and progress, as many bytes as its second word says:
//
//	ready                                       from the process, when it can take a job: at the start, and after each job
//	job <length> <JSON>                         to the process; the JSON object has the job's fields
//	data|warning <length>, progress <n> <d>     from the process, while the job runs
//	result|failed|exception|never <length>      from the process, the end of the job
//	retry <length> [<seconds>]                  likewise
//
// Ready is what keeps jobs apart: an answer too many comes in its place, and is found before another job could take it for its own. It
// also tells a process that cannot start from one that fails its jobs.
const (
	maxHeader = 256      // bytes of the line that begins a frame from a process
	maxText   = 64 << 10 // bytes of a warning, and of a reason
)

// jobFields is the JSON of a job frame.
type jobFields struct {
	ID          string `json:"id"`
	Handle      string `json:"handle"`
	Unique      string `json:"unique"`
	Function    string `json:"function"`
	Attempt     int    `json:"attempt"`
	Deadline    string `json:"deadline"`
	Traceparent string `json:"traceparent"`
}

// appendJob appends the line that begins a job frame.
func appendJob(dst []byte, ctx context.Context, j *workerpool.Job) []byte {
	fields, _ := json.Marshal(jobFields{j.ID, j.Handle, j.Unique, j.Function, j.Attempt, deadline(ctx, j), j.Traceparent})
	dst = strconv.AppendInt(append(dst, "job "...), int64(len(j.Workload)), 10)
	return append(append(append(dst, ' '), fields...), '\n')
}

// A frame is one that a process sent.
type frame struct {
	kind  string
	body  []byte
	n, d  uint64        // of progress
	after time.Duration // of retry
}

// errGarbage: a process sent what is no frame.
var errGarbage = errors.New("the process does not speak the protocol of persistent handlers")

// readFrame reads one frame, whose body may have most bytes if it is data or a result. Its error is ErrTooLarge, errGarbage, or
// of the reader.
func readFrame(r *bufio.Reader, most int64) (f frame, err error) {
	line, err := readHeader(r)
	if err != nil {
		return f, err
	}
	words := bytes.Fields(line)
	if len(words) == 1 && string(words[0]) == "ready" {
		return frame{kind: "ready"}, nil
	}
	if len(words) < 2 {
		return f, garbage(line)
	}
	numbers := make([]uint64, len(words)-1)
	for i, word := range words[1:] {
		if numbers[i], err = strconv.ParseUint(string(word), 10, 64); err != nil {
			return f, garbage(line)
		}
	}
	f.kind = string(words[0])
	switch {
	case f.kind == "progress" && len(numbers) == 2:
		f.n, f.d = numbers[0], numbers[1]
		return f, nil
	case f.kind == "retry" && len(numbers) == 2:
		f.after = time.Duration(min(numbers[1], uint64(maxPause/time.Second))) * time.Second
	case len(numbers) != 1:
		return f, garbage(line)
	}
	switch f.kind {
	case "result", "data":
		if numbers[0] > uint64(most) {
			return f, ErrTooLarge
		}
	case "warning", "failed", "exception", "retry", "never":
		if numbers[0] > maxText {
			return f, garbage(line)
		}
	default:
		return f, garbage(line)
	}
	f.body = make([]byte, numbers[0])
	_, err = io.ReadFull(r, f.body)
	return f, err
}

// readHeader reads the line that begins a frame. It does not wait for the end of a line that is too long.
func readHeader(r *bufio.Reader) ([]byte, error) {
	line := make([]byte, 0, 32)
	for len(line) < maxHeader {
		c, err := r.ReadByte()
		if err == io.EOF && len(line) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if c == '\n' {
			return line, nil
		}
		line = append(line, c)
	}
	return nil, garbage(line)
}

func garbage(line []byte) error { return fmt.Errorf("%w: %q", errGarbage, line[:min(len(line), 200)]) }

// end says what the frame that ends a job means.
func (f *frame) end() (result []byte, err error) {
	text := string(bytes.ToValidUTF8(bytes.TrimSpace(f.body), []byte("\uFFFD")))
	switch f.kind {
	case "failed":
		if text == "" {
			return nil, workerpool.ErrFailed
		}
		return nil, fmt.Errorf("%w: %s", workerpool.ErrFailed, text)
	case "exception":
		return nil, errors.New(cmp.Or(text, "the handler reported an exception"))
	case "retry":
		return nil, retry(f.after, reasonGiven(text))
	case "never":
		return nil, &workerpool.NeverRetryError{Err: reasonGiven(text)}
	}
	return f.body, nil
}

func reasonGiven(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}
