package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// logLine is the log line of the gateway's first request, once it is there.
func (g *gateway) logLine() map[string]any {
	g.t.Helper()
	return g.logLines(1)[0]
}

// logLines are the log lines of the gateway's first n requests.
func (g *gateway) logLines(n int) []map[string]any {
	g.t.Helper()
	var lines []map[string]any
	eventually(g.t, "the log line of a request", func() bool {
		lines = nil
		for line := range strings.Lines(g.log.String()) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				g.t.Fatalf("the log holds %q: %v", line, err)
			}
			if fields["msg"] == "request" {
				lines = append(lines, fields)
			}
		}
		return len(lines) >= n
	})
	return lines
}

func settledGoroutines() int {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	runtime.Gosched()
	return runtime.NumGoroutine()
}

// A client that leaves once it has all of an answer has not left early.
func TestLeavingAfterTheAnswer(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("hi")))
	for written, want := range map[string]string{"abc": "ok", "ab": "client_closed"} {
		ctx, leave := context.WithCancel(context.Background())
		x, r := newExchange(httptest.NewRequest("POST", "/v1/messages", nil).WithContext(ctx))
		x.id = written
		w := newStatusWriter(httptest.NewRecorder(), false)
		w.Header().Set("Content-Length", "3")
		io.WriteString(w, written)
		leave()
		g.server.finish(w, r, x)
		for _, line := range g.logLines(1) {
			if line["id"] == written && line["outcome"] != want {
				t.Errorf("after %q of 3 bytes the outcome is %v, want %s", written, line["outcome"], want)
			}
		}
	}
}

func TestLogLine(t *testing.T) {
	body := `{"model":"m","messages":[]}`
	ok := map[string]any{
		"level": "INFO", "method": "POST", "route": "/v1/chat/completions", "status": 200.0, "outcome": "ok", "key": "tester", "dialect": "openai",
		"model": "m", "stream": false, "fidelity": "exact", "upstream_status": 200.0, "bytes_in": float64(len(body)), "bytes_out": float64(len(completion("hi"))),
		"prompt_tokens": 3.0, "completion_tokens": 2.0,
	}
	for _, tt := range []struct {
		name     string
		upstream http.HandlerFunc
		method   string
		path     string
		body     string
		headers  []string
		want     map[string]any
		absent   []string
	}{
		{"an answer", answerJSON(200, completion("hi")), "POST", "/openai/v1/chat/completions", body, nil, ok, []string{"error", "session", "traceparent", "request_body", "response_body", "dropped"}},
		{"with an id, a trace and a session", answerJSON(200, completion("hi")), "POST", "/v1/chat/completions", body,
			[]string{"X-Request-Id: my-id.1:2_3", "Traceparent: 00-abc-def-01", "Tracestate: a=1,b=2", "X-Session-Id: s1"},
			map[string]any{"id": "my-id.1:2_3", "traceparent": "00-abc-def-01", "tracestate": "a=1,b=2", "session": "s1", "outcome": "ok"}, nil},
		{"a stream", answerStream(textChunk("a"), finishChunk, doneEvent), "POST", "/v1/chat/completions", streamRequest, nil,
			map[string]any{"stream": true, "status": 200.0, "outcome": "ok", "bytes_out": float64(len(textChunk("a") + finishChunk + doneEvent))}, []string{"prompt_tokens", "error"}},
		{"a wrong key", answerJSON(200, completion("hi")), "POST", "/v1/chat/completions", body, []string{"Authorization: Bearer wrong"},
			map[string]any{"level": "INFO", "status": 401.0, "outcome": "ok", "key": ""}, []string{"upstream_status", "first_byte_ms", "prompt_tokens"}},
		{"a bad body", answerJSON(200, completion("hi")), "POST", "/v1/chat/completions", `{`, nil, map[string]any{"status": 400.0, "outcome": "ok", "key": "tester"}, []string{"upstream_status"}},
		{"an upstream's error", answerJSON(429, `{"error":{"message":"slow down","type":"rate_limit_error"}}`), "POST", "/v1/chat/completions", body, nil,
			map[string]any{"level": "WARN", "status": 429.0, "upstream_status": 429.0, "outcome": "upstream_error", "error": "slow down: upstream status 429"}, []string{"prompt_tokens"}},
		{"an error inside 200", answerJSON(200, `{"error":{"message":"boom"}}`), "POST", "/v1/chat/completions", body, nil,
			map[string]any{"status": 502.0, "upstream_status": 200.0, "outcome": "upstream_error"}, nil},
		{"no upstream", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "POST", "/v1/chat/completions", body, nil,
			map[string]any{"status": 502.0, "outcome": "upstream_error"}, []string{"upstream_status"}},
		{"a forwarded path", answerJSON(200, `{"data":[]}`), "POST", "/embeddings", `{"input":"x"}`, nil,
			map[string]any{"route": "/v1/{path...}", "status": 200.0, "outcome": "ok", "bytes_in": 13.0, "bytes_out": 11.0, "upstream_status": 200.0}, []string{"dialect", "model", "stream", "fidelity"}},
		{"an unknown path", answerJSON(200, ""), "GET", "/nothing", "", nil, map[string]any{"route": "/", "status": 404.0, "outcome": "ok"}, nil},
		{"a model that forges a line", answerJSON(200, completion("hi")), "POST", "/v1/chat/completions", `{"messages":[],"model":"a\nb\u001b[31m` + strings.Repeat("x", 200) + `"}`, nil,
			map[string]any{"model": "ab[31m" + strings.Repeat("x", 120)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, tt.upstream)
			res := g.do(tt.method, tt.path, tt.body, tt.headers...)
			readAll(t, res)
			line := g.logLine()
			for k, want := range tt.want {
				if line[k] != want {
					t.Errorf("%s is %v, want %v, in %v", k, line[k], want, line)
				}
			}
			for _, k := range tt.absent {
				if v, there := line[k]; there {
					t.Errorf("%s is there: %v", k, v)
				}
			}
			if line["id"] != res.Header.Get("X-Request-Id") || line["id"] == "" {
				t.Errorf("logged the id %v, told the client %q", line["id"], res.Header.Get("X-Request-Id"))
			}
			if d, ok := line["duration_ms"].(float64); !ok || d <= 0 {
				t.Errorf("duration_ms is %v", line["duration_ms"])
			}
			_, asked := line["upstream_status"]
			if first, ok := line["first_byte_ms"].(float64); ok != asked || asked && first <= 0 {
				t.Errorf("first_byte_ms is %v, upstream_status %v", line["first_byte_ms"], line["upstream_status"])
			} else if first > line["duration_ms"].(float64) {
				t.Errorf("first_byte_ms %v is after duration_ms %v", first, line["duration_ms"])
			}
		})
	}
}

