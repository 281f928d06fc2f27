package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A vendorClient is one of the dialects that are converted, as its clients speak
// it.
type vendorClient struct {
	name                   string
	path, body             string
	streamPath, streamBody string
	check                  func(t *testing.T, stream string) heard // of a stream that has begun
	ping                   string
}

// heard is what a client has understood of a stream.
type heard struct {
	text   string
	failed bool
}

var vendorClients = []vendorClient{
	{"anthropic", messagesPath, anthropicHi, messagesPath, anthropicHiStream, func(t *testing.T, stream string) heard {
		seen := checkAnthropicStream(t, []byte(stream))
		if failed := seen.failure != ""; failed == strings.Contains(stream, "message_stop") {
			t.Errorf("an error or message_stop ends the stream, and not both:\n%s", stream)
		}
		return heard{seen.all("text"), seen.failure != ""}
	}, "event: ping\ndata: {\"type\":\"ping\"}\n\n"},
	{"gemini", geminiPath, geminiHi, geminiSSE, geminiHi, func(t *testing.T, stream string) heard {
		read := checkGeminiStream(t, true, []byte(stream))
		return heard{read.text[0], read.errorCode != 0}
	}, ": keep-alive\n\n"},
	{"gemini array", geminiPath, geminiHi, geminiArray, geminiHi, func(t *testing.T, stream string) heard {
		read := checkGeminiStream(t, false, []byte(stream))
		return heard{read.text[0], read.errorCode != 0}
	}, " "},
	{"responses", responsesPath, responsesHi, responsesPath, responsesHiStream, func(t *testing.T, stream string) heard {
		read := checkResponsesStream(t, []byte(stream))
		if read.status != "completed" && read.status != "failed" {
			t.Errorf("status %q", read.status)
		}
		said := ""
		for _, frame := range strings.Split(stream, "\n\n") {
			if data, ok := strings.CutPrefix(frame, "event: response.output_text.delta\ndata: "); ok {
				said += text(member([]byte(data), "delta"))
			}
		}
		return heard{said, read.status == "failed"}
	}, ": keep-alive\n\n"},
}

// errorOf is what a dialect's client reads of an error's body: its type or
// status, and its code.
func errorOf(t *testing.T, name, body string) string {
	t.Helper()
	e := []byte(at(t, body, "error"))
	if checkJSON([]byte(body)) != nil || text(member(e, "message")) == "" {
		t.Errorf("%s: the error is %s", name, body)
	}
	switch name {
	case "anthropic":
		if at(t, body, "type") != `"error"` || !strings.HasPrefix(at(t, body, "request_id"), `"req_`) {
			t.Errorf("the error's frame is %s", body)
		}
		return text(member(e, "type"))
	case "responses":
		return text(member(e, "type")) + " " + text(member(e, "code"))
	}
	return string(member(e, "code")) + " " + text(member(e, "status"))
}

