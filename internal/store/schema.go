package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"net/url"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:generate go tool -modfile=../../go.tool.mod sqlc generate

//go:embed migrations/*.sql
var migrations embed.FS

// What the connections of a pool are for.
const (
	writing = "_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=foreign_keys(1)&_pragma=cache_size(-8000)&_pragma=wal_autocheckpoint(2000)&_pragma=journal_size_limit(67108864)"
	reading = "mode=ro&_pragma=busy_timeout(5000)"
)

// connect returns a pool of so many connections. Each stays open: to open one costs more than most queries.
func connect(file string, connections int, options string) (*sql.DB, error) {
	// a file name is no URI: it may have a ? or a # in it
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: file, RawQuery: options}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	have, know, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if have > know {
		return fmt.Errorf("the database has schema version %d, and this gateway knows none above %d: "+
			"a newer gateway made it, run that one", have, know)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bringing the schema from version %d to %d: %w", have, know, err)
	}
	return nil
}
