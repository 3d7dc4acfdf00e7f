package httpapi

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"gearman-gateway/internal/gearman"
)

// A list is the form of every response that is one, so that members can be added beside the items.
type list[T any] struct {
	Items []T `json:"items"`
}

type functionItem struct {
	Function string           `json:"function"`
	Queued   int              `json:"queued"`
	Running  int              `json:"running"`
	Workers  int              `json:"workers"`
	Paused   *bool            `json:"paused"` // null: not a function of the gateway's own workers
	Servers  []functionServer `json:"servers"`
}

type functionServer struct {
	Server  string `json:"server"`
	Queued  int    `json:"queued"`
	Running int    `json:"running"`
	Workers int    `json:"workers"`
}

// functions is GET /functions: those that the caller may submit jobs of.
func (a *API) functions(w *response, r *http.Request) error {
	infos, err := a.o.Servers.Functions(r.Context())
	if err != nil {
		return err
	}
	infos = slices.DeleteFunc(infos, func(f gearman.FunctionInfo) bool { return !w.who.MayCall(f.Function) })
	return writeList(w, infos, func(f gearman.FunctionInfo) functionItem {
		item := functionItem{Function: f.Function, Queued: f.Queued, Running: f.Running, Workers: f.Workers}
		if paused, own := a.o.Pool.Paused(f.Function); own {
			item.Paused = &paused
		}
		for _, s := range f.Servers {
			item.Servers = append(item.Servers, functionServer{s.Server, s.Queued, s.Running, s.Workers})
		}
		return item
	})
}

type workerItem struct {
	Server    string   `json:"server"`
	ID        *string  `json:"id"`
	Address   string   `json:"address"`
	Functions []string `json:"functions"`
}

// workers is GET /workers.
func (a *API) workers(w *response, r *http.Request) error {
	infos, err := a.o.Servers.Workers(r.Context())
	if err != nil {
		return err
	}
	return writeList(w, infos, func(i gearman.WorkerInfo) workerItem {
		return workerItem{i.Server, orNull(i.ID), i.Address, i.Functions}
	})
}

type serverItem struct {
	Server    string  `json:"server"`
	Connected bool    `json:"connected"`
	Version   *string `json:"version"`
	Pending   int     `json:"pending"`
	Error     *string `json:"error"`
}

// servers is GET /servers.
func (a *API) servers(w *response, r *http.Request) error {
	return writeList(w, a.o.Servers.Servers(r.Context()), func(i gearman.ServerInfo) serverItem {
		return serverItem{i.Server, i.Connected, orNull(i.Version), i.Pending, orNull(i.Error)}
	})
}

func writeList[Info, Item any](w *response, infos []Info, item func(Info) Item) error {
	l := list[Item]{Items: make([]Item, len(infos))}
	for i, info := range infos {
		l.Items[i] = item(info)
	}
	return writeJSON(w, http.StatusOK, l)
}

// writeJSON answers with v. Names come from anyone who talks to a job server, and need not be UTF-8.
func writeJSON(w *response, status int, v any) error {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return err
	}
	w.write(status, "application/json", append(b, '\n'))
	return nil
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
