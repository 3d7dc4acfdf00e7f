package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/go-playground/validator/v10"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// A submission is what a caller asks for: the body of POST /jobs, or the path and query of POST /functions/{function}.
type submission struct {
	Function string `json:"function" validate:"required,gearman_function"`
	Mode     string `json:"mode" validate:"mode"`
	Priority string `json:"priority" validate:"oneof=normal high low"`
	Unique   string `json:"unique" validate:"gearman_unique"`
	Timeout  string `json:"timeout" validate:"omitempty,wait"`
	Encoding string `json:"workload_encoding" validate:"omitempty,oneof=text json base64"`

	rawWorkload jsontext.Value // as it stands in the body; nil when absent
}

// task turns a checked submission into what the ledger takes.
func (s *submission) task(workload []byte) ledger.Task {
	t := ledger.Task{Function: s.Function, Unique: s.Unique, Mode: ledger.Mode(s.Mode), Workload: workload}
	switch s.Priority {
	case "high":
		t.Priority = gearman.High
	case "low":
		t.Priority = gearman.Low
	}
	return t
}

// workload returns the bytes for the worker: those of a string, decoded; any other value as it was written.
func (s *submission) workload() ([]byte, *fieldError) {
	isString := s.rawWorkload.Kind() == jsontext.KindString
	encoding := s.Encoding
	if encoding == "" && isString {
		encoding = "text"
	}
	switch {
	case s.rawWorkload == nil:
		return []byte{}, nil
	case encoding == "text" && isString:
		return unquote(s.rawWorkload), nil
	case encoding == "base64" && isString:
		text := unquote(s.rawWorkload)
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(decoded, text)
		if err != nil {
			return nil, &fieldError{Pointer: "#/workload", Detail: "is not base64 in the standard alphabet with padding"}
		}
		return decoded[:n:n], nil
	case encoding == "text" || encoding == "base64":
		return nil, &fieldError{Pointer: "#/workload", Detail: "must be a string when workload_encoding is " + encoding}
	}
	return s.rawWorkload, nil
}

// A fieldChecker holds the rules of a submission's members. It is safe for concurrent use.
type fieldChecker struct {
	validate *validator.Validate
	rules    map[string]func(string) error
}

func newFieldChecker(maxWait time.Duration) *fieldChecker {
	c := &fieldChecker{
		validate: validator.New(validator.WithRequiredStructEnabled()),
		rules: map[string]func(string) error{
			"gearman_function": gearman.CheckFunction,
			"gearman_unique":   gearman.CheckUnique,
			"mode":             checkMode,
			"wait":             func(s string) error { _, err := parseWait(s, maxWait); return err },
		},
	}
	c.validate.RegisterTagNameFunc(func(f reflect.StructField) string { return f.Tag.Get("json") })
	for tag, rule := range c.rules {
		err := c.validate.RegisterValidation(tag, func(f validator.FieldLevel) bool { return rule(f.Field().String()) == nil })
		if err != nil {
			panic(err) // the tags are those above: none is empty or taken
		}
	}
	return c
}

// check returns what is wrong with s, by the member's name.
func (c *fieldChecker) check(s *submission) (mistakes map[string]string) {
	err := c.validate.Struct(s)
	if err == nil {
		return nil
	}
	mistakes = map[string]string{}
	for _, fe := range err.(validator.ValidationErrors) { // a struct has no other error
		detail := ""
		switch fe.Tag() {
		case "required":
			detail = "is missing or empty"
		case "oneof":
			detail = "must be one of " + strings.ReplaceAll(fe.Param(), " ", ", ")
		default:
			detail = c.rules[fe.Tag()](fe.Value().(string)).Error()
		}
		mistakes[fe.Field()] = detail
	}
	return mistakes
}

func checkMode(s string) error {
	switch s {
	case string(ledger.Background), string(ledger.Sync):
		return nil
	case "tracked":
		return fmt.Errorf("%q is not available yet", s)
	}
	return fmt.Errorf("must be %s or %s", ledger.Background, ledger.Sync)
}

// parseWait reads how long a caller will wait.
func parseWait(s string, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`must be a duration such as "30s" or "1m30s"`)
	case d < 0:
		return 0, fmt.Errorf("must not be negative")
	case d > most:
		return 0, fmt.Errorf("must be at most %s", most)
	}
	return d, nil
}

// query returns the request's query, which may have each of the parameters known once and no others.
func query(r *http.Request, known ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, validationError.because("The query is malformed.").causedBy(err)
	}
	p := validationError.because("The query has mistakes.")
	for name, all := range values {
		if !slices.Contains(known, name) {
			p.fields = append(p.fields, fieldError{Parameter: name, Detail: "is not a parameter of this path"})
		}
		if len(all) > 1 {
			p.fields = append(p.fields, fieldError{Parameter: name, Detail: "is given more than once"})
		}
	}
	if len(p.fields) > 0 {
		return nil, p.sorted()
	}
	return values, nil
}

// sorted orders the mistakes by where they are, so that a response does not depend on the order of a map.
func (p *problem) sorted() *problem {
	slices.SortStableFunc(p.fields, func(a, b fieldError) int {
		return strings.Compare(a.Pointer+a.Parameter, b.Pointer+b.Parameter)
	})
	return p
}