// The matrix of dialects F.2, before the stream is committed (AC-12).
func TestErrorMatrix(t *testing.T) {
	detail := func(typ, code, message string) string {
		return `{"error":{"message":"` + message + `","type":"` + typ + `","param":null,"code":"` + code + `"}}`
	}
	plain := `{"error":{"message":"no"}}`
	for _, tt := range []struct {
		name                         string
		status                       int
		body                         string
		responses, anthropic, gemini string // status, then what errorOf reads
	}{
		{"400", 400, detail("invalid_request_error", "odd", "no"), "400 invalid_request_error odd", "400 invalid_request_error", "400 400 INVALID_ARGUMENT"},
		{"overflow", 400, detail("invalid_request_error", "", "prompt is too long"), "400 invalid_request_error context_length_exceeded", "400 invalid_request_error", "400 400 INVALID_ARGUMENT"},
		{"401 of our key", 401, plain, "502 upstream_error upstream_auth", "502 api_error", "503 503 UNAVAILABLE"},
		{"403 of our key", 403, plain, "502 upstream_error upstream_auth", "502 api_error", "503 503 UNAVAILABLE"},
		{"402", 402, plain, "402 insufficient_quota ", "402 billing_error", "400 400 FAILED_PRECONDITION"},
		{"404 with an error", 404, plain, "404 invalid_request_error model_not_found", "404 not_found_error", "404 404 NOT_FOUND"},
		{"404 page", 404, "<html><title>x</title></html>", "502 upstream_error upstream_malformed", "502 api_error", "503 503 UNAVAILABLE"},
		{"405 empty", 405, "", "502 upstream_error upstream_malformed", "502 api_error", "503 503 UNAVAILABLE"},
		{"408", 408, plain, "504 timeout upstream_timeout", "504 timeout_error", "504 504 DEADLINE_EXCEEDED"},
		{"409", 409, plain, "409 invalid_request_error ", "409 conflict_error", "409 409 ABORTED"},
		{"413", 413, plain, "413 invalid_request_error request_too_large", "413 request_too_large", "400 400 INVALID_ARGUMENT"},
		{"422", 422, `{"detail":[{"loc":["body"],"msg":"no"}]}`, "400 invalid_request_error ", "400 invalid_request_error", "400 400 INVALID_ARGUMENT"},
		{"429", 429, plain, "429 rate_limit_error rate_limit_exceeded", "429 rate_limit_error", "429 429 RESOURCE_EXHAUSTED"},
		{"429 without quota", 429, detail("insufficient_quota", "insufficient_quota", "no"), "429 insufficient_quota insufficient_quota", "429 rate_limit_error", "429 429 RESOURCE_EXHAUSTED"},
		{"500", 500, plain, "500 server_error ", "500 api_error", "500 500 INTERNAL"},
		{"501", 501, plain, "501 server_error ", "500 api_error", "501 501 UNIMPLEMENTED"},
		{"502", 502, "<html>bad gateway", "502 upstream_error ", "502 api_error", "503 503 UNAVAILABLE"},
		{"522", 522, "", "502 upstream_error ", "502 api_error", "503 503 UNAVAILABLE"},
		{"503", 503, plain, "503 server_error server_is_overloaded", "529 overloaded_error", "503 503 UNAVAILABLE"},
		{"529", 529, plain, "503 server_error server_is_overloaded", "529 overloaded_error", "503 503 UNAVAILABLE"},
		{"504", 504, plain, "504 timeout upstream_timeout", "504 timeout_error", "504 504 DEADLINE_EXCEEDED"},
		{"418", 418, plain, "400 invalid_request_error ", "400 invalid_request_error", "400 400 INVALID_ARGUMENT"},
		{"200 with an error", 200, `{"error":{"message":"no","type":"rate_limit_error"}}`, "429 rate_limit_error rate_limit_exceeded", "429 rate_limit_error", "429 429 RESOURCE_EXHAUSTED"},
		{"200 with nonsense", 200, `{"choices":[`, "502 upstream_error upstream_malformed", "502 api_error", "503 503 UNAVAILABLE"},
		{"200 with a page", 200, "<html><title>Welcome</title>", "502 upstream_error upstream_malformed", "502 api_error", "503 503 UNAVAILABLE"},
		{"200 without choices", 200, `{"choices":[]}`, "502 upstream_error upstream_malformed", "502 api_error", "503 503 UNAVAILABLE"},
		{"gone", 0, "", "502 upstream_error upstream_unreachable", "502 api_error", "503 503 UNAVAILABLE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			})
			want := map[string]string{"anthropic": tt.anthropic, "gemini": tt.gemini, "gemini array": tt.gemini, "responses": tt.responses}
			for _, c := range vendorClients {
				for _, ask := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
					res, body := g.post(ask[0], ask[1])
					if got := fmt.Sprint(res.StatusCode, " ", errorOf(t, c.name, body)); got != want[c.name] {
						t.Errorf("%s on %s: %s, want %s: %s", c.name, ask[0], got, want[c.name], body)
					}
					if ct := res.Header.Get("Content-Type"); ct != "application/json" {
						t.Errorf("%s: Content-Type %q", c.name, ct)
					}
				}
				if tt.name == "429 without quota" {
					res, _ := g.post(c.path, c.body)
					if c.name != "gemini" && c.name != "gemini array" && res.Header.Get("X-Should-Retry") != "false" {
						t.Errorf("%s may try again: %v", c.name, res.Header)
					}
				}
			}
		})
	}
}

