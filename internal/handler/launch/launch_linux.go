package launch

import (
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"
)

// Supported says whether programs can be limited here.
const Supported = true

// init is the whole launcher. It is the one init of this module, because it must come before the main of whatever binary it
// is in.
func init() {
	if len(os.Args) == 0 || os.Args[0] != Name {
		return
	}
	what, err := launch(os.Args)
	for _, s := range []string{"start: ", what, err.Error(), "\n"} {
		os.Stderr.WriteString(s)
	}
	if errors.Is(err, syscall.ENOENT) {
		os.Exit(NotFound)
	}
	os.Exit(NotRunnable)
}

// launch returns only what went wrong, the error and what is to be said before it.
//
// This process may well have more memory than Data allows, and its runtime ends it when it then asks the kernel for more. So nothing is
// allocated once that limit is set, which is done last: what execve takes is made before, and what is said if it fails; there is no
// collector, and with one processor no other goroutine runs meanwhile.
func launch(args []string) (what string, err error) {
	l, path, argv, err := parse(args)
	if err != nil {
		return "", err
	}
	p, err := newProgram(path, argv, os.Environ())
	if err != nil {
		return "", err
	}
	what = "exec " + path + ": "
	processes := strconv.AppendUint(nil, l.Processes, 10)
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(1)
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
			return "", err
		}
	}
	if l.Processes > 0 {
		syscall.CloseOnExec(int(l.Group))
		if err := write(l.Group, processes); err != 0 {
			return "pids.max: ", err
		}
	}
	return what, p.exec()
}

// write is a raw call: in another the runtime may start a thread, for which there is no room any more.
func write(fd uint64, b []byte) syscall.Errno {
	_, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return err
}

// program is what execve takes.
type program struct {
	path      *byte
	argv, env []*byte // the last are nil
}

func newProgram(path string, argv, env []string) (p program, err error) {
	// Go raises the soft limit of open files when it starts, and Exec alone knows what it was: one that fails has put it back.
	_ = syscall.Exec("", []string{""}, nil)
	if p.path, err = syscall.BytePtrFromString(path); err != nil {
		return p, err
	}
	if p.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return p, err
	}
	p.env, err = syscall.SlicePtrFromStrings(env)
	return p, err
}

// exec returns only what went wrong. Unlike syscall.Exec it allocates nothing.
func (p *program) exec() syscall.Errno {
	_, _, err := syscall.RawSyscall(syscall.SYS_EXECVE,
		uintptr(unsafe.Pointer(p.path)), uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.env[0])))
	return err
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
