package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds what tests wait for; nothing is expected to take that long.
const patience = 20 * time.Second

// TestMain makes this binary the gateway itself for tests that need a process.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_BINARY_IS_GATEWAY") == "1" {
		main()
	}
	os.Exit(m.Run())
}

// output collects what a gateway writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// waitFor waits until the output matches and returns the first group.
func (o *output) waitFor(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m[len(m)-1]
		}
	}
	t.Fatalf("the output never matched %s:\n%s", pattern, o)
	return ""
}

// An inProcess gateway is a whole run in this process.
type inProcess struct {
	stdout, stderr output
	stop           context.CancelFunc
	code           chan int
}

// startGateway runs the program in an empty directory, with the given
// environment alone.
func startGateway(t *testing.T, environ []string, args ...string) *inProcess {
	t.Helper()
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	g := &inProcess{stop: cancel, code: make(chan int, 1)}
	go func() { g.code <- run(ctx, args, environ, &g.stdout, &g.stderr) }()
	t.Cleanup(func() {
		cancel()
		g.exit(t)
	})
	return g
}

// exit returns the exit code once the program has ended.
func (g *inProcess) exit(t *testing.T) int {
	t.Helper()
	select {
	case code := <-g.code:
		g.code <- code
		return code
	case <-time.After(patience):
		t.Fatalf("the gateway does not end:\n%s", &g.stderr)
		return -1
	}
}

// addr waits until the gateway listens.
func (g *inProcess) addr(t *testing.T) string {
	t.Helper()
	return g.stderr.waitFor(t, `"msg":"listening","addr":"([^"]+)"`)
}

// runGateway runs the program to its end.
func runGateway(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	g := startGateway(t, environ, args...)
	code = g.exit(t)
	return code, g.stdout.String(), g.stderr.String()
}

// fresh is a client whose every request has a connection of its own.
var fresh = &http.Client{Timeout: patience, Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
}}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := fresh.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, resp)
}

func readAnswer(t *testing.T, resp *http.Response) (status int, body string) {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func postChat(t *testing.T, addr, key, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequest("POST", "http://"+addr+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	resp, err := fresh.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

const helloBody = `{"model":"demo","messages":[{"role":"user","content":"Hello!"}]}`

func TestDemo(t *testing.T) {
	g := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0"}, "-demo")
	addr := g.addr(t)
	if status, body := get(t, "http://"+addr+"/health"); status != 200 || !strings.Contains(body, `"status":"ok"`) {
		t.Errorf("GET /health = %d %s", status, body)
	}
	if status, body := readAnswer(t, postChat(t, addr, "demo", helloBody)); status != 200 || !strings.Contains(body, `"chat.completion"`) {
		t.Errorf("chat = %d %s", status, body)
	}
	if status, body := readAnswer(t, postChat(t, addr, "wrong", helloBody)); status != 401 {
		t.Errorf("chat with a wrong key = %d %s", status, body)
	}
	g.stop()
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &g.stderr)
	}
	again := startGateway(t, []string{"LISTEN_ADDR=" + addr}, "-demo")
	if got := again.addr(t); got != addr {
		t.Errorf("restarted on %s, want %s", got, addr)
	}
}

// demoCommands returns the commands that the demo prints.
func demoCommands(t *testing.T, g *inProcess) []string {
	t.Helper()
	g.addr(t)
	var commands []string
	for block := range strings.SplitSeq(g.stdout.String(), "\n\n") {
		if strings.HasPrefix(block, "# ") {
			commands = append(commands, block)
		}
	}
	if len(commands) != 3 {
		t.Fatalf("%d commands, want 3:\n%s", len(commands), &g.stdout)
	}
	return commands
}

// TestDemoCommands runs what the demo prints.
func TestDemoCommands(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("curl is not installed: the commands are not run")
		return
	}
	cert, key := writeCertificate(t, t.TempDir(), 1)
	for _, tt := range []struct {
		name    string
		environ []string
	}{
		{"plain", nil},
		{"own keys, TLS, all addresses", []string{"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key, "LISTEN_ADDR=:0", "APIPROXY_API_KEYS=own-key"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := startGateway(t, append([]string{"LISTEN_ADDR=127.0.0.1:0"}, tt.environ...), "-demo")
			wants := [][]string{
				{`"object":"chat.completion"`, `"content"`},
				{`"chat.completion.chunk"`, "data: [DONE]"},
				{`"object":"chat.completion"`, `"messages":[`, "What is my name?"},
			}
			var outs [3]bytes.Buffer
			var running [3]*exec.Cmd
			for i, command := range demoCommands(t, g) {
				sh := exec.Command("sh", "-c", command)
				sh.Env = append(os.Environ(), "KEY=own-key")
				sh.Stdout, sh.Stderr = &outs[i], &outs[i]
				if err := sh.Start(); err != nil {
					t.Fatal(err)
				}
				running[i] = sh
			}
			for i, sh := range running {
				err := sh.Wait()
				got := strings.ReplaceAll(outs[i].String(), `": `, `":`)
				for _, want := range wants[i] {
					if err != nil || !strings.Contains(got, want) {
						t.Errorf("%s\nends with error %v, or does not answer %s:\n%s", sh.Args[2], err, want, got)
					}
				}
			}
			if strings.Contains(g.stdout.String(), "own-key") {
				t.Errorf("the demo prints the operator's key:\n%s", &g.stdout)
			}
			answers := strings.Split(outs[2].String(), "\n")
			if len(answers) < 2 || !strings.Contains(answers[1], "Ada") {
				t.Errorf("the gateway did not remember the name:\n%s", &outs[2])
			}
		})
	}
}

