package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-playground/validator/v10"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// mistakes say what is wrong with a submission, by the member's name. Nil is none.
type mistakes map[string]string

// note adds a mistake, if the member has none yet, and returns m or what it has become.
func (m mistakes) note(member, detail string) mistakes {
	if m == nil {
		m = mistakes{}
	}
	if _, there := m[member]; !there {
		m[member] = detail
	}
	return m
}

// check notes what a rule says of a parameter, if the query has it.
func (m mistakes) check(q url.Values, name string, rule func(value string) error) mistakes {
	if !q.Has(name) {
		return m
	}
	if err := rule(q.Get(name)); err != nil {
		return m.note(name, err.Error())
	}
	return m
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

// check returns what is wrong with s, and reads its times as of now.
func (c *fieldChecker) check(s *submission, now time.Time) mistakes {
	m := s.schedule(now, c.members(s))
	if s.Mode == string(ledger.Tracked) || checkMode(s.Mode) != nil {
		return m
	}
	if s.OnLost != "" {
		m = m.note("on_lost", "is for mode tracked only")
	}
	if s.retry != nil {
		m = m.note("retry", "is for mode tracked only")
	}
	return m
}

// plain reports whether s is as most submissions are: right, and without the members that few have. It spares these the validator's
// reflection, which costs more than all else that is done to read one.
func (s *submission) plain() bool {
	return s.Timeout == "" && s.Encoding == "" && s.OnLost == "" && (s.Priority == "normal" || s.Priority == "high" || s.Priority == "low") &&
		slices.Contains(modes, s.Mode) && gearman.CheckFunction(s.Function) == nil && gearman.CheckUnique(s.Unique) == nil
}

// members holds each member against its rule.
func (c *fieldChecker) members(s *submission) (m mistakes) {
	if s.plain() {
		return nil
	}
	err := c.validate.Struct(s)
	if err == nil {
		return nil
	}
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
		m = m.note(fe.Field(), detail)
	}
	return m
}

var modes = []string{string(ledger.Background), string(ledger.Sync), string(ledger.Tracked)}

func checkMode(s string) error { return checkOneOf(s, modes) }

func checkOneOf(s string, all []string) error {
	if !slices.Contains(all, s) {
		return errors.New("must be one of " + strings.Join(all, ", "))
	}
	return nil
}

// parseWait reads how long a caller will wait.
func parseWait(s string, most time.Duration) (time.Duration, error) {
	d, err := parseDelay(s)
	if err == nil && d > most {
		err = fmt.Errorf("must be at most %s", most)
	}
	return d, err
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

// noQuery refuses a query where nothing is read of it: whoever sent it may have thought that it matters.
func noQuery(h handler) handler {
	return func(w *response, r *http.Request) error {
		if _, err := query(r); err != nil {
			return err
		}
		return h(w, r)
	}
}

// wrongParameters is the problem for parameters of the path or the query; nil if m is.
func wrongParameters(m mistakes) error {
	if m == nil {
		return nil
	}
	p := validationError.because("The path or the query has mistakes.")
	for name, detail := range m {
		p.fields = append(p.fields, fieldError{Parameter: name, Detail: detail})
	}
	return p.sorted()
}

// sorted orders the mistakes by where they are, so that a response does not depend on the order of a map.
func (p *problem) sorted() *problem {
	slices.SortStableFunc(p.fields, func(a, b fieldError) int {
		return strings.Compare(a.Pointer+a.Parameter, b.Pointer+b.Parameter)
	})
	return p
}
