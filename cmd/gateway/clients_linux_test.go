package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func startRelease(t *testing.T, args ...string) (addr string, pid int) {
	t.Helper()
	cmd := release(t, append([]string{"--listen=127.0.0.1:0", "--jobserver-listen=127.0.0.1:0"}, args...)...)
	addr = startAndFind(t, cmd, "gateway serves HTTP")
	return addr, cmd.Process.Pid
}

// TestTenThousandIdleConnections holds as many kept connections, each of which has had an answer.
func TestTenThousandIdleConnections(t *testing.T) {
	const n, most = 10_000, 300 << 20
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < n+1500 {
		t.Fatalf("this test needs %d open files (ulimit -Hn), and may have %d (%v)", n+1500, files.Cur, err)
	}
	addr, pid := startRelease(t)
	before := memory(t, pid, "VmRSS")
	open := make(chan net.Conn, n)
	t.Cleanup(func() {
		close(open)
		for c := range open {
			c.Close()
		}
	})
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for range n / 20 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				open <- c
				fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	callers.Wait()
	resp, err := http.Post("http://"+addr+"/functions/reverse", "", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "cba" {
		t.Errorf("a request beside them: %d %s", resp.StatusCode, body)
	}
	http.DefaultClient.CloseIdleConnections()
	peak := memory(t, pid, "VmHWM")
	t.Logf("%d MiB before, %d MiB at most with %d idle connections", before>>20, peak>>20, n)
	if peak > most {
		t.Errorf("%d MiB, want at most %d", peak>>20, most>>20)
	}
}

// memory returns a line of a process's status, in bytes.
func memory(t *testing.T, pid int, key string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), key+":")
	fields := strings.Fields(rest)
	kb, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// TestSlowClients has 150 connections that send their headers slowly, and 150 that do so with their bodies, while others are served.
func TestSlowClients(t *testing.T) {
	addr, _ := startRelease(t)
	url := "http://" + addr + "/functions/reverse"
	var attack sync.WaitGroup
	for _, how := range [][]string{{"-H"}, {"-B", "-s", "65536"}} {
		attack.Go(func() {
			args := append(how, "-c", "150", "-r", "150", "-i", "1", "-l", "6", "-p", "5", "-t", "POST", "-u", url)
			out, err := exec.Command("slowhttptest", args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "service available") {
				t.Errorf("slowhttptest %s: %v\n%s", how, err, out)
			}
		})
	}
	over := make(chan struct{})
	go func() {
		attack.Wait()
		close(over)
	}()
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	var took []time.Duration
	for tick := time.Tick(2 * time.Millisecond); ; {
		select {
		case <-over:
			slices.Sort(took)
			t.Logf("%d requests, half within %v, the slowest took %v", len(took), took[len(took)/2], took[len(took)-1])
			return
		case <-tick:
		}
		began := time.Now()
		resp, err := client.Post(url, "", strings.NewReader("abc"))
		if err != nil {
			t.Errorf("request %d: %v", len(took), err)
			<-over
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "cba" {
			t.Errorf("request %d: %d %s", len(took), resp.StatusCode, body)
		}
		took = append(took, time.Since(began))
	}
}
