package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const clientKey = "soak-client-key"

// A gateway is the binary as a process, and clients of it.
type gateway struct {
	cmd    *exec.Cmd
	addr   string
	log    *tail
	up     *upstream
	client *http.Client
}

// tail keeps the end of what a process writes, and its first bytes.
type tail struct {
	mu          sync.Mutex
	first, last []byte
}

const maxTail = 4 << 20

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.first) < maxTail {
		t.first = append(t.first, p...)
		return len(p), nil
	}
	if t.last = append(t.last, p...); len(t.last) > 2*maxTail {
		t.last = bytes.Clone(t.last[len(t.last)-maxTail:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.first) + string(t.last)
}

var listening = regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)

func (r *run) startGateway(listen string, environ ...string) (*gateway, error) {
	g := &gateway{cmd: exec.Command(r.binary), log: &tail{}, up: r.up}
	g.cmd.Dir, g.cmd.Stderr = r.dir, g.log
	g.cmd.Env = append([]string{"A4F_BASE_URL=" + r.up.url, "APIPROXY_API_KEYS=" + clientKey, "LISTEN_ADDR=" + listen, "LOG_LEVEL=info"}, environ...)
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	for range 1000 {
		if m := listening.FindStringSubmatch(g.log.String()); m != nil {
			g.addr = m[1]
			g.client = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
			return g, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.kill()
	return nil, fmt.Errorf("the gateway does not start:\n%s", g.log)
}

// kill is kill -9.
func (g *gateway) kill() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
}

// A usage is what a process holds.
type usage struct {
	files, megabytes int
}

func (g *gateway) usage() usage {
	proc := fmt.Sprintf("/proc/%d/", g.cmd.Process.Pid)
	files, _ := os.ReadDir(proc + "fd")
	status, _ := os.ReadFile(proc + "status")
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes := 0
	fmt.Sscan(rest, &kilobytes)
	return usage{len(files), kilobytes >> 10}
}

// Bounds of what may stay behind.
const (
	moreFiles     = 20
	moreMegabytes = 96
	maxGoroutines = 60
)

// settled waits until the gateway holds no more than it did before.
func (g *gateway) settled(before usage, patience time.Duration) error {
	g.client.CloseIdleConnections()
	var now usage
	open := int64(0)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		now, open = g.usage(), g.up.open.Load()
		if open == 0 && now.megabytes <= before.megabytes+moreMegabytes && now.files <= before.files+moreFiles+g.up.connections() {
			fmt.Printf("     %d files, %d MiB; before %d and %d\n", now.files, now.megabytes, before.files, before.megabytes)
			return nil
		}
	}
	return fmt.Errorf("%d files and %d MiB (before %d and %d), %d calls still open at the upstream", now.files, now.megabytes, before.files, before.megabytes, open)
}

// end has the gateway print its goroutines, which also ends it.
func (g *gateway) end() error {
	g.client.CloseIdleConnections()
	time.Sleep(500 * time.Millisecond)
	idle := 2 * g.up.connections() // each of those that are kept for later has two
	g.cmd.Process.Signal(syscall.SIGQUIT)
	g.cmd.Wait()
	log := g.log.String()
	at := strings.LastIndex(log, "SIGQUIT")
	stacks := log[max(at, 0):]
	n := strings.Count(stacks, "\ngoroutine ")
	fmt.Printf("     %d goroutines, of which %d belong to idle connections\n", n, idle)
	if at < 0 || n-idle > maxGoroutines {
		return fmt.Errorf("%d goroutines are left:\n%.10000s", n, stacks)
	}
	if strings.Contains(log, `"msg":"panic"`) {
		return errors.New("the log holds a panic")
	}
	return nil
}

// A redis is a redis-server of the run's own, which keeps what it acknowledged.
type redis struct {
	cmd *exec.Cmd
	url string
}

func startRedis(dir string) (*redis, error) {
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		data := filepath.Join(dir, "redis"+strconv.Itoa(port))
		os.Mkdir(data, 0o700)
		cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", data, "--save", "", "--appendonly", "yes")
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("redis-server: %w", err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		for up := false; !up; {
			select {
			case <-ended: // another process took the port
				up = true
			case <-time.After(20 * time.Millisecond):
				if strings.Contains(askRedis(port), fmt.Sprintf("process_id:%d\r\n", cmd.Process.Pid)) {
					return &redis{cmd, fmt.Sprintf("redis://127.0.0.1:%d", port)}, nil
				}
			}
		}
	}
	return nil, errors.New("redis-server does not start")
}

func askRedis(port int) string {
	c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(c, "INFO server\r\nQUIT\r\n")
	var b bytes.Buffer
	b.ReadFrom(c)
	return b.String()
}

func (r *redis) stop() { r.cmd.Process.Kill() }