func TestDemoSettings(t *testing.T) {
	for _, tt := range []struct {
		name             string
		values           map[string]string
		addr, keys, note string
		err              string
	}{
		{name: "nothing set", addr: "127.0.0.1:8000", keys: "demo:demo"},
		{name: "own address", values: map[string]string{"LISTEN_ADDR": "localhost:9000"}, addr: "localhost:9000", keys: "demo:demo"},
		{name: "open to others", values: map[string]string{"LISTEN_ADDR": ":9000"}, err: "everyone knows the key"},
		{name: "open to others by name", values: map[string]string{"LISTEN_ADDR": "example.com:9000"}, err: "everyone knows the key"},
		{name: "open to others with keys", values: map[string]string{"LISTEN_ADDR": ":9000", "APIPROXY_API_KEYS": "k"}, addr: ":9000", keys: "k"},
		{name: "no authentication", values: map[string]string{"APIPROXY_AUTH": "off"}, addr: "127.0.0.1:8000"},
		{name: "set for real use", values: map[string]string{"A4F_BASE_URL": "bad address", "A4F_API_KEY": "bad key", "REDIS_URL": "bad"},
			addr: "127.0.0.1:8000", keys: "demo:demo",
			note: "note: A4F_BASE_URL is not used with -demo\nnote: A4F_API_KEY is not used with -demo\nnote: REDIS_URL is not used with -demo\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			values := map[string]string{}
			for name, value := range tt.values {
				values[name] = value
			}
			var note bytes.Buffer
			_, err := applyDemoSettings(values, &note)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || values["LISTEN_ADDR"] != tt.addr || values["APIPROXY_API_KEYS"] != tt.keys || note.String() != tt.note {
				t.Fatalf("got %q, note %q, error %v", values, &note, err)
			}
			values["A4F_BASE_URL"] = "http://127.0.0.1:1"
			if _, _, err := loadConfig(values); err != nil {
				t.Errorf("the demo's settings don't load: %v", err)
			}
		})
	}
}

