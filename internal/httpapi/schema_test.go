package httpapi

import (
	"net/http"
	"strings"
	"testing"
)

const imageSchema = `{"type":"object","required":["id"],"additionalProperties":false,
	"properties":{"id":{"type":"integer","minimum":1},"tags":{"type":"array","items":{"type":"string","maxLength":5}}}}`

// rules asks for an image where the function is resize, and for little where it is small.
func rules(t *testing.T) func(string) Rules {
	schema, err := ParseSchema([]byte(imageSchema))
	if err != nil {
		t.Fatal(err)
	}
	return func(function string) Rules {
		switch function {
		case "resize":
			return Rules{Schema: schema}
		case "small":
			return Rules{MaxWorkload: 3}
		}
		return Rules{}
	}
}

func TestAWorkloadThatBreaksItsSchemaIsRefusedWhereItDoes(t *testing.T) {
	c := newClient(t, Options{Rules: rules(t)})
	for workload, where := range map[string]string{
		`{"id":0}`:                         "#/workload/id",
		`{"id":1.5}`:                       "#/workload/id",
		`{}`:                               "#/workload",
		`{"id":7,"tags":["a","too long"]}`: "#/workload/tags/1",
		`{"id":7,"colour":"blue"}`:         "#/workload",
		`"no json"`:                        "#/workload",
		`"{\"id\":7}","workload_encoding":"json"`: "#/workload",
	} {
		res := c.do(http.MethodPost, "/jobs", `{"function":"resize","workload":`+workload+`}`)
		wantProblem(t, res, validationError, where)
	}
	c.post(http.StatusAccepted, `{"function":"resize","workload":{"id":7,"tags":["a"]}}`)
	c.post(http.StatusAccepted, `{"function":"resize","workload":"{\"id\":7}"}`)
	c.post(http.StatusAccepted, `{"function":"other","workload":{"id":0}}`)

	wantProblem(t, c.do(http.MethodPost, "/functions/resize", `{"id":"x"}`), validationError, "#/id")
	wantProblem(t, c.do(http.MethodPost, "/functions/resize", `nonsense`), validationError, "#")
	res := c.do(http.MethodPost, "/jobs/batch", `[{"function":"resize","workload":{"id":0}},{"function":"resize","workload":{"id":1}}]`)
	if body := res.Body.String(); res.Code != http.StatusOK || !strings.Contains(body, `"status":422`) || !strings.Contains(body, `"status":202`) {
		t.Errorf("batch: %d %s", res.Code, body)
	}
}

func TestAFunctionHasABoundOfItsOwn(t *testing.T) {
	c := newClient(t, Options{Rules: rules(t)})
	wantProblem(t, c.do(http.MethodPost, "/jobs", `{"function":"small","workload":"four"}`), payloadTooLarge)
	wantProblem(t, c.do(http.MethodPost, "/functions/small", `four`), payloadTooLarge)
	c.post(http.StatusAccepted, `{"function":"small","workload":"one"}`)
}

func TestASchemaDependsOnNothingElse(t *testing.T) {
	for _, text := range []string{
		`{"$ref":"http://127.0.0.1/schema.json"}`, `{"$ref":"file:///etc/hostname"}`, `{"type":"colour"}`, `{"type":`, `7`,
	} {
		if _, err := ParseSchema([]byte(text)); err == nil {
			t.Errorf("%s: was taken", text)
		}
	}
}
