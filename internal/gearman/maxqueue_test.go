package gearman_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

func TestMaxQueueHoldsAlsoBeforeTheFirstJob(t *testing.T) {
	priorities := []gearman.Priority{gearman.High, gearman.Normal, gearman.Low}
	for _, tt := range []struct {
		set  gearman.MaxQueue
		want [3]int // how many of five jobs of each priority in turn, high first, are accepted
	}{
		{gearman.MaxQueue{}, [3]int{5, 5, 5}},
		{gearman.MaxQueue{High: 2, Normal: 2, Low: 2}, [3]int{2, 0, 0}},
		{gearman.MaxQueue{High: 1, Normal: 3, Low: 4}, [3]int{1, 2, 1}},
		{gearman.MaxQueue{High: 1, Low: 7}, [3]int{1, 5, 1}},
		{gearman.MaxQueue{High: gearman.MaxMaxQueue, Normal: gearman.MaxMaxQueue, Low: gearman.MaxMaxQueue}, [3]int{5, 5, 5}},
	} {
		t.Run(fmt.Sprint(tt.set), func(t *testing.T) {
			contract(t, func(t *testing.T, addr string) {
				admin := gearman.NewAdmin(gearman.Options{Addr: addr})
				for range 2 {
					if err := admin.SetMaxQueue(testContext(t), "f\xff", tt.set); err != nil {
						t.Fatal(err)
					}
				}
				c := connect(t, addr)
				var got [3]int
				for i, priority := range priorities {
					for n := range 5 {
						_, err := c.Submit(testContext(t), gearman.Task{
							Function: "f\xff", Background: true, Unique: fmt.Sprint(i, "-", n), Priority: priority,
						}, nil)
						refused, _ := errors.AsType[*gearman.ServerError](err)
						switch {
						case err == nil:
							got[i]++
						case refused == nil || !refused.QueueFull():
							t.Fatal(err)
						}
					}
				}
				if got != tt.want {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				if err := admin.SetMaxQueue(testContext(t), "f\xff", gearman.MaxQueue{}); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Submit(testContext(t), gearman.Task{Function: "f\xff", Background: true, Unique: "last"}, nil); err != nil {
					t.Errorf("without a bound: %v", err)
				}
			})
		})
	}
}

// badNames would be other commands, or other arguments.
var badNames = []string{
	"", "f 1\r\nshutdown", "f\r\nshutdown", "f\nshutdown", "f\rshutdown", "f 0 0 0", "f\t1", " f", "f ", "f\x00", "\x00REQ", "\n", strings.Repeat("f", gearman.MaxFunction+1),
}

func TestMaxQueueSendsNoNameThatIsACommand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	admin := gearman.NewAdmin(gearman.Options{Addr: l.Addr().String()})
	for _, name := range badNames {
		err := admin.SetMaxQueue(testContext(t), name, gearman.MaxQueue{High: 1, Normal: 1, Low: 1})
		if _, ok := errors.AsType[*gearman.NameError](err); !ok {
			t.Errorf("%q: got %v, want a name error", name, err)
		}
	}
	for _, q := range []gearman.MaxQueue{{High: -1}, {Normal: gearman.MaxMaxQueue + 1}, {Low: -1 << 40}} {
		if admin.SetMaxQueue(testContext(t), "f", q) == nil {
			t.Errorf("%v: no error", q)
		}
	}
	// Had anything been sent, it would be the first connection.
	lines := serveLines(t, l, "ERR unknown_command Unknown+server+command\r\n", "OK\r\n")
	if err := admin.SetMaxQueue(testContext(t), "a;b\"c", gearman.MaxQueue{High: 3, Normal: 2, Low: 1}); err != nil {
		t.Errorf("a job server that cannot create functions: %v", err)
	}
	want := []string{"create function a;b\"c\r\n", "maxqueue a;b\"c 3 2 1\r\n"}
	if diff := gocmp.Diff(want, []string{<-lines, <-lines}); diff != "" {
		t.Error(diff)
	}
}

// serveLines answers one line on each of the next connections, and returns the lines that came.
func serveLines(t *testing.T, l net.Listener, answers ...string) <-chan string {
	t.Helper()
	lines := make(chan string, len(answers))
	go func() {
		for _, answer := range answers {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(nc).ReadString('\n')
			lines <- line
			_, _ = nc.Write([]byte(answer))
			nc.Close()
		}
	}()
	return lines
}

func TestMaxQueueThatAJobServerRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serveLines(t, l, "OK\r\n", "ERR INVALID_ARGUMENTS x\r\n", "OK\r\n", "what?\r\n")
	admin := gearman.NewAdmin(gearman.Options{Addr: l.Addr().String()})
	err = admin.SetMaxQueue(testContext(t), "f", gearman.MaxQueue{})
	if refused, ok := errors.AsType[*gearman.ServerError](err); !ok || refused.Code != "INVALID_ARGUMENTS" {
		t.Errorf("got %v", err)
	}
	if err := admin.SetMaxQueue(testContext(t), "f", gearman.MaxQueue{}); err == nil {
		t.Error("an answer that says nothing: no error")
	}
}

func TestMaxQueueOnEveryServer(t *testing.T) {
	down := gearmandtest.Start(t)
	addrs := []string{startEmbedded(t), down.Addr(), gearmandtest.Start(t).Addr()}
	down.Kill()
	var servers []gearman.Options
	for _, addr := range addrs {
		servers = append(servers, gearman.Options{Addr: addr})
	}
	c, err := gearman.NewCluster(servers)
	if err != nil {
		t.Fatal(err)
	}
	defer closeNow(c)
	answers := c.SetMaxQueue(testContext(t), "f", gearman.MaxQueue{High: 1, Normal: 1, Low: 1})
	for i, a := range answers {
		if a.Server != addrs[i] || (a.Err != nil) != (a.Server == down.Addr()) {
			t.Errorf("got %+v", a)
		}
	}
	if !errors.Is(answers[1].Err, gearman.ErrUnavailable) {
		t.Errorf("of the one that is down: %v", answers[1].Err)
	}
	for _, addr := range []string{addrs[0], addrs[2]} {
		client := connect(t, addr)
		submit(t, client, gearman.Task{Function: "f", Background: true, Unique: "1"})
		if _, err := client.Submit(testContext(t), gearman.Task{Function: "f", Background: true, Unique: "2"}, nil); err == nil {
			t.Errorf("%s has not been told", addr)
		}
	}
}