// TestDemoIgnoresDotEnv: whatever lies in the directory, the demo runs.
func TestDemoIgnoresDotEnv(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, ".env")
	if err := os.WriteFile(file, []byte("LISTEN_ADDR=nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	values, err := options{demo: true}.settings(nil)
	if err != nil || len(values) > 0 {
		t.Errorf("settings of the demo = %q, %v", values, err)
	}
	if values, err := (options{demo: true, envFile: file}).settings(nil); err != nil || values["LISTEN_ADDR"] != "nowhere" {
		t.Errorf("settings of the demo with -env = %q, %v", values, err)
	}
}

func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		want    []string
	}{
		{"nothing set", nil, nil, 1, []string{"the configuration can't be used:\n  ", "A4F_BASE_URL: not set", "set APIPROXY_API_KEYS"}},
		{"no key", []string{"A4F_BASE_URL=http://h"}, nil, 1, []string{"APIPROXY_API_KEYS: no key opens the gateway", "APIPROXY_AUTH=off"}},
		{"demo for everyone", []string{"LISTEN_ADDR=0.0.0.0:8000"}, []string{"-demo"}, 1, []string{"LISTEN_ADDR: with -demo", "127.0.0.1:8000"}},
		{"port taken", []string{"LISTEN_ADDR=" + taken.Addr().String()}, []string{"-demo"}, 1, []string{"set LISTEN_ADDR to another address"}},
		{"no such file", nil, []string{"-env", "no-such-file"}, 1, []string{"settings file: ", "no-such-file"}},
		{"unknown flag", nil, []string{"-x"}, 2, []string{"flag provided but not defined: -x", "-healthcheck"}},
		{"argument", nil, []string{"serve"}, 2, []string{`unexpected argument "serve"`, "-healthcheck"}},
		{"two modes", nil, []string{"-demo", "-check"}, 2, []string{"exclude each other"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := runGateway(t, tt.environ, tt.args...)
			if code != tt.code || stdout != "" {
				t.Errorf("exit code %d, want %d; stdout %q", code, tt.code, stdout)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr does not say %q:\n%s", want, stderr)
				}
			}
			if strings.Contains(stderr, "goroutine ") {
				t.Errorf("stderr shows a stack:\n%s", stderr)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	code, _, stderr := runGateway(t, nil, "-h")
	if code != 0 || !strings.Contains(stderr, "-demo") {
		t.Errorf("-h: exit code %d\n%s", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := runGateway(t, nil, "-version")
	want := "apiproxy " + version()
	if code != 0 || stderr != "" || !strings.HasPrefix(stdout, want) || !strings.HasSuffix(stdout, runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH+"\n") {
		t.Errorf("-version: exit code %d, %q, stderr %q, want it to begin with %q", code, stdout, stderr, want)
	}
}

func TestCheck(t *testing.T) {
	code, stdout, stderr := runGateway(t, []string{
		"A4F_BASE_URL=https://api.example.com", "A4F_API_KEY=CANARY-upstream",
		"APIPROXY_API_KEYS=alice:CANARY-1,CANARY-2", "REDIS_URL=redis://user:CANARY@redis:6379/2", "APIPROXY_NAME=x", "METRICS_ADDR=127.0.0.1:9090",
	}, "-check")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, stderr)
	}
	want := `configuration is valid
  upstream  https://api.example.com/v1 (with a key)
  listen    :8000 (http)
  clients   keys: alice, key2
  store     redis://redis:6379/2
  metrics   127.0.0.1:9090 (http, without a key)
`
	if stdout != want {
		t.Errorf("stdout:\n%s\nwant:\n%s", stdout, want)
	}
	if !strings.HasPrefix(stderr, "warning: APIPROXY_NAME: not a setting") {
		t.Errorf("stderr: %s", stderr)
	}
	code, stdout, stderr = runGateway(t, []string{"A4F_BASE_URL=ftp://h", "LOG_LEVEL=loud"}, "-check")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "A4F_BASE_URL") || !strings.Contains(stderr, "LOG_LEVEL") {
		t.Errorf("with bad settings: exit code %d, stdout %q, stderr:\n%s", code, stdout, stderr)
	}
}

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		values []string
		want   []string
	}{
		{[]string{"APIPROXY_AUTH", "off", "A4F_API_KEY", ""}, []string{"(without a key)", "clients   need no key", "in memory, 256 MiB at most"}},
		{[]string{"APIPROXY_AUTH", "passthrough"}, []string{"present the upstream's own keys"}},
		{[]string{"REDIS_URL", "unix://u:CANARY@/run/r.sock?password=CANARY"}, []string{"unix:///run/r.sock\n"}},
	} {
		c, _, err := loadConfig(baseSettings(tt.values...))
		if err != nil {
			t.Fatal(err)
		}
		got := summary(c)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q: summary has no %q:\n%s", tt.values, want, got)
			}
		}
		if strings.Contains(got, "CANARY") {
			t.Errorf("the summary shows a secret:\n%s", got)
		}
	}
}

