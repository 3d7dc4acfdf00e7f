//go:build !unix

package handler

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Elsewhere there are no process groups, without which nothing could be ended for sure.
func canRun() error { return errors.New("handlers that run a command need Linux or another Unix") }

func ownGroup(*User) *syscall.SysProcAttr { return nil }

func signalGroup(int, syscall.Signal) {}

func status(cmd *exec.Cmd) (code int, s syscall.Signal) { return cmd.ProcessState.ExitCode(), 0 }

type lastLines struct{}

func newLastLines(*os.File) *lastLines { return &lastLines{} }
func (*lastLines) run()                {}
func (*lastLines) take() string        { return "" }
func silent(*os.File) bool             { return true }
