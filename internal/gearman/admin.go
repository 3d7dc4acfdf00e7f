package gearman

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Admin speaks the text protocol of one job server ("Administrative Protocol" in PROTOCOL). Each call makes a connection of its own
// and takes at most Options.DialTimeout, or until ctx ends: servers that do not know a command may not answer at all. It is
// safe for concurrent use and needs no closing.
type Admin struct{ o Options }

// NewAdmin returns an Admin of the job server that o names.
func NewAdmin(o Options) *Admin { return &Admin{o.withDefaults()} }

// FunctionStatus is one line of the table "status".
type FunctionStatus struct {
	Function                string
	Total, Running, Workers int
}

// maxAdminReply bounds what one command may answer: `show jobs` of a long queue is never asked for.
const maxAdminReply = 16 << 20

// Version returns what the job server calls its version, such as "1.1.20+ds".
func (a *Admin) Version(ctx context.Context) (string, error) {
	line, err := a.line(ctx, "version")
	return strings.TrimPrefix(line, "OK "), err
}

// Status returns the job server's functions, with the jobs and workers of each.
func (a *Admin) Status(ctx context.Context) ([]FunctionStatus, error) {
	rows, err := a.table(ctx, "status")
	if err != nil {
		return nil, err
	}
	list := make([]FunctionStatus, 0, len(rows))
	for _, row := range rows {
		n, name, err := numbers(row, 3)
		if err != nil {
			return nil, a.errorf("status", err)
		}
		list = append(list, FunctionStatus{Function: name, Total: n[0], Running: n[1], Workers: n[2]})
	}
	return list, nil
}

// PriorityStatus is one line of the table "prioritystatus": queued jobs by priority.
type PriorityStatus struct {
	Function                   string
	High, Normal, Low, Workers int
}

// PriorityStatus returns the job server's functions, with the queued jobs of each priority.
func (a *Admin) PriorityStatus(ctx context.Context) ([]PriorityStatus, error) {
	rows, err := a.table(ctx, "prioritystatus")
	if err != nil {
		return nil, err
	}
	list := make([]PriorityStatus, 0, len(rows))
	for _, row := range rows {
		n, name, err := numbers(row, 4)
		if err != nil {
			return nil, a.errorf("prioritystatus", err)
		}
		list = append(list, PriorityStatus{Function: name, High: n[0], Normal: n[1], Low: n[2], Workers: n[3]})
	}
	return list, nil
}

// numbers takes the last n fields off a row as numbers; what is left is a function's name, which may hold tabs itself.
func numbers(row string, n int) ([]int, string, error) {
	fields := strings.Split(row, "\t")
	if len(fields) < n+1 {
		return nil, "", fmt.Errorf("row %q has %d fields, not %d", row, len(fields), n+1)
	}
	at := len(fields) - n
	values := make([]int, n)
	for i := range values {
		v, err := strconv.Atoi(fields[at+i])
		if err != nil {
			return nil, "", fmt.Errorf("row %q: %w", row, err)
		}
		values[i] = v
	}
	return values, strings.Join(fields[:at], "\t"), nil
}

// Workers returns the connections that can do any function. The table has every connection in it: `fd ip id : fn fn`.
func (a *Admin) Workers(ctx context.Context) ([]WorkerInfo, error) {
	rows, err := a.table(ctx, "workers")
	if err != nil {
		return nil, err
	}
	var list []WorkerInfo
	for _, row := range rows {
		// The colon comes after the id, which may hold one itself, and function names may not hold a space: the last " :".
		at := strings.LastIndex(row, " :")
		head := strings.SplitN(row[:max(at, 0)], " ", 3)
		if at < 0 || len(head) < 3 {
			return nil, a.errorf("workers", fmt.Errorf("row %q", row))
		}
		functions := strings.Fields(row[at+2:])
		if len(functions) == 0 {
			continue
		}
		list = append(list, WorkerInfo{
			Server: a.o.Addr, Address: head[1], ID: strings.TrimPrefix(head[2], "-"), Functions: functions,
		})
	}
	return list, nil
}

// CancelJob takes a queued background job from the queue. A job that is running or unknown is a *ServerError: no worker is told
// of a cancel.
func (a *Admin) CancelJob(ctx context.Context, handle string) error {
	if err := CheckHandle(handle); err != nil {
		return err
	}
	line, err := a.line(ctx, "cancel job "+handle)
	if err == nil && line != "OK" {
		err = a.errorf("cancel job", fmt.Errorf("answer %q", line))
	}
	return err
}

// line sends a command whose answer is one line.
func (a *Admin) line(ctx context.Context, command string) (line string, err error) {
	err = a.do(ctx, command, func(r *bufio.Reader) error {
		line, err = readLine(r)
		return err
	})
	return line, err
}

// table sends a command whose answer is rows and a line with a dot.
func (a *Admin) table(ctx context.Context, command string) (rows []string, err error) {
	err = a.do(ctx, command, func(r *bufio.Reader) error {
		for {
			row, err := readLine(r)
			if err != nil || row == "." {
				return err
			}
			rows = append(rows, row)
		}
	})
	return rows, err
}

// readLine returns a line without its end, or a *ServerError for an ERR line. Perl's job server escapes with "+" for space.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if rest, found := strings.CutPrefix(line, "ERR "); found {
		code, text, _ := strings.Cut(rest, " ")
		return "", &ServerError{Code: strings.ToUpper(code), Text: strings.ReplaceAll(text, "+", " ")}
	}
	return line, nil
}

func (a *Admin) do(ctx context.Context, command string, read func(*bufio.Reader) error) error {
	nc, err := a.o.dial(ctx)
	if err != nil {
		return a.errorf(command, errors.Join(ErrUnavailable, err))
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })()
	if err := nc.SetDeadline(time.Now().Add(a.o.DialTimeout)); err != nil {
		return a.errorf(command, err)
	}
	// CRLF: gearmand cuts the last letter off some commands that end in LF alone.
	if _, err := io.WriteString(nc, command+"\r\n"); err != nil {
		return a.errorf(command, err)
	}
	if err := read(bufio.NewReader(io.LimitReader(nc, maxAdminReply))); err != nil {
		return a.errorf(command, err)
	}
	return nil
}

func (a *Admin) errorf(command string, err error) error {
	return fmt.Errorf("job server %s, admin command %q: %w", a.o.Addr, command, err)
}