// TestSettingsOrder: the environment wins over the file, also when it is empty.
func TestSettingsOrder(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if values, err := (options{}).settings([]string{"A=env"}); err != nil || values["A"] != "env" {
		t.Fatalf("without a file: %q, %v", values, err)
	}
	for name, text := range map[string]string{".env": "A=file\nB=file\nC=file\n", "other": "A=other\nD=other\n", "bad": "A=1\nCANARY\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	values, err := options{}.settings([]string{"A=env", "B=", "=C:=hidden"})
	if want := map[string]string{"A": "env", "B": "", "C": "file"}; err != nil || fmt.Sprint(values) != fmt.Sprint(want) {
		t.Errorf("with .env: %q, %v, want %q", values, err, want)
	}
	values, err = options{envFile: "other"}.settings(nil)
	if want := map[string]string{"A": "other", "D": "other"}; err != nil || fmt.Sprint(values) != fmt.Sprint(want) {
		t.Errorf("with -env: %q, %v, want %q", values, err, want)
	}
	if _, err := (options{envFile: "bad"}).settings(nil); err == nil || err.Error() != "settings file bad can't be read:\n  line 2: not a setting; accepted: NAME=value" {
		t.Errorf("with a bad file: %v", err)
	}
}

// TestNetworkSettings: Go's own packages learn of a proxy that .env names.
func TestNetworkSettings(t *testing.T) {
	t.Setenv("NO_PROXY", "from.environment")
	t.Setenv("SSL_CERT_DIR", "")
	exportNetworkSettings(map[string]string{"NO_PROXY": "from.file", "SSL_CERT_DIR": "/from/file", "HOME": "/from/file"})
	if got := os.Getenv("NO_PROXY"); got != "from.environment" {
		t.Errorf("NO_PROXY = %q", got)
	}
	if got := os.Getenv("SSL_CERT_DIR"); got != "/from/file" {
		t.Errorf("SSL_CERT_DIR = %q", got)
	}
	if got := os.Getenv("HOME"); got == "/from/file" {
		t.Errorf("HOME = %q", got)
	}
}

func TestHealthcheck(t *testing.T) {
	cert, key := writeCertificate(t, t.TempDir(), 1)
	sick := httptest.NewServer(http.NotFoundHandler())
	defer sick.Close()
	plain := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0"}, "-demo")
	secure := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0", "TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, "-demo")
	gone := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0"}, "-demo")
	gone.addr(t)
	gone.stop()
	gone.exit(t)
	for _, tt := range []struct {
		name    string
		environ []string
		code    int
		want    string
	}{
		{"healthy", []string{"LISTEN_ADDR=" + plain.addr(t)}, 0, "healthy"},
		{"every address", []string{"LISTEN_ADDR=:" + strings.Split(plain.addr(t), ":")[1]}, 0, "healthy"},
		{"TLS", []string{"LISTEN_ADDR=" + secure.addr(t), "TLS_CERT_FILE=" + cert}, 0, "healthy"},
		{"nobody there", []string{"LISTEN_ADDR=" + gone.addr(t)}, 1, "refused"},
		{"sick", []string{"LISTEN_ADDR=" + sick.Listener.Addr().String()}, 1, "404"},
		{"bad address", []string{"LISTEN_ADDR=x"}, 1, "LISTEN_ADDR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := runGateway(t, tt.environ, "-healthcheck")
			if code != tt.code || !strings.Contains(stdout+stderr, tt.want) {
				t.Errorf("exit code %d, want %d; %s%s", code, tt.code, stdout, stderr)
			}
		})
	}
}

func TestLocalURL(t *testing.T) {
	for addr, want := range map[string]string{
		":8000":            "http://127.0.0.1:8000",
		"0.0.0.0:8000":     "http://127.0.0.1:8000",
		"[::]:8000":        "http://127.0.0.1:8000",
		"[::1]:8000":       "http://[::1]:8000",
		"127.0.0.2:8000":   "http://127.0.0.2:8000",
		"gateway.lan:8000": "http://gateway.lan:8000",
	} {
		if got := localURL("http", addr); got != want {
			t.Errorf("localURL(%q) = %s, want %s", addr, got, want)
		}
	}
}

