package main

import (
	"strings"
	"testing"
)

// The variables of OpenTelemetry go before the file, and the gateway's own before them.
func TestWhereTracesGo(t *testing.T) {
	file := writeFile(t, "tracing: {endpoint: 'http://file:4318', sample: 0.5, headers: {x-file: c4n4ry}}\n")
	for name, test := range map[string]struct {
		env, args []string
		code      int
		want      []string
	}{
		"nowhere": {nil, []string{"config"}, 0, []string{`endpoint: ""`}},
		"headers alone": {
			[]string{"OTEL_EXPORTER_OTLP_HEADERS=a=c4n4ry"},
			[]string{"config"},
			0,
			[]string{`endpoint: ""`},
		},
		"environment of OpenTelemetry": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://otel:4318", "OTEL_EXPORTER_OTLP_HEADERS=a=c4n4ry%20b, c=d", "OTEL_SERVICE_NAME=shop"},
			[]string{"config", "--config", file},
			0,
			[]string{"endpoint: https://otel:4318", "a: xxxxx", "c: xxxxx", "sample: 0.5", "service_name: shop"},
		},
		"its own environment": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://otel:4318", "GATEWAY_TRACING_ENDPOINT=https://gateway:4318"},
			[]string{"config", "--tracing-sample=1"},
			0,
			[]string{"endpoint: https://gateway:4318", "sample: 1"},
		},
		"headers in the clear": {nil, []string{"config", "--config", file}, 2, []string{"tracing.headers", "https"}},
		"credentials in the URL": {
			[]string{"GATEWAY_TRACING_ENDPOINT=https://u:c4n4ry@otel"},
			[]string{"config"},
			2,
			[]string{"tracing.endpoint"},
		},
		"no URL":     {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=c4n4ry:4317"}, []string{"config"}, 2, []string{"OTEL_EXPORTER_OTLP_ENDPOINT"}},
		"no headers": {nil, []string{"config", "--tracing-endpoint=https://otel", "--tracing-headers=c4n4ry"}, 2, []string{"--tracing-headers"}},
		"too many":   {nil, []string{"config", "--tracing-sample=2"}, 2, []string{"tracing.sample"}},
	} {
		stdout, stderr, code := execute(t, test.env, test.args...)
		all := stdout + stderr
		if code != test.code || strings.Contains(all, "c4n4ry") {
			t.Errorf("%s: exit code %d, want %d:\n%s", name, code, test.code, all)
		}
		for _, want := range test.want {
			if !strings.Contains(all, want) {
				t.Errorf("%s: no %q in\n%s", name, want, all)
			}
		}
	}
}