func TestLogOpenRoutesQuietly(t *testing.T) {
	g := newGateway(t, answerJSON(200, ""))
	for _, path := range []string{"/health", "/ready", "/status", "/metrics"} {
		readAll(t, g.do("GET", path, ""))
	}
	for _, line := range g.logLines(4) {
		if line["level"] != "DEBUG" {
			t.Errorf("logged %v", line)
		}
	}
}

func TestRequestID(t *testing.T) {
	for in, kept := range map[string]bool{
		"abc": true, "A-b_c.d:9": true, strings.Repeat("a", 128): true,
		"": false, strings.Repeat("a", 129): false, "a b": false, "a\"b": false, "é": false, "a\tb": false, "a/b": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Request-Id", in)
		got := requestID(r)
		if kept != (got == in) || !kept && !strings.HasPrefix(got, "req_") {
			t.Errorf("the id %q became %q; kept: %v", in, got, kept)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	if a, b := requestID(r), requestID(r); a == b {
		t.Errorf("two requests have the id %q", a)
	}
}

// The client's id reaches the upstream; the gateway's own is the answer's.
func TestRequestIDTravels(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "theirs")
		answerJSON(200, completion("hi"))(w, r)
	})
	res, _ := g.chat(`{"messages":[]}`, "X-Request-Id: mine")
	if got := res.Header["X-Request-Id"]; !slices.Equal(got, []string{"mine"}) {
		t.Errorf("X-Request-Id %q, want the client's", got)
	}
	if got := res.Header.Get("X-Upstream-Request-Id"); got != "theirs" {
		t.Errorf("X-Upstream-Request-Id %q", got)
	}
	if got := g.last().Header.Get("X-Request-Id"); got != "mine" {
		t.Errorf("the upstream got X-Request-Id %q", got)
	}
}

func TestLogBodies(t *testing.T) {
	logBodies := func(c *config) { c.LogBodies = true }
	t.Run("whole", func(t *testing.T) {
		g := newGateway(t, answerJSON(200, completion("hi")), logBodies)
		g.chat(`{"messages":[{"content":"` + testKey + `"}]}`)
		line := g.logLine()
		if want := `{"messages":[{"content":"` + strings.Repeat("*", len(testKey)) + `"}]}`; line["request_body"] != want {
			t.Errorf("request_body is %v, want %s", line["request_body"], want)
		}
		if line["response_body"] != completion("hi") {
			t.Errorf("response_body is %v", line["response_body"])
		}
	})
	t.Run("a stream", func(t *testing.T) {
		g := newGateway(t, answerStream(textChunk("a"), finishChunk, doneEvent), logBodies)
		g.chat(streamRequest)
		if got, want := g.logLine()["response_body"], textChunk("a")+finishChunk+doneEvent; got != want {
			t.Errorf("response_body is %q, want %q", got, want)
		}
	})
	// A key that lies across the cut is not shown in part.
	t.Run("cut", func(t *testing.T) {
		g := newGateway(t, answerJSON(200, completion(strings.Repeat("x", 20_000))), logBodies)
		body := `{"messages":[],"x":"`
		body += strings.Repeat("x", maxShownBody-len(body)-10) + testKey + strings.Repeat("y", 20_000) + `"}`
		g.chat(body)
		line := g.logLine()
		want := body[:maxShownBody-10] + "**********"
		if got := line["request_body"]; got != want {
			t.Errorf("request_body has %d bytes and ends in %q", len(got.(string)), got.(string)[len(got.(string))-40:])
		}
		if got := line["response_body"].(string); len(got) != maxShownBody || !strings.HasPrefix(completion(strings.Repeat("x", 20_000)), got) {
			t.Errorf("response_body has %d bytes", len(got))
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		g := newGateway(t, answerJSON(200, completion("an answer")))
		g.chat(`{"messages":[{"role":"user","content":"a question"}]}`)
		g.logLine()
		if log := g.log.String(); strings.Contains(log, "an answer") || strings.Contains(log, "a question") {
			t.Errorf("prompts are in the log: %s", log)
		}
	})
}

// A client that puts its key where a name belongs finds it in no log.
func TestKeysAsNames(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("hi")))
	g.ok(chatPath, `{"model":"`+testKey+`","messages":[{"role":"user","content":"hi"}]}`, "X-Session-Id: "+testKey)
	line := g.logLine()
	if model, session := line["model"].(string), line["session"].(string); strings.Contains(model+session, testKey) || model == "" || session == "" {
		t.Errorf("logged %v", line)
	}
}
