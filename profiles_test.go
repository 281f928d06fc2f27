package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOperatorHandler(t *testing.T) {
	g := newGateway(t, modelsUpstream(answerJSON(200, completion("hi"))))
	operator := httptest.NewServer(g.server.operatorHandler())
	defer operator.Close()
	for _, tt := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/metrics", 200, "apiproxy_requests_total"},
		{"HEAD", "/metrics", 200, ""},
		{"POST", "/metrics", 405, ""},
		{"GET", "/debug/pprof/", 200, "heap"},
		{"GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile:"},
		{"GET", "/debug/pprof/nothing", 404, "/debug/pprof/ lists"},
		{"GET", "/debug/pprof/profile?seconds=x", 400, "accepted: a number"},
		{"GET", "/debug/pprof/profile?seconds=0", 400, "accepted: a number"},
		{"GET", "/debug/pprof/profile?seconds=601", 400, "accepted: a number"},
		{"GET", "/", 404, ""},
		{"GET", "/v1/models", 404, ""},
		{"POST", "/v1/chat/completions", 404, ""},
	} {
		req, err := http.NewRequest(tt.method, operator.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body := readAll(t, res)
		res.Body.Close()
		if res.StatusCode != tt.status || !strings.Contains(body, tt.contains) {
			t.Errorf("%s %s = %d %.200q, want %d with %q", tt.method, tt.path, res.StatusCode, body, tt.status, tt.contains)
		}
	}
}

// Profiles are gzipped protocol buffers, as "go tool pprof" takes them.
func TestProfiles(t *testing.T) {
	g := newGateway(t, modelsUpstream(answerJSON(200, completion("hi"))))
	for _, name := range []string{"heap", "profile?seconds=0.01"} {
		w := httptest.NewRecorder()
		g.server.operatorHandler().ServeHTTP(w, httptest.NewRequest("GET", "/debug/pprof/"+name, nil))
		r, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
		if w.Code != 200 || err != nil {
			t.Errorf("%s = %d, %v", name, w.Code, err)
			continue
		}
		if profile, err := io.ReadAll(r); err != nil || !bytes.Contains(profile, []byte("nanoseconds")) && !bytes.Contains(profile, []byte("inuse_space")) {
			t.Errorf("%s has %d bytes and is no profile: %v", name, len(profile), err)
		}
	}
}
