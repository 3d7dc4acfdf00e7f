//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/go-chi/chi/v5"
)

// floorCmd is the least that a gateway could do: chi, one decode of the envelope, and an answer of the gateway's that was taken down. It
// keeps nothing and asks no job server, so nobody can be faster who does.
type floorCmd struct {
	Listen     string `required:"" help:"Where to listen." placeholder:"HOST:PORT"`
	Background string `required:"" help:"File with the answer to background jobs." placeholder:"FILE"`
	Sync       string `required:"" help:"File with the answer to sync jobs." placeholder:"FILE"`
}

// Run serves until it is killed.
func (c *floorCmd) Run(context.Context) error {
	answers := map[string]answer{}
	for mode, file := range map[string]string{"background": c.Background, "sync": c.Sync} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var a answer
		if err := json.Unmarshal(text, &a); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		a.Header.Del("Date") // net/http's own
		answers[mode] = a
	}
	router := chi.NewRouter()
	router.Get("/readyz", func(http.ResponseWriter, *http.Request) {})
	router.Post("/jobs", func(w http.ResponseWriter, r *http.Request) {
		var submission struct {
			Function, Mode string
			Workload       json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&submission); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a := answers[submission.Mode]
		for name, values := range a.Header {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body) // nobody can be told
	})
	return http.ListenAndServe(c.Listen, router)
}
