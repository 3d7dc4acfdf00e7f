package httpapi

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"gearman-gateway/internal/ledger"
)

// Rules are what a function asks of its workloads. The zero value asks nothing.
type Rules struct {
	MaxWorkload int64   // bytes; 0: that of Options
	Schema      *Schema // nil: anything goes
}

// Schema is a JSON Schema (draft 2020-12 unless it says otherwise) that workloads have to satisfy. It is safe for concurrent use.
type Schema struct{ compiled *jsonschema.Schema }

// ParseSchema reads a schema. It may refer to itself, and to nothing else: what it says must not depend on what can be fetched.
func ParseSchema(text []byte) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("the schema is not JSON: %w", err)
	}
	const name = "urn:gearman-gateway:workload"
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{})
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile(name)
	if err != nil {
		return nil, err
	}
	return &Schema{compiled}, nil
}

var english = message.NewPrinter(language.English)

// check returns what is wrong with a workload, each at its place, which begins with path.
func (s *Schema) check(workload []byte, path ...string) []fieldError {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(workload))
	if err != nil {
		return []fieldError{{Pointer: pointer(path...), Detail: "must be JSON, as the function's schema has it"}}
	}
	invalid, ok := errors.AsType[*jsonschema.ValidationError](s.compiled.Validate(value))
	if !ok {
		return nil
	}
	var mistakes []fieldError
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(mistakes) == maxMistakes {
			return
		}
		if len(e.Causes) == 0 {
			at := append(append([]string{}, path...), e.InstanceLocation...)
			mistakes = append(mistakes, fieldError{Pointer: pointer(at...), Detail: cutDetail(e.ErrorKind.LocalizedString(english))})
		}
		for _, cause := range e.Causes {
			walk(cause)
		}
	}
	walk(invalid)
	return mistakes
}

// cutDetail bounds a text that may repeat a part of the workload.
func cutDetail(s string) string {
	const most = 200
	if len(s) > most {
		return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
	}
	return s
}

// conforms returns why a function does not take a workload. path is where the workload is in the body: nowhere where it is the body.
func (a *API) conforms(t *ledger.Task, path ...string) error {
	if a.o.Rules == nil {
		return nil
	}
	rules := a.o.Rules(t.Function)
	if rules.MaxWorkload > 0 && int64(len(t.Workload)) > rules.MaxWorkload {
		return tooLarge(rules.MaxWorkload)
	}
	if rules.Schema == nil {
		return nil
	}
	if mistakes := rules.Schema.check(t.Workload, path...); mistakes != nil {
		p := validationError.because("The workload is not as the function's schema has it.")
		p.fields = mistakes
		return p.sorted()
	}
	return nil
}