// heldUpstream begins a stream and ends it when release is closed.
func heldUpstream(t *testing.T) (environ []string, release chan struct{}) {
	release = make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"begun"}}]}`+"\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-release:
			io.WriteString(w, `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(upstream.Close)
	return []string{"A4F_BASE_URL=" + upstream.URL, "APIPROXY_API_KEYS=k", "LISTEN_ADDR=127.0.0.1:0"}, release
}

// beginStream returns once the first event is there.
func beginStream(t *testing.T, addr string) (rest *bufio.Reader) {
	t.Helper()
	resp := postChat(t, addr, "k", `{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`)
	t.Cleanup(func() { resp.Body.Close() })
	rest = bufio.NewReader(resp.Body)
	for {
		line, err := rest.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream did not begin: status %d, %q, %v", resp.StatusCode, line, err)
		}
		if strings.Contains(line, "begun") {
			return rest
		}
	}
}

// TestDrain: what is in flight finishes, what is new is refused, and the exit
// code is 0.
func TestDrain(t *testing.T) {
	environ, release := heldUpstream(t)
	g := startGateway(t, environ)
	addr := g.addr(t)
	stream := beginStream(t, addr)
	g.stop()
	g.stderr.waitFor(t, `"msg":"draining","in_flight":1`)
	if resp := postChat(t, addr, "k", helloBody); resp.StatusCode != 503 {
		t.Errorf("a new request gets %s, want 503", resp.Status)
	}
	if status, _ := get(t, "http://"+addr+"/ready"); status != 503 {
		t.Errorf("GET /ready = %d, want 503", status)
	}
	close(release)
	rest, err := io.ReadAll(stream)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the stream in flight ends with %q, %v", rest, err)
	}
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestDrainCuts: what does not finish in time ends with an error of its own.
func TestDrainCuts(t *testing.T) {
	environ, _ := heldUpstream(t)
	g := startGateway(t, append(environ, "DRAIN_TIMEOUT=100ms"))
	stream := beginStream(t, g.addr(t))
	g.stop()
	rest, _ := io.ReadAll(stream)
	if !strings.Contains(string(rest), `data: {"error":`) || strings.Contains(string(rest), "[DONE]") {
		t.Errorf("the cut stream ends with %q", rest)
	}
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	g.stderr.waitFor(t, `"level":"WARN","msg":"cutting requests`)
}

// TestDrainWritesTheQueue: turns that wait for the store are written before the
// process ends.
func TestDrainWritesTheQueue(t *testing.T) {
	store := &hookedStore{Store: newMemoryStore(1<<20, testLimits), down: true}
	g := newGatewayOn(t, store, talkUpstream)
	g.chat(`{"messages":`+arrayOf(userMsg("a"), assistantMsg("b"), userMsg("c"))+`}`, "X-Session-Id: s")
	store.setDown(false)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := &process{cfg: g.server.cfg, log: g.server.log, store: store, server: g.server, ln: ln}
	p.http = p.newHTTPServer()
	p.drain()
	if got := store.written(); got != "r" {
		t.Errorf("writes %q, want the turn that waited", got)
	}
}

// TestServerTimeouts: slow clients are bounded, long answers are not.
func TestServerTimeouts(t *testing.T) {
	g := newGateway(t, talkUpstream)
	s := (&process{cfg: g.server.cfg, log: g.server.log, server: g.server}).newHTTPServer()
	if s.ReadHeaderTimeout != 20*time.Second || s.IdleTimeout != 2*time.Minute {
		t.Errorf("headers have %v, idle connections %v; want 20s and 2m", s.ReadHeaderTimeout, s.IdleTimeout)
	}
	if s.ReadTimeout != 0 || s.WriteTimeout != 0 {
		t.Errorf("a whole request has %v, a whole answer %v; want no limit", s.ReadTimeout, s.WriteTimeout)
	}
}