// A prompt that the upstream's filter refuses is an error, but an answer in
// Gemini (B-90).
func TestRefusedPrompt(t *testing.T) {
	g := newGateway(t, answerJSON(400, `{"error":{"message":"filtered","type":"invalid_request_error","param":"prompt","code":"content_filter"}}`))
	for _, path := range []string{geminiPath, geminiSSE, geminiArray} {
		res, got := g.post(path, geminiHi)
		object := got
		switch path {
		case geminiSSE:
			checkGeminiStream(t, true, []byte(got))
			object = strings.TrimPrefix(got, "data: ")
		case geminiArray:
			checkGeminiStream(t, false, []byte(got))
			object = at(t, got, "0")
		}
		if res.StatusCode != 200 {
			t.Errorf("%s: status %d", path, res.StatusCode)
		}
		wants(t, object, map[string]string{"promptFeedback.blockReason": `"SAFETY"`, "candidates": "", "modelVersion": `"m"`})
	}
	if res, got := g.post(messagesPath, anthropicHi); res.StatusCode != 400 || at(t, got, "error.type") != `"invalid_request_error"` {
		t.Errorf("anthropic: %d %s", res.StatusCode, got)
	}
	if res, got := g.post(responsesPath, responsesHi); res.StatusCode != 400 || at(t, got, "error.code") != `"content_filter"` {
		t.Errorf("responses: %d %s", res.StatusCode, got)
	}
}

// What the gateway refuses itself has the shape of the path's dialect.
func TestOwnErrors(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")), func(c *config) { c.MaxBodyBytes = 2000 })
	for _, c := range vendorClients {
		big := strings.Replace(c.body, "hi", strings.Repeat("x", 4000), 1)
		for what, tt := range map[string]struct {
			method, path, body string
			headers            []string
			want               map[string]string
		}{
			"no key": {"POST", c.path, c.body, []string{"Authorization: "}, map[string]string{
				"anthropic": "401 authentication_error", "gemini": "401 401 UNAUTHENTICATED", "responses": "401 invalid_request_error invalid_api_key"}},
			"wrong key": {"POST", c.path, c.body, []string{"Authorization: Bearer nobody-knows-this-one"}, map[string]string{
				"anthropic": "401 authentication_error", "gemini": "401 401 UNAUTHENTICATED", "responses": "401 invalid_request_error invalid_api_key"}},
			"no JSON": {"POST", c.path, `{"model":`, nil, map[string]string{
				"anthropic": "400 invalid_request_error", "gemini": "400 400 INVALID_ARGUMENT", "responses": "400 invalid_request_error invalid_json"}},
			"too big": {"POST", c.path, big, nil, map[string]string{
				"anthropic": "413 request_too_large", "gemini": "413 413 INVALID_ARGUMENT", "responses": "413 invalid_request_error request_too_large"}},
			"method": {"PATCH", c.path, "", nil, map[string]string{
				"anthropic": "405 invalid_request_error", "gemini": "405 405 INVALID_ARGUMENT", "responses": "405 invalid_request_error method_not_allowed"}},
			"compression": {"POST", c.path, c.body, []string{"Content-Encoding: br"}, map[string]string{
				"anthropic": "415 invalid_request_error", "gemini": "415 415 INVALID_ARGUMENT", "responses": "415 invalid_request_error unsupported_encoding"}},
		} {
			t.Run(c.name+" "+what, func(t *testing.T) {
				res := g.do(tt.method, tt.path, tt.body, tt.headers...)
				body := readAll(t, res)
				want := tt.want[strings.TrimSuffix(c.name, " array")]
				if got := fmt.Sprint(res.StatusCode, " ", errorOf(t, c.name, body)); got != want {
					t.Errorf("%s, want %s: %s", got, want, body)
				}
				if c.name == "anthropic" && res.Header.Get("Request-Id") != text([]byte(at(t, body, "request_id"))) {
					t.Errorf("the header names %q, the body is %s", res.Header.Get("Request-Id"), body)
				}
				if what == "method" && !strings.Contains(res.Header.Get("Allow"), "POST") {
					t.Errorf("Allow: %q", res.Header.Get("Allow"))
				}
			})
		}
	}
	for path, want := range map[string]string{"/v1beta/models/m:embedText": "404 404 NOT_FOUND", "/v1beta/models/m": "404 404 NOT_FOUND"} {
		res, body := g.post(path, geminiHi)
		if got := fmt.Sprint(res.StatusCode, " ", errorOf(t, "gemini", body)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if n := len(g.upstream.all()); n != 0 {
		t.Errorf("the upstream saw %d of these", n)
	}
}

// The headers with which an upstream says when to try again (dialects F.5).
func TestRetryHeaders(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Retry-After": "17", "X-Request-Id": "up-1", "X-Ratelimit-Limit-Requests": "60", "X-Ratelimit-Remaining-Requests": "0", "X-Ratelimit-Reset-Requests": "6m0s",
		} {
			w.Header().Set(name, value)
		}
		answerJSON(429, `{"error":{"message":"slow down"}}`)(w, r)
	})
	for _, c := range vendorClients {
		res, body := g.post(c.streamPath, c.streamBody)
		h := res.Header
		if h.Get("Retry-After") != "17" || h.Get("X-Upstream-Request-Id") != "up-1" || !strings.HasPrefix(h.Get("X-Request-Id"), "req_") {
			t.Errorf("%s: headers %v", c.name, h)
		}
		switch c.name {
		case "anthropic":
			reset, err := time.Parse(time.RFC3339, h.Get("Anthropic-Ratelimit-Requests-Reset"))
			if in := time.Until(reset); err != nil || in < 5*time.Minute || in > 7*time.Minute || h.Get("Anthropic-Ratelimit-Requests-Limit") != "60" || h.Get("X-Ratelimit-Limit-Requests") != "" {
				t.Errorf("anthropic: headers %v", h)
			}
		case "responses":
			if h.Get("X-Ratelimit-Limit-Requests") != "60" {
				t.Errorf("responses: headers %v", h)
			}
		default: // B-111
			wants(t, body, map[string]string{"error.details.0.retryDelay": `"17s"`})
			if h.Get("X-Ratelimit-Limit-Requests") != "" {
				t.Errorf("gemini: headers %v", h)
			}
		}
	}
}

