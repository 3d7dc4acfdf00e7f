//go:build !linux

package handler

import (
	"errors"
	"os"
	"syscall"
)

type cgroup struct{}

var errNoCgroup = errors.New("control groups need Linux")

func probeCgroup(Limits) error                 { return errNoCgroup }
func newCgroup(Limits) (*cgroup, error)        { return nil, errNoCgroup }
func (*cgroup) join(*syscall.SysProcAttr)      {}
func (*cgroup) later(string) (*os.File, error) { return nil, errNoCgroup }
func (*cgroup) kill()                          {}
func (*cgroup) oomKilled() bool                { return false }
func (*cgroup) remove() error                  { return nil }
func oomKills() uint64                         { return 0 }
