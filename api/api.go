// Package api holds the contract of the HTTP interface.
package api

import _ "embed"

// OpenAPI is the contract, an OpenAPI 3.1 document in YAML. It must not be changed.
//
//go:embed openapi.yaml
var OpenAPI []byte
