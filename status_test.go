package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// statusRows asks for what the key of the headers did, until it has n rows: they
// are written after the answers.
func (g *gateway) statusRows(n int, query string, headers ...string) *statusView {
	g.t.Helper()
	var v *statusView
	eventually(g.t, fmt.Sprintf("the status with %d rows", n), func() bool {
		v = new(statusView)
		res := g.do("GET", "/status"+query, "", headers...)
		body := readAll(g.t, res)
		if err := json.Unmarshal([]byte(body), v); err != nil || res.StatusCode != 200 {
			g.t.Fatalf("GET /status%s = %d %s (%v)", query, res.StatusCode, body, err)
		}
		return len(v.Requests) >= n
	})
	return v
}

func TestStatusRows(t *testing.T) {
	body := `{"model":"m","messages":[]}`
	for _, tt := range []struct {
		name     string
		upstream http.HandlerFunc
		method   string
		path     string
		body     string
		headers  []string
		want     string // some of the row's fields
		absent   []string
	}{
		{"an answer", answerJSON(200, completion("hi")), "POST", "/v1/chat/completions", body, []string{"X-Request-Id: r1", "X-Session-Id: s1"},
			`{"id":"r1","method":"POST","route":"/v1/chat/completions","status":200,"outcome":"ok","dialect":"openai","model":"m","stream":false,"session":"s1","prompt_tokens":3,"completion_tokens":2}`,
			[]string{"error", "code"}},
		{"a stream", answerStream(textChunk("a"), finishChunk, doneEvent), "POST", "/v1/chat/completions", streamRequest, nil,
			`{"status":200,"stream":true,"outcome":"ok"}`, []string{"prompt_tokens", "completion_tokens", "session"}},
		{"Anthropic", answerJSON(200, completion("hi")), "POST", "/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`, nil,
			`{"route":"/v1/messages","dialect":"anthropic","prompt_tokens":3}`, nil},
		{"a bad body", answerJSON(200, ""), "POST", "/v1/chat/completions", `{`, nil,
			`{"status":400,"outcome":"ok","code":"invalid_json"}`, []string{"first_byte_ms"}},
		{"an upstream's error", answerJSON(429, `{"error":{"message":"slow down, `+testUpstream+`","type":"rate_limit_error","code":"slow"}}`), "POST", "/v1/chat/completions", body, nil,
			`{"status":429,"outcome":"upstream_error","error":"slow down, ` + strings.Repeat("*", len(testUpstream)) + `"}`, nil},
		{"a broken stream", answerStream(textChunk("a")), "POST", "/v1/chat/completions", streamRequest, nil,
			`{"status":200,"outcome":"incomplete","code":"upstream_stream_interrupted"}`, nil},
		{"no upstream", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "POST", "/v1/chat/completions", body, nil,
			`{"status":502,"outcome":"upstream_error","code":"upstream_unreachable","error":"the upstream can't be reached, or broke off before it answered"}`, nil},
		{"a forwarded path", answerJSON(200, `{"data":[]}`), "POST", "/embeddings", `{"input":"x"}`, nil,
			`{"route":"/v1/{path...}","status":200}`, []string{"model", "dialect"}},
		{"an unknown path", answerJSON(200, ""), "GET", "/nothing", "", nil, `{"route":"/","status":404,"code":"unknown_url"}`, nil},
		{"a method of its own", answerJSON(200, "{}"), "PROPFIND-AND-MORE-THAN-THAT", "/v1/x", "", nil, `{"method":"PROPFIND-AND-MOR"}`, nil},
		{"a long model", answerJSON(200, completion("hi")), "POST", "/v1/chat/completions", `{"messages":[],"model":"a\u001b` + strings.Repeat("é", 200) + `"}`, nil,
			`{"model":"a` + strings.Repeat("é", 63) + `"}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, tt.upstream)
			readAll(t, g.do(tt.method, tt.path, tt.body, tt.headers...))
			v := g.statusRows(1, "")
			row, err := json.Marshal(v.Requests[0])
			if err != nil {
				t.Fatal(err)
			}
			var got, want map[string]any
			json.Unmarshal(row, &got)
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			for k, value := range want {
				if got[k] != value {
					t.Errorf("%s is %v, want %v, in %s", k, got[k], value, row)
				}
			}
			for _, k := range tt.absent {
				if value, there := got[k]; there {
					t.Errorf("%s is there: %v", k, value)
				}
			}
			if d, _ := got["duration_ms"].(float64); d <= 0 {
				t.Errorf("duration_ms is %v", got["duration_ms"])
			}
			if age := time.Since(v.Requests[0].Time); age < 0 || age > time.Minute {
				t.Errorf("the request came %v ago", age)
			}
		})
	}
}

// A caller sees what its own key did, and nothing of any other.
func TestStatusBelongsToKey(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("hi")))
	g.chat(greeting, "X-Request-Id: mine")
	g.chat(greeting, "X-Request-Id: theirs", "Authorization: Bearer "+otherKey)
	g.chat(greeting, "X-Request-Id: nobody's", "Authorization: Bearer wrong")
	for key, want := range map[string]string{testKey: "mine", otherKey: "theirs"} {
		v := g.statusRows(1, "", "Authorization: Bearer "+key)
		if len(v.Requests) != 1 || v.Requests[0].ID != want || v.Hour.Requests != 1 || len(v.Minutes) != 1 {
			t.Errorf("%s sees %+v", want, v)
		}
	}
	if v := g.statusRows(1, ""); v.Key != "tester" || v.Store != "memory" {
		t.Errorf("the status is of the key %q and the store %q", v.Key, v.Store)
	}
}

func TestStatusNeedsAKey(t *testing.T) {
	g := newGateway(t, answerJSON(200, ""))
	for _, tt := range []struct {
		method, path, key string
		status            int
	}{
		{"GET", "/status", "", 401}, {"GET", "/status", "wrong", 401}, {"GET", "/openai/status", testKey, 200}, {"HEAD", "/status", testKey, 200},
		{"POST", "/status", testKey, 405}, {"GET", "/status?since=-1", testKey, 400}, {"GET", "/status?since=x", testKey, 400}, {"GET", "/status?since=1&since=1", testKey, 400},
	} {
		res := g.do(tt.method, tt.path, "", "Authorization: Bearer "+tt.key)
		if body := readAll(t, res); res.StatusCode != tt.status {
			t.Errorf("%s %s with the key %q = %d %s, want %d", tt.method, tt.path, tt.key, res.StatusCode, body, tt.status)
		}
	}
}

// A client that asks with the seq of its last answer gets what is new, and looking
// itself is no traffic.
func TestStatusSince(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("hi")))
	v := g.statusRows(0, "")
	if len(v.Requests) != 0 || len(v.Minutes) != 0 || v.Hour.Requests != 0 {
		t.Errorf("before any request: %+v", v)
	}
	for i := range 3 {
		g.chat(greeting, "X-Request-Id: "+strconv.Itoa(i))
		v = g.statusRows(1, "?since="+strconv.FormatInt(v.Seq, 10))
		if len(v.Requests) != 1 || v.Requests[0].ID != strconv.Itoa(i) || v.Requests[0].Seq != v.Seq || v.Hour.Requests != int64(i+1) {
			t.Errorf("after request %d: %+v", i, v)
		}
	}
	if v = g.statusRows(0, "?since="+strconv.FormatInt(v.Seq, 10)); len(v.Requests) != 0 || len(v.Minutes) != 0 {
		t.Errorf("without a new request: %+v", v)
	}
}

func TestStatusBookIsBounded(t *testing.T) {
	b := newStatusBook()
	now := time.Now()
	for i := range statusRows + 50 {
		b.add("a", now, &statusRow{ID: strconv.Itoa(i), Status: 200, Outcome: outcomeOK})
	}
	v := b.view("a", now, 0)
	if len(v.Requests) != statusRows || v.Hour.Requests != statusRows+50 {
		t.Errorf("%d rows of %d requests are kept, want %d", len(v.Requests), v.Hour.Requests, statusRows)
	}
	for i, row := range v.Requests {
		if row.ID != strconv.Itoa(i+50) || i > 0 && row.Seq != v.Requests[i-1].Seq+1 {
			t.Fatalf("row %d is number %d with the id %s", i, row.Seq, row.ID)
		}
	}
	for i := range 2 * statusOwners {
		b.view("a", now, 0) // a is in use
		b.add("key "+strconv.Itoa(i), now.Add(time.Second), &statusRow{Status: 200, Outcome: outcomeOK})
	}
	if len(b.owners) != statusOwners {
		t.Errorf("%d keys are kept, want %d", len(b.owners), statusOwners)
	}
	for name, want := range map[string]int{"a": statusRows, "key 0": 0, "key " + strconv.Itoa(2*statusOwners-1): 1} {
		if got := b.view(name, now, 0); len(got.Requests) != want {
			t.Errorf("%s has %d rows, want %d", name, len(got.Requests), want)
		}
	}
	// The number of a row grows when its key is forgotten in between.
	again := b.view("key 0", now, 0).Seq
	b.add("key 0", now.Add(time.Minute), &statusRow{Status: 200, Outcome: outcomeOK})
	if got := b.view("key 0", now, again); len(got.Requests) != 1 || got.Hour.Requests != 1 || got.Seq <= v.Seq {
		t.Errorf("a key that comes back has %+v", got)
	}
}

func TestStatusMinutes(t *testing.T) {
	b := newStatusBook()
	start := time.Unix(1_800_000_000, 0)
	for i := range 90 {
		at := start.Add(time.Duration(i) * time.Minute)
		b.add("a", at, &statusRow{Status: 200, Outcome: outcomeOK, DurationMS: 100, FirstMS: 10, upstream: true, usage: usage{Known: true, Prompt: 2, Completion: 3}})
		b.add("a", at, &statusRow{Status: 500, Outcome: outcomeOK})
		b.add("a", at, &statusRow{Status: 200, Outcome: outcomeIncomplete})
		b.add("a", at, &statusRow{Status: 499, Outcome: outcomeClientClosed})
	}
	v := b.view("a", start.Add(89*time.Minute), 0)
	if len(v.Minutes) != statusMinutes || !v.Minutes[0].Time.Equal(start.Add(30*time.Minute)) {
		t.Fatalf("%d minutes from %v", len(v.Minutes), v.Minutes[0].Time)
	}
	m := v.Minutes[0]
	if m.Requests != 4 || m.Errors != 2 || m.PromptTokens != 2 || m.CompletionTokens != 3 || v.Hour.Requests != 4*statusMinutes || v.Hour.Errors != 2*statusMinutes {
		t.Errorf("a minute is %+v, the hour %+v", m, v.Hour)
	}
	for _, p := range []*percentiles{m.DurationMS, v.Hour.DurationMS} {
		if p == nil || p.P50 < 64 || p.P99 > 128 {
			t.Errorf("of requests that took 100 ms: %+v", p)
		}
	}
	if v := b.view("a", start.Add(3*time.Hour), 0); len(v.Minutes) != 0 || v.Hour.Requests != 0 || v.Hour.DurationMS != nil {
		t.Errorf("hours later: %+v", v)
	}
}

func TestLatencies(t *testing.T) {
	for bucket := range len(latencies{}) {
		if got := latencyBucket(latencyBound(bucket)); got != bucket {
			t.Errorf("%v ms, where bucket %d begins, are in bucket %d", latencyBound(bucket), bucket, got)
		}
	}
	if got := latencyBucket(1e9); got != len(latencies{})-1 {
		t.Errorf("eleven days are in bucket %d", got)
	}
	var l latencies
	if p := l.percentiles(); p != nil {
		t.Errorf("of nothing: %+v", p)
	}
	for i := 1; i <= 1000; i++ {
		l.add(float64(i))
	}
	p := l.percentiles()
	for _, tt := range []struct{ got, want float64 }{{p.P50, 500}, {p.P90, 900}, {p.P99, 990}} {
		if math.Abs(tt.got-tt.want) > tt.want/20 {
			t.Errorf("a percentile is %v, want about %v", tt.got, tt.want)
		}
	}
}

// Recording costs a request next to nothing.
func TestStatusAllocatesNothing(t *testing.T) {
	b := newStatusBook()
	row := statusRow{ID: "r", Status: 200, Outcome: outcomeOK, upstream: true}
	now := time.Now()
	for range statusRows {
		b.add("a", now, &row)
	}
	if n := testing.AllocsPerRun(100, func() { b.add("a", now, &row) }); n != 0 {
		t.Errorf("a row costs %v allocations", n)
	}
}

func BenchmarkStatus(b *testing.B) {
	book := newStatusBook()
	row := statusRow{ID: "r", Status: 200, Outcome: outcomeOK, upstream: true, DurationMS: 12}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		book.add("a", now, &row)
	}
}