// TestIdleExit: connections on which nothing was asked do not hold up the end.
func TestIdleExit(t *testing.T) {
	g := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0"}, "-demo")
	addr := g.addr(t)
	for _, sent := range []string{"", "GET /health HTTP/1.1\r\nHost: x\r\n", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, sent)
		if strings.HasSuffix(sent, "\r\n\r\n") {
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.stop()
	select {
	case code := <-g.code:
		g.code <- code
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(8 * time.Second):
		t.Error("an idle gateway does not end within 8 s")
	}
}

// TestMetricsAddr: metrics and profiles have a listener of their own, with the gateway
// from its start to its end, drain included.
func TestMetricsAddr(t *testing.T) {
	environ, release := heldUpstream(t)
	g := startGateway(t, append(environ, "METRICS_ADDR=127.0.0.1:0"))
	addr := g.addr(t)
	operator := "http://" + g.stderr.waitFor(t, `"msg":"serving metrics","addr":"([^"]+)"`)
	rest := beginStream(t, addr)
	look := func(when string) {
		t.Helper()
		if status, body := get(t, operator+"/metrics"); status != 200 || !strings.Contains(body, "\napiproxy_streams_open 1\n") {
			t.Errorf("%s: GET /metrics = %d %s", when, status, body)
		}
	}
	look("serving")
	if status, _ := get(t, operator+"/debug/pprof/heap"); status != 200 {
		t.Errorf("GET /debug/pprof/heap = %d", status)
	}
	if status, _ := get(t, "http://"+addr+"/metrics"); status != 401 {
		t.Errorf("GET /metrics on LISTEN_ADDR without a key = %d", status)
	}
	if status, _ := get(t, "http://"+addr+"/debug/pprof/heap"); status == 200 {
		t.Error("profiles are served on LISTEN_ADDR")
	}
	g.stop()
	g.stderr.waitFor(t, `"msg":"draining"`)
	look("draining")
	close(release)
	io.Copy(io.Discard, rest)
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := fresh.Get(operator + "/metrics"); err == nil {
		t.Error("metrics are served after the end")
	}
}

func TestMetricsAddrTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, _, stderr := runGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0", "METRICS_ADDR=" + taken.Addr().String()}, "-demo")
	if code != 1 || !strings.Contains(stderr, "set METRICS_ADDR to another address") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestHeaderBlockLimit(t *testing.T) {
	g := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0"}, "-demo")
	addr := g.addr(t)
	for size, want := range map[int]int{64 << 10: 200, 64<<10 + 1: 431, 1 << 20: 431} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		const head, tail = "GET /health HTTP/1.1\r\nHost: x\r\nX-Pad: ", "\r\n\r\n"
		// The rest of a block that is refused may find the connection closed.
		go io.WriteString(conn, head+strings.Repeat("a", size-len(head)-len(tail))+tail)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if resp.StatusCode != want {
			t.Errorf("a header block of %d bytes gets %s, want %d", size, resp.Status, want)
		}
		conn.Close()
	}
}

func TestTLS(t *testing.T) {
	cert, key := writeCertificate(t, t.TempDir(), 7)
	g := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0", "TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, "-demo")
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + g.addr(t) + "/health")
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := readAnswer(t, resp); status != 200 || resp.ProtoMajor != 2 || resp.TLS.PeerCertificates[0].SerialNumber.Int64() != 7 {
		t.Errorf("GET /health over TLS: %d, %s, certificate %v", status, resp.Proto, resp.TLS.PeerCertificates[0].SerialNumber)
	}
}

