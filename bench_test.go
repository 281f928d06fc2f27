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
	"syscall"
	"testing"
	"time"
)

// Client, proxy and upstream of these benchmarks share one process, so what a
// proxy costs is the difference between two of them, and the bare one is the
// measure: cpu-ns/op is what the whole process used.

// benchGateway is the gateway's handler in front of an upstream, with its log on.
func benchGateway(b *testing.B, upstream string) http.Handler {
	b.Helper()
	cfg, _, err := loadConfig(map[string]string{"A4F_BASE_URL": upstream, "A4F_API_KEY": testUpstream, "APIPROXY_API_KEYS": testKey})
	if err != nil {
		b.Fatal(err)
	}
	store, err := newStore(cfg)
	if err != nil {
		b.Fatal(err)
	}
	s := newServer(cfg, store, slog.New(newJSONHandler(io.Discard, nil)))
	b.Cleanup(func() { s.Close(context.Background()) })
	return s.Handler()
}

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

// benchmarkRequest measures a request through both proxies.
func benchmarkRequest(b *testing.B, body []byte, upstream http.HandlerFunc) {
	up := httptest.NewServer(upstream)
	b.Cleanup(up.Close)
	for _, proxy := range []struct {
		name string
		make func(*testing.B, string) http.Handler
	}{{"bare", bareProxy}, {"apiproxy", benchGateway}} {
		b.Run("proxy="+proxy.name, func(b *testing.B) {
			front := httptest.NewServer(proxy.make(b, up.URL))
			defer front.Close()
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			start := cpuTime()
			for b.Loop() {
				req, err := http.NewRequest("POST", front.URL+"/v1/chat/completions", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				req.Header["Authorization"] = []string{"Bearer " + testKey}
				req.Header["Content-Type"] = []string{"application/json"}
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
					b.Fatalf("status %d, %v", res.StatusCode, err)
				}
				res.Body.Close()
			}
			b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

func BenchmarkChat(b *testing.B) {
	for _, size := range []int{2_000, 200_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			answer := completion(string(bytes.Repeat([]byte("word "), 200)))
			benchmarkRequest(b, agentBody(size), func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/json")
				io.WriteString(w, answer)
			})
		})
	}
}

// BenchmarkStream is a stream of 100 chunks, each flushed.
func BenchmarkStream(b *testing.B) {
	chunk := []byte(textChunk("some words"))
	body := append(bytes.TrimSuffix(agentBody(2_000), []byte("}")), `,"n":1}`...)
	body = bytes.Replace(body, []byte(`"stream":false`), []byte(`"stream":true`), 1)
	benchmarkRequest(b, body, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for range 100 {
			w.Write(chunk)
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, finishChunk+doneEvent)
	})
}
