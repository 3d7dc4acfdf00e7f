package launch

import (
	"errors"
	"os"
	"runtime/debug"
	"syscall"
)

// Supported says whether programs can be limited here.
const Supported = true

// init is the whole launcher. It is the one init of this module, because it must come before the main of whatever binary it
// is in.
func init() {
	if len(os.Args) == 0 || os.Args[0] != Name {
		return
	}
	err := launch(os.Args)
	os.Stderr.WriteString("start: " + err.Error() + "\n")
	if errors.Is(err, syscall.ENOENT) {
		os.Exit(NotFound)
	}
	os.Exit(NotRunnable)
}

// launch returns only what went wrong.
func launch(args []string) error {
	l, path, argv, err := parse(args)
	if err != nil {
		return err
	}
	env := os.Environ()
	debug.SetGCPercent(-1) // nothing may need memory once Data is limited, which comes last for the same reason
	for _, r := range []struct {
		resource  int
		soft, max uint64
		set       bool
	}{
		{syscall.RLIMIT_CORE, 0, 0, true},
		{syscall.RLIMIT_CPU, l.CPU, l.CPU + 1, l.CPU > 0},
		{syscall.RLIMIT_NOFILE, l.Files, l.Files, l.Files > 0},
		{syscall.RLIMIT_DATA, l.Data, l.Data, l.Data > 0},
	} {
		if !r.set {
			continue
		}
		if err := limit(r.resource, r.soft, r.max); err != nil {
			return err
		}
	}
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, argv, env)}
}

// limit lowers a limit, and leaves a hard limit that is lower already.
func limit(resource int, soft, hard uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(resource, &now); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	hard = min(hard, now.Max)
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(resource, &syscall.Rlimit{Cur: min(soft, hard), Max: hard}))
}
