package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The matrix of errors for OpenAI clients (dialects F.2), and the ways in which
// upstreams report them (F.1).
func TestUpstreamErrorMatrix(t *testing.T) {
	const (
		operator = "operator must check A4F_API_KEY"
		wrongURL = "operator must check A4F_BASE_URL"
		html     = "<html><head><title>\n 502 Bad Gateway </title></head><body>nginx at 10.0.0.7</body></html>"
	)
	shaped := func(more string) string { return `{"error":{"message":"said so","type":"t"` + more + `}}` }
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   int    // 0 = as it is, status and bytes
		typ    string // when not as it is
		code   string
		says   string
	}{
		// OpenAI's own shape passes as it is.
		{"400", 400, shaped(`,"param":"p","code":"c"`), 0, "", "", ""},
		{"404", 404, shaped(`,"code":"model_not_found"`), 0, "", "", ""},
		{"409", 409, shaped(""), 0, "", "", ""},
		{"418", 418, shaped(""), 0, "", "", ""},
		{"422", 422, shaped(""), 0, "", "", ""},
		{"429", 429, shaped(""), 0, "", "", ""},
		{"500", 500, shaped(""), 0, "", "", ""},
		{"503 with spaces", 503, " { \"error\" : {\"message\":\"x\\u003c\" , \"more\":[1e2] } } \n", 0, "", "", ""},
		{"no message text", 400, `{"error":{"message":"","type":"t"}}`, 0, "", "", ""},
		{"Anthropic's shape", 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, 0, "", "", ""},

		// Our key is not the client's affair.
		{"401", 401, shaped(`,"code":"invalid_api_key"`), 502, "upstream_error", "upstream_auth", operator},
		{"403", 403, shaped(""), 502, "upstream_error", "upstream_auth", operator},
		{"401 without a body", 401, "", 502, "upstream_error", "upstream_auth", operator},
		{"403 page", 403, html, 502, "upstream_error", "upstream_auth", operator},

		// Other shapes.
		{"flat", 400, `{"object":"error","message":"too bad","type":"BadRequestError","param":"n","code":400}`, 400, "BadRequestError", "", "too bad"},
		{"numeric code of its own", 400, `{"message":"too bad","code":1210}`, 400, "invalid_request_error", "1210", "too bad"},
		{"error is a string", 400, `{"error":"too bad"}`, 400, "invalid_request_error", "", "too bad"},
		{"error is a string beside a message", 400, `{"error":"Bad Request","message":"too bad"}`, 400, "invalid_request_error", "", "Bad Request"},
		{"error says nothing", 400, `{"error":{"code":"c"},"message":"too bad"}`, 400, "invalid_request_error", "c", "too bad"},
		{"message is an object", 400, `{"error":{"message":{"why": "bad"},"type":"t"}}`, 400, "t", "", `{"why": "bad"}`},
		{"message is a list", 400, `{"error":{"message":["bad",1]}}`, 400, "invalid_request_error", "", `["bad",1]`},
		{"detail text", 404, `{"detail":"Not Found"}`, 404, "invalid_request_error", "model_not_found", "Not Found"},
		{"detail of a field", 422, `{"detail":[{"loc":["body","messages",0,"role"],"msg":"no such role"}]}`, 422, "invalid_request_error", "", "no such role"},
		{"detail list", 422, `{"detail":[{"loc":["body"],"msg":"field required"},{"msg":"too long"}]}`, 422, "invalid_request_error", "", "field required; too long"},
		{"errors list", 400, `{"errors":[{"message":"first"},{"message":"second"}]}`, 400, "invalid_request_error", "", "first"},
		{"Gemini's list", 400, `[{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT"}}]`, 400, "invalid_request_error", "", "API key not valid"},
		{"text", 400, "bad model", 400, "invalid_request_error", "", "bad model"},
		{"long text", 500, strings.Repeat("é", 400), 500, "server_error", "", strings.Repeat("é", 250)},
		{"bytes", 500, "\xff\xfe bad", 500, "server_error", "", " bad"},
		{"other JSON", 400, `{"ok":false}`, 400, "invalid_request_error", "", `{"ok":false}`},
		{"nothing", 500, "", 500, "server_error", "", "upstream returned HTTP 500"},
		{"page", 502, html, 502, "upstream_error", "", "502 Bad Gateway"},
		{"page without a title", 503, "<html>x</html>", 503, "server_error", "server_is_overloaded", "upstream returned HTTP 503"},
		{"half of JSON", 500, `{"error":{"message":"sa`, 500, "server_error", "", `{"error":{"message":"sa`},

		// The statuses of the matrix, of errors in another shape.
		{"402", 402, `{"detail":"pay"}`, 402, "insufficient_quota", "", "pay"},
		{"404 page", 404, html, 502, "upstream_error", "upstream_malformed", wrongURL},
		{"404 text", 404, "404 page not found", 502, "upstream_error", "upstream_malformed", wrongURL},
		{"404 without a body", 404, "", 502, "upstream_error", "upstream_malformed", wrongURL},
		{"405 page", 405, html, 502, "upstream_error", "upstream_malformed", wrongURL},
		{"408", 408, `{"detail":"slow"}`, 504, "timeout", "upstream_timeout", "slow"},
		{"409", 409, `{"detail":"busy"}`, 409, "invalid_request_error", "", "busy"},
		{"410", 410, `{"detail":"gone"}`, 400, "invalid_request_error", "", "gone"},
		{"413", 413, `{"detail":"big"}`, 413, "invalid_request_error", "request_too_large", "big"},
		{"429", 429, `{"detail":"wait"}`, 429, "rate_limit_error", "rate_limit_exceeded", "wait"},
		{"429 for lack of money", 429, `{"message":"pay","code":"insufficient_quota"}`, 429, "rate_limit_error", "insufficient_quota", "pay"},
		{"501", 501, `{"detail":"no"}`, 501, "server_error", "", "no"},
		{"504", 504, `{"detail":"late","type":"mine","code":"mine"}`, 504, "timeout", "upstream_timeout", "late"},
		{"520", 520, html, 502, "upstream_error", "", "502 Bad Gateway"},
		{"529", 529, `{"detail":"full"}`, 503, "server_error", "server_is_overloaded", "full"},
		{"599", 599, `{"detail":"odd"}`, 502, "upstream_error", "", "odd"},

		// A context that is too long, in any words (F-20).
		{"overflow by code", 400, `{"message":"no","code":"string_above_max_length"}`, 400, "invalid_request_error", "context_length_exceeded", "no"},
		{"overflow by text", 413, `{"detail":"Maximum context length is 8192 tokens"}`, 400, "invalid_request_error", "context_length_exceeded", "8192"},
		{"overflow as 500", 500, `{"message":"prompt is too long: 9000 tokens","type":"x"}`, 400, "invalid_request_error", "context_length_exceeded", "9000"},
		{"no overflow at 429", 429, `{"detail":"too many tokens per minute"}`, 429, "rate_limit_error", "rate_limit_exceeded", "minute"},
	} {
		for _, stream := range []string{"", "stream"} {
			t.Run(fmt.Sprint(tt.status, " ", tt.name, " ", stream), func(t *testing.T) {
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Ratelimit-Remaining-Requests", "0")
					w.Header().Set("Etag", "x")
					answerJSON(tt.status, tt.body)(w, r)
				})
				sent := greeting
				if stream != "" {
					sent = strings.Replace(greeting, "{", `{"stream":true,`, 1)
				}
				res, body := g.chat(sent)
				if res.Header.Get("X-Ratelimit-Remaining-Requests") != "0" {
					t.Errorf("the rate limit headers are gone: %v", res.Header)
				}
				if n := len(g.upstream.all()); n != 1 {
					t.Errorf("%d calls", n)
				}
				g.mustLog(`"outcome":"upstream_error"`)
				if tt.want == 0 {
					if res.StatusCode != tt.status || body != tt.body {
						t.Errorf("= %d %s, want it as it is", res.StatusCode, body)
					}
					return
				}
				e := errorIn(t, body)
				if res.StatusCode != tt.want || e.Type != tt.typ || codeOf(e) != tt.code || !strings.Contains(e.Message, tt.says) {
					t.Errorf("= %d %s, want %d %s %s saying %q", res.StatusCode, body, tt.want, tt.typ, tt.code, tt.says)
				}
				permanent := tt.says == operator || tt.says == wrongURL || strings.Contains(tt.typ+tt.code, "insufficient_quota")
				if got := res.Header.Get("X-Should-Retry") == "false"; got != permanent {
					t.Errorf("x-should-retry false: %t, want %t", got, permanent)
				}
				if strings.Contains(body, "10.0.0.7") || len(e.Message) > 600 || res.Header.Get("Etag") != "" {
					t.Errorf("it says too much: %s %v", body, res.Header)
				}
			})
		}
	}
}

