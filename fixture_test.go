package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Keys of the gateways under test. They are long enough to be masked.
const (
	testKey      = "client-key-0123456789"
	otherKey     = "another-client-9876543210"
	testUpstream = "upstream-secret-abcdefgh"
)

// A gateway is the real handler on a real socket, in front of an upstream that a
// test scripts.
type gateway struct {
	t        *testing.T
	URL      string
	server   *server
	upstream *recorder
	log      *syncBuffer
}

// newGateway starts a gateway in front of the upstream. change may alter its
// configuration, which is otherwise the default one.
func newGateway(t *testing.T, upstream http.HandlerFunc, change ...func(*config)) *gateway {
	t.Helper()
	return newGatewayOn(t, nil, upstream, change...)
}

// newGatewayOn is newGateway with a store of the test's; nil means in memory.
func newGatewayOn(t *testing.T, store Store, upstream http.HandlerFunc, change ...func(*config)) *gateway {
	t.Helper()
	g := &gateway{t: t, upstream: &recorder{next: upstream}, log: &syncBuffer{}}
	up := httptest.NewServer(g.upstream)
	cfg, _, err := loadConfig(map[string]string{
		"A4F_BASE_URL": up.URL, "A4F_API_KEY": testUpstream,
		"APIPROXY_API_KEYS": "tester:" + testKey + ",other:" + otherKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(cfg)
	}
	if store == nil {
		if store, err = newStore(cfg); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(newJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g.server = newServer(cfg, store, log)
	front := httptest.NewServer(g.server.Handler())
	g.URL = front.URL
	t.Cleanup(func() {
		front.Close()
		up.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		g.server.Close(ctx)
	})
	return g
}

// do sends a request with the test key. Headers are given as "Name: value".
func (g *gateway) do(method, path, body string, headers ...string) *http.Response {
	g.t.Helper()
	req := g.request(method, path, body, headers...)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	g.t.Cleanup(func() { res.Body.Close() })
	return res
}

func (g *gateway) request(method, path, body string, headers ...string) *http.Request {
	g.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, g.URL+path, r)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Authorization" && value == "" {
			req.Header.Del(name)
			continue
		}
		req.Header.Set(name, value)
	}
	return req
}

// chat sends a chat request and returns the answer with its body read.
func (g *gateway) chat(body string, headers ...string) (*http.Response, string) {
	g.t.Helper()
	res := g.do("POST", "/v1/chat/completions", body, headers...)
	return res, readAll(g.t, res)
}

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v (after %q)", err, b)
	}
	return string(b)
}

// A recorder notes what reaches the upstream before the test's handler answers.
type recorder struct {
	next http.HandlerFunc

	mu   sync.Mutex
	seen []seenRequest
}

type seenRequest struct {
	Method string
	URL    *url.URL
	Host   string
	Header http.Header
	Body   string
}

func (u *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	u.mu.Lock()
	u.seen = append(u.seen, seenRequest{r.Method, r.URL, r.Host, r.Header.Clone(), string(body)})
	u.mu.Unlock()
	u.next(w, r)
}

// all are the requests so far.
func (u *recorder) all() []seenRequest {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seenRequest(nil), u.seen...)
}

// last is the newest request; the test fails when there is none.
func (g *gateway) last() seenRequest {
	g.t.Helper()
	all := g.upstream.all()
	if len(all) == 0 {
		g.t.Fatal("nothing reached the upstream")
	}
	return all[len(all)-1]
}

// answerJSON is an upstream that gives the same answer to everything.
func answerJSON(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// answerStream is an upstream that streams the given pieces, each flushed.
func answerStream(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, p := range pieces {
			io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

// completion is a whole chat answer with that text.
func completion(text string) string {
	return `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":` +
		string(appendQuoted(nil, text)) + `},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`
}

// textChunk is a stream's event with a piece of text.
func textChunk(text string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":` +
		string(appendQuoted(nil, text)) + `},"finish_reason":null}]}` + "\n\n"
}

const (
	finishChunk = `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
)

// eventually waits for something that happens beside the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not happen", what)
}

// syncBuffer is a log that tests read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
