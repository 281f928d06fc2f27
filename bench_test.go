package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Client, proxy and upstream of these benchmarks share one process, so what a
// proxy costs is the difference between two of them, and the bare one is the
// measure: cpu-ns/op is what the whole process used.

// bareProxy does nothing but pass on, with the same transport settings.
func bareProxy(b *testing.B, upstream string) http.Handler {
	b.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			// Or the transport reads past the end, which cuts some streams off.
			r.Out.Body = readCloser{io.LimitReader(r.Out.Body, r.Out.ContentLength), r.Out.Body}
		},
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
		BufferPool:    &bufferPool{size: copyBuffer},
		FlushInterval: -1,
	}
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A benchRequest is what a benchmark sends: to a path, with headers in pairs.
type benchRequest struct {
	path, body string
	headers    []string
}

func (q benchRequest) send(b *testing.B, url string) {
	req, err := http.NewRequest("POST", url+q.path, strings.NewReader(q.body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header["Authorization"] = []string{"Bearer " + testKey}
	req.Header["Content-Type"] = []string{"application/json"}
	for i := 0; i+1 < len(q.headers); i += 2 {
		req.Header[q.headers[i]] = []string{q.headers[i+1]}
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 || n == 0 {
		b.Fatalf("status %d, %d bytes, %v", res.StatusCode, n, err)
	}
	res.Body.Close()
}

// benchmark measures a request to a handler, through sockets.
func (q benchRequest) benchmark(b *testing.B, name string, h http.Handler) {
	b.Run(name, func(b *testing.B) {
		front := httptest.NewServer(h)
		defer front.Close()
		q.send(b, front.URL) // connections are open from here on
		b.ReportAllocs()
		start := cpuTime()
		for b.Loop() {
			q.send(b, front.URL)
		}
		b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
	})
}

// benchUpstream answers a whole request with an answer of a kilobyte, and one for
// a stream with 100 chunks, each flushed.
func benchUpstream(b *testing.B) string {
	answer := completion(strings.Repeat("word ", 200))
	chunk := []byte(textChunk("some words"))
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, answer)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range 100 {
			w.Write(chunk)
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, finishChunk+doneEvent)
	}))
	b.Cleanup(up.Close)
	return up.URL
}

func BenchmarkChat(b *testing.B) {
	up := benchUpstream(b)
	for _, size := range []int{2_000, 200_000} {
		q := benchRequest{path: chatPath, body: string(agentBody(size))}
		q.benchmark(b, fmt.Sprintf("bytes=%d/proxy=bare", size), bareProxy(b, up))
		q.benchmark(b, fmt.Sprintf("bytes=%d/proxy=apiproxy", size), benchGateway(b, up))
	}
}

func streamBody() string {
	return strings.Replace(string(agentBody(2_000)), `"stream":false`, `"stream":true`, 1)
}

func BenchmarkStream(b *testing.B) {
	up := benchUpstream(b)
	q := benchRequest{path: chatPath, body: streamBody()}
	q.benchmark(b, "proxy=bare", bareProxy(b, up))
	q.benchmark(b, "proxy=apiproxy", benchGateway(b, up))
}

// BenchmarkTranslate is a stream of 100 chunks, as it comes from the upstream and
// in the other dialects. The bare one is the gateway's own pass-through.
func BenchmarkTranslate(b *testing.B) {
	gateway := benchGateway(b, benchUpstream(b))
	benchRequest{path: chatPath, body: streamBody()}.benchmark(b, "dialect=bare", gateway)
	for name, q := range map[string]benchRequest{
		"anthropic": {path: messagesPath, body: anthropicHiStream},
		"gemini":    {path: "/v1beta/models/m:streamGenerateContent?alt=sse", body: geminiHi},
		"responses": {path: responsesPath, body: `{"model":"m","input":"hi","stream":true,"store":false}`},
	} {
		q.benchmark(b, "dialect="+name, gateway)
	}
}

// BenchmarkSession is a turn of a session that is as long as it may get, on each
// store.
func BenchmarkSession(b *testing.B) {
	up := benchUpstream(b)
	q := benchRequest{path: chatPath, body: string(agentBody(2_000))}
	q.benchmark(b, "store=bare", bareProxy(b, up))
	for _, turns := range []int{10, 1000} {
		for name, server := range benchServers(b, up, turns) {
			for i := range turns {
				turn := testTurnOf(sessionKey{ownerOf(testKey), "s"}, fmt.Sprintf("question %d", i))
				server.sessions.record(b.Context(), turn, []byte(assistantMsg("a short answer")), false)
			}
			q.headers = []string{"X-Session-Id", "s"}
			q.benchmark(b, fmt.Sprintf("store=%s/turns=%d", name, turns), server.Handler())
		}
	}
}

// benchServers are gateways with the stores that the machine has.
func benchServers(b *testing.B, upstream string, turns int) map[string]*server {
	servers := map[string]*server{"memory": benchServer(b, upstream, turns)}
	if r := startRedis(b); r != nil {
		servers["redis"] = benchServer(b, upstream, turns, "REDIS_URL", r.url())
	}
	return servers
}

func benchServer(b testing.TB, upstream string, turns int, more ...string) *server {
	b.Helper()
	values := map[string]string{
		"A4F_BASE_URL": upstream, "A4F_API_KEY": testUpstream, "APIPROXY_API_KEYS": testKey, "SESSION_MAX_TURNS": strconv.Itoa(turns),
	}
	for i := 0; i+1 < len(more); i += 2 {
		values[more[i]] = more[i+1]
	}
	cfg, _, err := loadConfig(values)
	if err != nil {
		b.Fatal(err)
	}
	store, err := newStore(cfg)
	if err != nil {
		b.Fatal(err)
	}
	s := newServer(cfg, store, slog.New(newJSONHandler(io.Discard, nil)))
	b.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// benchGateway is the gateway's handler in front of an upstream, with its log on.
func benchGateway(b *testing.B, upstream string) http.Handler {
	return benchServer(b, upstream, 50).Handler()
}

// BenchmarkModels is a list of 300 models from the cache, beside a handler that
// writes the same bytes.
func BenchmarkModels(b *testing.B) {
	up := httptest.NewServer(answerJSON(200, "["+strings.TrimSuffix(numberedIDs(300), ",")+"]"))
	b.Cleanup(up.Close)
	gateway := benchGateway(b, up.URL)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/v1/models", nil)
	r.Header.Set("Authorization", "Bearer "+testKey)
	gateway.ServeHTTP(w, r)
	if w.Code != 200 {
		b.Fatalf("status %d: %s", w.Code, w.Body)
	}
	list := w.Body.Bytes()
	for _, h := range []struct {
		name string
		http.Handler
	}{
		{"bare", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(list)
		})},
		{"apiproxy", gateway},
	} {
		b.Run("handler="+h.name, func(b *testing.B) {
			front := httptest.NewServer(h)
			defer front.Close()
			b.ReportAllocs()
			start := cpuTime()
			for b.Loop() {
				req, _ := http.NewRequest("GET", front.URL+"/v1/models", nil)
				req.Header["Authorization"] = []string{"Bearer " + testKey}
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res.Body); err != nil || n != int64(len(list)) {
					b.Fatalf("%d bytes, %v", n, err)
				}
				res.Body.Close()
			}
			b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
		})
	}
}