// A quota that is used up does not come back in a moment.
func TestQuotaIsNotRetried(t *testing.T) {
	for _, field := range []string{"type", "code"} {
		body := `{"error":{"message":"You exceeded your current quota","` + field + `":"insufficient_quota"}}`
		g := newGateway(t, answerJSON(429, body))
		if res, got := g.chat(greeting); res.StatusCode != 429 || got != body || res.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("by %s = %d %s %v", field, res.StatusCode, got, res.Header)
		}
	}
}

// With the client's own key, the upstream's judgement of it is the client's.
func TestUpstreamErrorsInPassthrough(t *testing.T) {
	for _, tt := range []struct {
		status    int
		body      string
		typ, code string // "" = as it is
	}{
		{401, `{"error":{"message":"Incorrect API key","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, "", ""},
		{403, `{"error":{"message":"not yours","type":"t"}}`, "", ""},
		{401, `{"detail":"who?"}`, "authentication_error", "invalid_api_key"},
		{403, `{"detail":"not yours"}`, "permission_error", ""},
		{401, "", "authentication_error", "invalid_api_key"},
		{401, `{"error":{"message":"who?","code":401}} `, "authentication_error", "invalid_api_key"}, // under 200
	} {
		status := tt.status
		if strings.HasSuffix(tt.body, " ") {
			status = 200
		}
		g := newGateway(t, answerJSON(status, tt.body), func(c *config) { c.Auth, c.APIKey, c.ClientKeys = authPassthrough, "", nil })
		res, body := g.chat(greeting)
		if res.StatusCode != tt.status {
			t.Errorf("%d %s = %d %s", tt.status, tt.body, res.StatusCode, body)
		}
		if tt.typ == "" {
			if body != tt.body {
				t.Errorf("%s came as %s", tt.body, body)
			}
		} else if e := errorIn(t, body); e.Type != tt.typ || codeOf(e) != tt.code {
			t.Errorf("%d %s = %s", tt.status, tt.body, body)
		}
	}
}

// An error object under status 200 is an error (dialects F-4).
func TestErrorsInside200(t *testing.T) {
	for _, tt := range []struct {
		body      string
		status    int
		typ, code string
	}{
		{`{"error":{"message":"slow down","code":429}}`, 429, "rate_limit_error", "rate_limit_exceeded"},
		{`{"error":{"message":"slow down","code":"429"}}`, 429, "rate_limit_error", "rate_limit_exceeded"},
		{`{"error":{"message":"slow down","status":"RESOURCE_EXHAUSTED"}}`, 429, "rate_limit_error", "rate_limit_exceeded"},
		{`{"error":{"message":"bad","status":"INVALID_ARGUMENT","code":1}}`, 400, "invalid_request_error", "1"},
		{`{"error":{"message":"off","status":"UNAVAILABLE"}}`, 503, "server_error", "server_is_overloaded"},
		{`{"error":{"message":"late","status":"DEADLINE_EXCEEDED"}}`, 504, "timeout", "upstream_timeout"},
		{`{"error":{"message":"slow","type":"rate_limit_error"}}`, 429, "rate_limit_error", "rate_limit_exceeded"},
		{`{"error":{"message":"full","type":"overloaded_error"}}`, 503, "server_error", "server_is_overloaded"},
		{`{"error":{"message":"down","code":"service_unavailable"}}`, 503, "server_error", "server_is_overloaded"},
		{`{"error":{"message":"bad","type":"invalid_request_error","param":"n"}}`, 400, "invalid_request_error", ""},
		{`{"error":{"message":"who","code":401}}`, 502, "upstream_error", "upstream_auth"},
		{`{"error":{"message":"what"}}`, 502, "upstream_error", ""},
		{`{"error":"what"}`, 502, "upstream_error", ""},
		{`{"error":{"message":""}}`, 502, "upstream_error", ""},
		{`{"message":"what","code":500}`, 500, "server_error", ""},
	} {
		g := newGateway(t, answerJSON(200, tt.body))
		res, body := g.chat(greeting, "X-Session-Id: s")
		e := errorIn(t, body)
		if res.StatusCode != tt.status || e.Type != tt.typ || codeOf(e) != tt.code || e.Message == "" {
			t.Errorf("%s = %d %s, want %d %s %q", tt.body, res.StatusCode, body, tt.status, tt.typ, tt.code)
		}
		if res := g.do("GET", "/context/s", ""); res.StatusCode != 404 {
			t.Errorf("%s left a turn: %d", tt.body, res.StatusCode)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		status  int
		headers []string
		want    string
	}{
		{429, nil, ""},
		{429, []string{"Retry-After: 17"}, "17"},
		{429, []string{"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After-Ms: 5000"}, "Wed, 21 Oct 2026 07:28:00 GMT"},
		{429, []string{"Retry-After-Ms: 1"}, "1"},
		{429, []string{"Retry-After-Ms: 2500"}, "3"},
		{503, []string{"Retry-After-Ms: 2000"}, "2"},
		{529, []string{"Retry-After-Ms: 2000"}, "2"}, // a client sees 503
		{500, []string{"Retry-After-Ms: 2000"}, ""},
		{400, []string{"X-Ratelimit-Reset-Requests: 5"}, ""},
		{429, []string{"X-Ratelimit-Reset-Requests: 5"}, "5"},
		{429, []string{"X-Ratelimit-Reset-Requests: 1.2s"}, "2"},
		{429, []string{"X-Ratelimit-Reset-Tokens: 6m0s"}, "360"},
		{429, []string{"X-Ratelimit-Reset-Tokens: 1h"}, "600"},
		{429, []string{"X-Ratelimit-Reset-Tokens: 1760000000000"}, "600"},
		{429, []string{"X-Ratelimit-Reset-Requests: 20ms", "X-Ratelimit-Reset-Tokens: 7s"}, "7"},
		{429, []string{"X-Ratelimit-Reset-Requests: 8m", "X-Ratelimit-Remaining-Requests: 90", "X-Ratelimit-Reset-Tokens: 7s", "X-Ratelimit-Remaining-Tokens: 0"}, "7"},
		{429, []string{"Retry-After-Ms: 1000", "X-Ratelimit-Reset-Tokens: 7s"}, "1"},
		{429, []string{"Retry-After-Ms: soon", "X-Ratelimit-Reset-Tokens: NaN"}, ""},
		{429, []string{"Retry-After-Ms: -5", "X-Ratelimit-Reset-Tokens: -3s", "X-Ratelimit-Reset-Requests: 0"}, ""},
		{429, []string{"X-Ratelimit-Reset-Tokens: inf"}, "600"},
	} {
		for _, body := range []string{`{"error":{"message":"wait","type":"t"}}`, `{"detail":"wait"}`} {
			if tt.status == 529 && strings.Contains(body, "error") {
				continue // as it is, 529
			}
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				for _, h := range tt.headers {
					name, value, _ := strings.Cut(h, ": ")
					w.Header().Set(name, value)
				}
				answerJSON(tt.status, body)(w, r)
			})
			res, _ := g.chat(greeting)
			if got := res.Header.Get("Retry-After"); got != tt.want {
				t.Errorf("%d with %q: Retry-After %q, want %q", tt.status, tt.headers, got, tt.want)
			}
			for _, h := range tt.headers {
				if name, value, _ := strings.Cut(h, ": "); res.Header.Get(name) != value {
					t.Errorf("%s is gone: %v", h, res.Header)
				}
			}
		}
	}
}

// An answer to HEAD has no body, so nothing can be told from its absence.
func TestErrorsOfHEAD(t *testing.T) {
	for _, status := range []int{404, 405} {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(status)
		})
		want := map[int]int{404: 404, 405: 400}[status]
		if res := g.do("HEAD", "/v1/files/f-1", ""); res.StatusCode != want {
			t.Errorf("HEAD answered with %d = %d, want %d", status, res.StatusCode, want)
		}
	}
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Encoding", "gzip") })
	if res := g.do("HEAD", "/v1/files/f-1", ""); res.StatusCode != 200 {
		t.Errorf("HEAD of a packed file = %d", res.StatusCode)
	}
}

// An error longer than the gateway reads is told without its text.
func TestLongUpstreamError(t *testing.T) {
	g := newGateway(t, answerJSON(400, `{"error":{"message":"`+strings.Repeat("x", 2*maxErrorBytes)+`"}}`))
	if res, body := g.chat(greeting); res.StatusCode != 400 || errorIn(t, body).Message != "upstream returned HTTP 400" {
		t.Errorf("= %d %.100s", res.StatusCode, body)
	}
}

// An error that comes packed is understood all the same.
func TestPackedUpstreamError(t *testing.T) {
	const body = `{"error":{"message":"no","type":"t"}}`
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		answerJSON(422, pack(packers[0].open, body))(w, r)
	})
	res, got := g.chat(greeting)
	if res.StatusCode != 422 || got != body || res.Header.Get("Content-Encoding") != "" {
		t.Errorf("= %d %q %v", res.StatusCode, got, res.Header)
	}
}

func TestContextTooLong(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   bool
	}{
		{400, `{"error":{"message":"This model's maximum context length is 8192 tokens.","code":null}}`, true},
		{400, `{"error":{"message":"no","code":"context_length_exceeded"}}`, true},
		{400, `{"error":{"message":"no","type":"exceed_context_size_error","n_ctx":4096}}`, true},
		{400, `{"error":{"message":"no","code":"model_max_prompt_tokens_exceeded"}}`, true},
		{413, `{"detail":"Input is too long for requested model."}`, true},
		{422, `{"message":"inputs tokens + max_new_tokens must be <= 4096; reduce the length"}`, true},
		{500, `{"error":{"message":"the request exceeds the available context size"}}`, true},
		{400, `{"error":"input length and ` + "`max_tokens`" + ` exceed context limit"}`, true},
		{400, `[{"error":{"message":"The input token count exceeds; prompt token count 9 exceeds 8"}}]`, true},
		{400, `{"error":{"message":"temperature must be at most 2"}}`, false},
		{429, `{"error":{"message":"too many tokens"}}`, false},
		{200, `{"error":{"message":"prompt is too long"}}`, false},
		{400, `prompt is too long`, false},
		{400, ``, false},
	} {
		res := &http.Response{StatusCode: tt.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(tt.body))}
		if got := contextTooLong(res); got != tt.want {
			t.Errorf("%d %s = %t, want %t", tt.status, tt.body, got, tt.want)
		}
		if left, err := io.ReadAll(res.Body); err != nil || string(left) != tt.body {
			t.Errorf("%d %s: %q is left, %v", tt.status, tt.body, left, err)
		}
	}
}

// An upstream that does not finish its error does not hold the request.
func TestContextTooLongGivesUp(t *testing.T) {
	in, out := io.Pipe()
	go func() {
		io.WriteString(out, `{"error":`)
		out.CloseWithError(io.ErrUnexpectedEOF)
	}()
	res := &http.Response{StatusCode: 400, Header: http.Header{}, Body: in}
	if contextTooLong(res) {
		t.Error("half an error is taken for a whole one")
	}
	if left, err := io.ReadAll(res.Body); string(left) != `{"error":` || err == nil {
		t.Errorf("%q is left, %v", left, err)
	}
}

// Whatever comes for an error, the client gets an error that it can read.
func FuzzUpstreamError(f *testing.F) {
	for _, seed := range []string{``, `{}`, `[]`, `{"error":{"message":"m"}}`, `[{"error":{"message":{}}}]`, `{"error":"e","code":500}`, `{"detail":[{"msg":"a"}]}`, `<title>t</title>`, "\xff", `{"errors":[1]}`} {
		f.Add(400, seed)
		f.Add(200, seed)
		f.Add(503, seed)
	}
	cfg := &config{Auth: authKeys, APIKey: testUpstream}
	s := &server{cfg: cfg, mask: newMask(cfg)}
	f.Fuzz(func(t *testing.T, status int, body string) {
		res := &http.Response{StatusCode: 400 + (status%200+200)%200, Header: http.Header{}, Request: httptest.NewRequest("POST", "/", nil)}
		e, asIs := s.classify(res, []byte(body))
		if e.Status < 400 || e.Status > 599 || e.Type == "" || e.Message == "" && !asIs {
			t.Errorf("%d %q = %+v", res.StatusCode, body, e)
		}
		w := httptest.NewRecorder()
		x, _ := newExchange(httptest.NewRequest("POST", "/", nil))
		writeError(w, x, e)
		errorIn(t, w.Body.String())
		if report, ok := parseUpstreamError([]byte(body)); ok {
			if in := s.inside200(report); in.Status < 400 || in.Status > 599 || in.Message == "" {
				t.Errorf("inside 200, %q = %+v", body, in)
			}
		}
	})
}