func TestRetryAfterOf(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"17": 17 * time.Second, "1.5": 1500 * time.Millisecond, "Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "": 0, "soon": 0, "-3": 0, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

// A silent upstream does not leave the client without a sign (dialects 0-9, AC-18).
func TestTranslatedPing(t *testing.T) {
	for _, c := range vendorClients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first := make(chan struct{})
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				answerStream("")(w, r)
				<-first // the client has had a keep-alive before anything else
				answerStream(textChunk("A"))(w, r)
				time.Sleep(100 * time.Millisecond)
				answerStream(finishChunk, doneEvent)(w, r)
			}, func(cfg *config) { cfg.StreamPing.Translated = 10 * time.Millisecond })
			res := g.do("POST", c.streamPath, c.streamBody)
			begin := make([]byte, len(c.ping))
			_, err := io.ReadFull(res.Body, begin)
			close(first)
			if err != nil || string(begin) != c.ping || res.StatusCode != 200 {
				t.Fatalf("%d %q, %v", res.StatusCode, begin, err)
			}
			rest := readAll(t, res)
			if !strings.Contains(rest, c.ping) {
				t.Errorf("no keep-alive between events: %q", rest)
			}
			if c.ping == ": keep-alive\n\n" {
				rest = strings.ReplaceAll(rest, c.ping, "")
			}
			if c.name == "anthropic" {
				rest = strings.TrimPrefix(rest, strings.Repeat(c.ping, strings.Index(rest, "event: message_start")/len(c.ping)))
			}
			if said := c.check(t, strings.TrimLeft(rest, " ")); said.failed || said.text != "A" {
				t.Errorf("the client read %+v of\n%s", said, rest)
			}
		})
	}
}

// After a keep-alive an error can't have a status any more; it has its frame.
func TestErrorAfterPing(t *testing.T) {
	for _, c := range vendorClients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pinged := make(chan struct{})
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				answerStream("")(w, r)
				<-pinged
				answerStream(`data: {"error":{"message":"too busy","code":503}}`+"\n\n")(w, r)
			}, func(cfg *config) { cfg.StreamPing.Translated = 10 * time.Millisecond })
			res := g.do("POST", c.streamPath, c.streamBody)
			_, err := io.ReadFull(res.Body, make([]byte, len(c.ping)))
			close(pinged)
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%d, %v", res.StatusCode, err)
			}
			rest := readAll(t, res)
			if !strings.Contains(rest, "too busy") || strings.Contains(rest, "message_stop") || strings.Contains(rest, "completed\"") {
				t.Errorf("the stream ends %q", rest)
			}
		})
	}
}

// A client that leaves ends the upstream's work (F-15).
func TestLeavingTranslatedStream(t *testing.T) {
	for _, c := range vendorClients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			over := make(chan struct{})
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(over)
				answerStream(textChunk("A"), textChunk("B"))(w, r)
				<-r.Context().Done()
			})
			res := g.do("POST", c.streamPath, c.streamBody)
			if _, err := res.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			select {
			case <-over:
			case <-time.After(10 * time.Second):
				t.Fatal("the upstream still works")
			}
			eventually(t, "the log line", func() bool { return strings.Contains(g.log.String(), `"outcome":"client_closed"`) })
		})
	}
}