// TestKeyPair: a certificate that is renewed is served, one that is broken is not.
func TestKeyPair(t *testing.T) {
	dir := t.TempDir()
	var logged bytes.Buffer
	k := &keyPair{log: slog.New(slog.NewTextHandler(&logged, nil))}
	k.certFile, k.keyFile = writeCertificate(t, dir, 1)
	serial := func() int64 {
		t.Helper()
		pair, err := k.certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	age := 0
	change := func(write func()) {
		write()
		age++ // some file systems keep coarse times
		when := time.Now().Add(time.Duration(age) * time.Minute)
		if err := os.Chtimes(k.certFile, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if got := serial(); got != 1 {
		t.Errorf("certificate %d, want 1", got)
	}
	change(func() { writeCertificate(t, dir, 2) })
	k.checked = time.Now()
	if got := serial(); got != 1 {
		t.Errorf("the files were looked at again at once: certificate %d, want 1", got)
	}
	k.checked = time.Time{}
	if got := serial(); got != 2 {
		t.Errorf("certificate %d, want 2", got)
	}
	change(func() { writePEM(t, k.certFile, "CERTIFICATE", []byte("broken")) })
	for range 2 {
		k.checked = time.Time{}
		if got := serial(); got != 2 {
			t.Errorf("with a broken file: certificate %d, want 2", got)
		}
	}
	if n := strings.Count(logged.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors logged, want 1:\n%s", n, &logged)
	}
	change(func() { writeCertificate(t, dir, 3) })
	k.checked = time.Time{}
	if got := serial(); got != 3 {
		t.Errorf("certificate %d, want 3", got)
	}
	if _, err := (&keyPair{certFile: "none", keyFile: "none"}).certificate(nil); err == nil {
		t.Error("files that do not exist give a certificate")
	}
}

// TestRedisDownAtStart: a warning, not a refusal.
func TestRedisDownAtStart(t *testing.T) {
	g := startGateway(t, []string{"A4F_BASE_URL=http://127.0.0.1:1", "APIPROXY_API_KEYS=k", "LISTEN_ADDR=127.0.0.1:0", "REDIS_URL=redis://:CANARY@127.0.0.1:1/0"})
	if status, body := get(t, "http://"+g.addr(t)+"/health"); status != 200 || !strings.Contains(body, `"status":"degraded"`) || !strings.Contains(body, `"store":"redis"`) {
		t.Errorf("GET /health = %d %s", status, body)
	}
	g.stop()
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(g.stderr.String(), `"level":"WARN"`) || strings.Contains(g.stderr.String(), "CANARY") {
		t.Errorf("log:\n%s", &g.stderr)
	}
}

func TestLogFormat(t *testing.T) {
	for format, want := range map[string]string{"text": "  INFO   listening  addr=", "json": `"msg":"listening"`, "": `"msg":"listening"`} {
		g := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0", "LOG_FORMAT=" + format}, "-demo")
		g.stderr.waitFor(t, "("+regexp.QuoteMeta(want)+")")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if isTerminal(file) || isTerminal(&bytes.Buffer{}) {
		t.Error("a file or a buffer is taken for a terminal")
	}
}

// startCommand runs the gateway's demo as a process of its own.
func startCommand(t *testing.T, stderr io.Writer) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-demo")
	cmd.Env = append(os.Environ(), "TEST_BINARY_IS_GATEWAY=1", "LISTEN_ADDR=127.0.0.1:0")
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

// waitCommand returns the exit code.
func waitCommand(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  os.Signal
		second os.Signal
		code   int
	}{
		{"SIGTERM", syscall.SIGTERM, nil, 0},
		{"SIGINT", os.Interrupt, nil, 0},
		{"twice", syscall.SIGTERM, os.Interrupt, 130},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log output
			cmd := startCommand(t, &log)
			addr := log.waitFor(t, `"msg":"listening","addr":"([^"]+)"`)
			if tt.second != nil {
				resp := postChat(t, addr, "demo", `{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello!"}]}`)
				defer resp.Body.Close()
			}
			if err := cmd.Process.Signal(tt.first); err != nil {
				t.Fatal(err)
			}
			if tt.second != nil {
				log.waitFor(t, `"msg":"draining"`)
				cmd.Process.Signal(tt.second)
			}
			if code := waitCommand(t, cmd); code != tt.code {
				t.Errorf("exit code %d, want %d\n%s", code, tt.code, &log)
			}
		})
	}
}

// TestLogReaderGone: the gateway outlives whoever reads its log.
func TestLogReaderGone(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := startCommand(t, write)
	write.Close()
	var line struct{ Addr string }
	if err := json.NewDecoder(read).Decode(&line); err != nil {
		t.Fatal(err)
	}
	read.Close()
	for range 3 {
		if status, body := readAnswer(t, postChat(t, line.Addr, "demo", helloBody)); status != 200 {
			t.Fatalf("chat = %d %s", status, body)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := waitCommand(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// writeCertificate writes a certificate for the loopback address, and its key.
func writeCertificate(t *testing.T, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "apiproxy test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePEM(t, certFile, "CERTIFICATE", cert)
	writePEM(t, keyFile, "PRIVATE KEY", keyBytes)
	return certFile, keyFile
}

func writePEM(t *testing.T, name, kind string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
		t.Fatal(err)
	}
}
