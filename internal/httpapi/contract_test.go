package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"

	"gearman-gateway/api"
)

var contract = func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		panic(err)
	}
	// Both are JSON here, whatever they are called.
	openapi3filter.RegisterBodyDecoder("application/x-www-form-urlencoded", openapi3filter.JSONBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/plain", plainOrJSON)
	for _, contentType := range []string{"application/x-ndjson", "application/jsonl", "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(contentType, openapi3filter.PlainBodyDecoder)
	}
	openapi3filter.RegisterBodyDecoder("*/*", openapi3filter.FileBodyDecoder)
	return doc
}()

// plainOrJSON decodes text/plain: of requests it is JSON, of responses text.
func plainOrJSON(body io.Reader, h http.Header, schema *openapi3.SchemaRef, enc openapi3filter.EncodingFn) (any, error) {
	if schema != nil && schema.Value.Type.Is("string") {
		return openapi3filter.PlainBodyDecoder(body, h, schema, enc)
	}
	return openapi3filter.JSONBodyDecoder(body, h, schema, enc)
}

func TestContractIsValid(t *testing.T) {
	if err := contract.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
}

func TestContractHasTheRoutesOfTheRouter(t *testing.T) {
	var got, want []string
	err := chi.Walk(New(Options{Metrics: http.NotFoundHandler()}).router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodHead { // wherever GET is
			got = append(got, method+" "+route)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range contract.Paths.Map() {
		for method := range item.Operations() {
			want = append(want, method+" "+path)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-contract +router):\n%s", diff)
	}
}

func TestContractHasEveryKindOfProblem(t *testing.T) {
	var want []any
	for _, k := range kinds {
		want = append(want, problemType+k.name)
	}
	got := contract.Components.Schemas["Problem"].Value.Properties["type"].Value.Enum
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problem types (-code +contract):\n%s", diff)
	}
}

var kinds = []kind{
	invalidJSON, invalidHeader, invalidBody, unauthorized, forbidden, notFound, jobNotFound, sinkNotFound, functionNotFound, deliveryNotFound, methodNotAllowed,
	notAcceptable, requestTimeout,
	idempotencyPending, jobEnded, jobRunning, jobNotEnded, jobCompleted, workloadUnavailable, resultUnavailable, deliveryPending,
	resultExpired, eventsExpired, payloadTooLarge, unsupportedMediaType, validationError, keyReused, internalError, gearmanError, jobFailed, rateLimited, overloaded, gearmanUnavailable,
	queueFull, noWorker, eventsFull, storageUnavailable, shuttingDown, gearmanTimeout,
}

// checkContract holds an exchange against the contract: the response must be one that the contract has, and a request that the
// contract does not allow must have been refused.
func checkContract(t *testing.T, a *API, req *http.Request, body []byte, res *httptest.ResponseRecorder) {
	t.Helper()
	checkProblem(t, res)
	method := req.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	rctx := chi.NewRouteContext()
	path := a.router.Find(rctx, method, req.URL.EscapedPath())
	if path == "" {
		if res.Code != http.StatusNotFound && res.Code != http.StatusMethodNotAllowed && res.Code != http.StatusNoContent &&
			res.Code != http.StatusForbidden {
			t.Errorf("%s %s: got %d where there is no route", req.Method, req.URL, res.Code)
		}
		return
	}

	item := contract.Paths.Value(path)
	if item == nil { // profiles, which are no part of it
		return
	}
	params := map[string]string{}
	for i, key := range rctx.URLParams.Keys {
		params[key], _ = url.PathUnescape(rctx.URLParams.Values[i])
	}
	// As content types are no business of the contract where the body is any bytes, nor "+json" and none where it is JSON.
	checked := req.Clone(context.Background())
	takesJSON := false
	if in := item.GetOperation(method).RequestBody; in != nil {
		takesJSON = in.Value.Content["application/json"] != nil
	}
	if takesJSON && carriesJSON(req.Header.Get("Content-Type")) {
		checked.Header.Set("Content-Type", "application/json")
	} else if !takesJSON {
		checked.Header.Set("Content-Type", "application/octet-stream")
	}
	checked.Body = io.NopCloser(bytes.NewReader(body))
	in := &openapi3filter.RequestValidationInput{
		Request: checked, PathParams: params,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}, // access_test.go's business
		Route:   &routers.Route{Spec: contract, Path: path, PathItem: item, Method: method, Operation: item.GetOperation(method)},
	}
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil && (res.Code < 400 || res.Code >= 500) {
		t.Errorf("%s %s: got %d, but by the contract the request is wrong: %v", req.Method, req.URL, res.Code, err)
	}

	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: res.Code, Header: res.Result().Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if req.Method == http.MethodHead {
		return
	}
	if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(res.Body.Bytes())); err != nil {
		t.Errorf("%s %s: response %d is not the contract's: %v\n%s", req.Method, req.URL, res.Code, err, res.Body)
	}
}

// checkProblem checks what is true of every problem, also where the contract has no path.
func checkProblem(t *testing.T, res *httptest.ResponseRecorder) {
	t.Helper()
	if res.Code >= 400 && !strings.HasPrefix(res.Header().Get("Content-Type"), "application/problem+json") &&
		!strings.HasPrefix(res.Body.String(), "[") { // of /readyz?verbose
		t.Errorf("error %d is of type %q", res.Code, res.Header().Get("Content-Type"))
	}
	if res.Code == http.StatusServiceUnavailable && res.Header().Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if res.Header().Get("Content-Type") != "application/problem+json" {
		return
	}
	var v any
	if err := json.Unmarshal(res.Body.Bytes(), &v); err != nil {
		t.Fatalf("problem: %v\n%s", err, res.Body)
	}
	schema := contract.Components.Schemas["Problem"].Value
	if err := schema.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		t.Errorf("problem is not the contract's: %v\n%s", err, res.Body)
	}
	if got := v.(map[string]any)["status"]; got != float64(res.Code) {
		t.Errorf("status member: got %v, want %d", got, res.Code)
	}
}