// So does one that leaves before anything has come to it, whatever it asked for
// (AC-28).
func TestLeavingBeforeTheAnswer(t *testing.T) {
	for _, c := range vendorClients {
		for what, tt := range map[string]struct {
			path, body, sent string // sent is what the upstream answers before it waits
		}{
			"before the headers":         {c.streamPath, c.streamBody, ""},
			"before the headers, whole":  {c.path, c.body, ""},
			"before the first token":     {c.streamPath, c.streamBody, ": wait\n\n"},
			"in the middle of the whole": {c.path, c.body, textChunk("A")},
		} {
			t.Run(c.name+" "+what, func(t *testing.T) {
				t.Parallel()
				arrived, over := make(chan struct{}), make(chan struct{})
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					defer close(over)
					if tt.sent != "" {
						answerStream(tt.sent)(w, r)
					}
					close(arrived)
					<-r.Context().Done()
				})
				conn := g.dial("POST "+tt.path, tt.body, "X-Session-Id: s", fmt.Sprint("Content-Length: ", len(tt.body)))
				<-arrived
				conn.Close()
				select {
				case <-over:
				case <-time.After(10 * time.Second):
					t.Fatal("the upstream still works")
				}
				g.mustLog(`"outcome":"client_closed"`)
				if res := g.do("GET", "/context/s", ""); res.StatusCode != 404 {
					t.Errorf("a turn of which nothing was delivered is kept: %d", res.StatusCode)
				}
			})
		}
	}
}

// A wait that an upstream tells only in its limits becomes a Retry-After, in
// every dialect; what belongs to OpenAI stays with OpenAI's clients (dialects
// F.5).
func TestRetryHeadersFromLimits(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Ratelimit-Reset-Tokens", "1.5s")
		w.Header().Set("Openai-Processing-Ms", "12")
		answerJSON(429, `{"error":{"message":"slow down"}}`)(w, r)
	})
	for _, c := range vendorClients {
		res, body := g.post(c.path, c.body)
		if res.Header.Get("Retry-After") != "2" {
			t.Errorf("%s: headers %v", c.name, res.Header)
		}
		if kept := res.Header.Get("Openai-Processing-Ms") != ""; kept != (c.name == "responses") {
			t.Errorf("%s: headers %v", c.name, res.Header)
		}
		if strings.HasPrefix(c.name, "gemini") {
			wants(t, body, map[string]string{"error.details.0.retryDelay": `"2s"`})
		}
	}
}

// Azure names its refusal of a prompt in an inner error (dialects B-90).
func TestInnerErrorIsAPromptRefusal(t *testing.T) {
	g := newGateway(t, answerJSON(400, `{"error":{"message":"filtered","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`))
	res := g.do("POST", "/v1beta/models/m:generateContent", `{"contents":[{"parts":[{"text":"hi"}]}]}`)
	if body := readAll(t, res); res.StatusCode != 200 || !strings.Contains(body, `"blockReason":"SAFETY"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// On the chat path the upstream judges models, in every dialect's body.
func TestChatPathWithoutModel(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	res, body := g.chat(`{"input":[{"role":"model","content":"x"},{"role":"user","content":"hi"}]}`)
	want := `{"messages":[{"role":"assistant","content":"x"},{"role":"user","content":"hi"}]}`
	if res.StatusCode != 200 || g.last().Body != want {
		t.Errorf("%d %s; the upstream got %s, want %s", res.StatusCode, body, g.last().Body, want)
	}
}

// A field that was left out in vain is not named as left out.
func TestDroppedOnlyWhenItHelped(t *testing.T) {
	g := newGateway(t, answerJSON(400, `{"error":{"message":"unknown field top_k"}}`))
	res := g.do("POST", "/v1/messages", `{"model":"m","max_tokens":5,"top_k":3,"messages":[{"role":"user","content":"hi"}]}`)
	readAll(t, res)
	if got := res.Header.Get("X-APIProxy-Dropped"); res.StatusCode != 400 || got != "" || len(g.upstream.all()) != 2 {
		t.Errorf("%d, dropped %q, after %d calls", res.StatusCode, got, len(g.upstream.all()))
	}
}
