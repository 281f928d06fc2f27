package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"image/png"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	streamAsked = `"stream":true`
	weatherCall = `{"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"NAME","arguments":"ARGS"}}]},"finish_reason":"tool_calls"}]}`
)

// calls is an answer that calls one tool.
func calls(name, args string) http.HandlerFunc {
	return answerJSON(200, strings.NewReplacer("NAME", name, "ARGS", strings.ReplaceAll(args, `"`, `\"`)).Replace(weatherCall))
}

// buffered sends the demo's streams in one piece, as a careless proxy does.
func buffered(w http.ResponseWriter, r *http.Request, body string) bool {
	if !strings.Contains(body, streamAsked) {
		return false
	}
	rec := httptest.NewRecorder()
	newDemoUpstream(time.Millisecond).ServeHTTP(rec, r)
	w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
	io.Copy(w, rec.Body)
	return true
}

func TestDoctorUpstreams(t *testing.T) {
	t.Parallel()
	html := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			io.WriteString(w, "<html><title>Welcome to nginx!</title></html>")
		}
	}
	refused := answerJSON(401, `{"error":{"message":"Incorrect API key"}}`)
	bad := func(message string) http.HandlerFunc {
		return answerJSON(400, `{"error":{"message":"`+message+`","type":"invalid_request_error"}}`)
	}
	const schemaAsked, toolsAsked, noModel = `"json_schema"`, `"tools"`, "no-such-model"
	for _, tt := range []struct {
		name     string
		upstream patient
		settings []string
		want     map[string]string
		ok       bool
	}{
		{"key refused", on("", refused), []string{"MODELS_STATIC", "m"}, map[string]string{
			"models": "ok: 1, as MODELS_STATIC says", "key": "fail: Incorrect API key", "chat": "skip: the key is refused", "streaming": "skip: chat does not work",
		}, false},
		{"key refused, list open", on("/chat", refused), nil, map[string]string{"models": "ok: 7", "key": "fail: that may use demo-tools"}, false},
		{"key wanted", on("", refused), []string{"APIPROXY_AUTH", "off", "A4F_API_KEY", ""}, map[string]string{"key": "fail: the upstream wants one"}, false},
		{"key not wanted", nil, []string{"APIPROXY_AUTH", "off", "A4F_API_KEY", ""}, map[string]string{"key": "ok: none is wanted"}, true},
		{"list refused", on("/models", refused), nil, map[string]string{"models": "warn: Incorrect API key", "key": "ok: accepted", "chat": "ok: answered"}, true},
		{"no list", on("/models", answerJSON(404, `{"detail":"Not Found"}`)), []string{"model", ""}, map[string]string{
			"models": "warn: set MODELS_STATIC=", "key": "skip: no model is known", "chat": "fail: name one with -model",
		}, false},
		{"no list, model named", on("/models", html(404)), nil, map[string]string{"models": "warn: set MODELS_STATIC=", "chat": "ok: answered"}, true},
		{"no list, static", on("/models", html(404)), []string{"model", "", "MODELS_STATIC", "embed-x,demo"}, map[string]string{"models": "ok: 2, as MODELS_STATIC says; asking demo"}, true},
		{"no list, alias", on("/models", html(404)), []string{"model", "", "MODEL_ALIASES", "gpt-*=demo"}, map[string]string{"chat": "ok: answered"}, true},
		{"model named by its alias", nil, []string{"model", "gpt-5", "MODEL_ALIASES", "gpt-*=demo-tools"}, map[string]string{"models": "ok: asking demo-tools", "tools": "ok: called"}, true},
		{"empty list", on("/models", answerJSON(200, `{"object":"list","data":[]}`)), []string{"model", ""}, map[string]string{"models": "warn: the list is empty", "chat": "fail: no model is known"}, false},
		{"list in another form", on("/models", answerJSON(200, `{"models":[{"name":"demo"},{"name":"other"}]}`)), []string{"model", ""}, map[string]string{"models": "ok: 2 in the list, which is not in OpenAI's form"}, true},
		{"list of the wrong kind", on("/models", answerJSON(200, `{"hello":"world"}`)), nil, map[string]string{"models": "warn: the list can't be used"}, true},
		{"model not in the list", nil, []string{"model", "demo-gone"}, map[string]string{"models": "warn: demo-gone is not among them", "chat": "fail: does not exist"}, false},
		{"embeddings first", on("/models", answerJSON(200, `{"data":[{"id":"text-embedding-3"},{"id":"whisper-1"},{"id":"demo-tools"}]}`)), []string{"model", ""}, map[string]string{"models": "ok: asking demo-tools"}, true},
		{"no API", on("", html(404)), nil, map[string]string{"models": "warn: Welcome to nginx!", "chat": "fail: check the path of A4F_BASE_URL"}, false},
		{"a web page", on("", html(200)), nil, map[string]string{"models": "warn: check the path", "chat": "fail: the answer is not JSON: Welcome to nginx!"}, false},
		{"another API", on("/chat", answerJSON(200, `{"hello":"world"}`)), nil, map[string]string{"chat": "fail: no chat completion"}, false},
		{"error with status 200", on("/chat", answerJSON(200, `{"error":{"message":"sorry"}}`)), nil, map[string]string{"chat": "fail: an error with status 200: sorry"}, false},
		{"redirect", on("", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://new.example/v1?key=x", http.StatusPermanentRedirect)
		}), nil,
			map[string]string{"chat": "fail: it redirects to https://new.example/v1, and redirects"}, false},
		{"no credit", on("/chat", answerJSON(429, `{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}`)), nil, map[string]string{"chat": "fail: no credit left"}, false},
		{"limited", on("/chat", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "60")
			answerJSON(429, `{"error":{"message":"slow down"}}`)(w, r)
		}), nil, map[string]string{"key": "ok: accepted", "chat": "fail: again in a minute"}, false},
		{"broken", nil, []string{"model", "demo-broken"}, map[string]string{"chat": "fail: broke off"}, false},
		{"a stream in place of an answer", on("/chat", answerStream(textChunk("pong"), finishChunk, doneEvent)), nil, map[string]string{"chat": "warn: with a stream"}, true},
		{"no usage", on("single word pong", answerJSON(200, `{"choices":[{"message":{"content":"pong"},"finish_reason":"stop"}]}`)), nil, map[string]string{"chat": "warn: without usage"}, true},
		{"nothing said", on("single word pong", answerJSON(200, `{"choices":[{"message":{"content":""},"finish_reason":"length"}]}`)), nil, map[string]string{"chat": "warn: finish_reason length"}, true},
		{"max_tokens refused", on(`"max_tokens"`, bad("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")), nil,
			map[string]string{"chat": "ok: max_tokens_field:max_completion_tokens", "tools": "ok: called"}, true},

		{"errors in another form", on(noModel, answerJSON(404, `{"detail":"no model"}`)), nil, map[string]string{"errors": "warn: HTTP 404, not in OpenAI's form"}, true},
		{"errors in HTML", on(noModel, html(400)), nil, map[string]string{"errors": "warn: HTTP 400: Welcome to nginx!"}, true},
		{"errors of its own", on(noModel, answerJSON(500, `{"error":{"message":"KeyError"}}`)), nil, map[string]string{"errors": "warn: HTTP 500"}, true},
		{"any model", on(noModel, answerJSON(200, completion("hi"))), nil, map[string]string{"errors": "warn: any model name"}, true},

		{"buffered", buffered, nil, map[string]string{"streaming": "warn: proxy_buffering off"}, true},
		{"no stream", on(streamAsked, answerJSON(200, completion("1 2 3"))), nil, map[string]string{"streaming": "warn: one JSON answer", "stream_usage": "ok: every stream"}, true},
		{"stream refused", on(streamAsked, bad("no streams")), nil, map[string]string{"streaming": "fail: no streams"}, false},
		{"stream without an end", on(streamAsked, answerStream(textChunk("1"))), nil, map[string]string{"streaming": "fail: lenient_eof:on"}, false},
		{"stream without an end, known", on(streamAsked, answerStream(textChunk("1"))), []string{"UPSTREAM_QUIRKS", "lenient_eof:on"}, map[string]string{"streaming": "warn: all at once"}, true},
		{"stream without text", on(streamAsked, answerStream(finishChunk, doneEvent)), nil, map[string]string{"streaming": "warn: without any text"}, true},
		{"error in a stream", on(streamAsked, answerStream(textChunk("1"), "data: {\"error\":{\"message\":\"out of memory\"}}\n\n")), nil, map[string]string{"streaming": "fail: an error in the stream: out of memory"}, false},
		{"garbage in a stream", on(streamAsked, answerStream("data: {what\n\n")), nil, map[string]string{"streaming": "fail: an event is not JSON: {what"}, false},
		{"empty stream", on(streamAsked, answerStream("")), nil, map[string]string{"streaming": "fail: no answer"}, false},

		{"usage in every stream", on(streamAsked, answerStream(textChunk("1"), `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}`+"\n\n", finishChunk, doneEvent)), nil, map[string]string{"stream_usage": "ok: every stream"}, true},
		{"no usage in streams", on("stream_options", answerStream(textChunk("1"), finishChunk, doneEvent)), nil, map[string]string{"stream_usage": "warn: even when it is asked for"}, true},
		{"stream_options refused", on("stream_options", bad("stream_options is not permitted")), nil, map[string]string{"stream_usage": "warn: is refused"}, true},
		{"usage asked for already", nil, []string{"UPSTREAM_QUIRKS", "usage_inject:on"}, map[string]string{"stream_usage": "ok: which usage_inject:on does"}, true},

		{"tools refused", on(toolsAsked, bad("auto tool choice requires --enable-auto-tool-choice")), nil, map[string]string{"tools": "warn: --jinja", "parallel_tools": "warn: refused"}, true},
		{"tools as text", on(toolsAsked, answerJSON(200, completion(`<tool_call>{"name":"get_weather","arguments":{"city":"Paris"}}</tool_call>`))), nil, map[string]string{"tools": "warn: came as text", "parallel_tools": "skip: no call"}, true},
		{"tools left alone", nil, []string{"model", "demo"}, map[string]string{"tools": "warn: without the tool"}, true},
		{"tools made up", on(toolsAsked, calls("get_news", `{"city":"Paris"}`)), nil, map[string]string{"tools": "warn: get_news", "parallel_tools": "skip: one call at a time"}, true},
		{"arguments cut off", on(toolsAsked, calls("get_weather", `{"city":"Par`)), nil, map[string]string{"tools": `warn: do not fit: {"city":"Par`}, true},
		{"arguments made up", on(toolsAsked, calls("get_weather", `{"town":"Paris"}`)), nil, map[string]string{"tools": "warn: do not fit"}, true},

		{"schema ignored", on(schemaAsked, answerJSON(200, completion("Paris, yes."))), nil, map[string]string{"json_schema": "warn: not obeyed: Paris, yes."}, true},
		{"schema half obeyed", on(schemaAsked, answerJSON(200, completion(`{"capital_city":"Paris","in_europe":true,"note":"!"}`))), nil, map[string]string{"json_schema": "warn: not obeyed"}, true},
		{"schema refused", on(schemaAsked, bad("response_format is not supported")), nil, map[string]string{"json_schema": "warn: refused"}, true},

		{"reasoning_content", nil, []string{"model", "demo-reasoning"}, map[string]string{"reasoning": "ok: in reasoning_content"}, true},
		{"reasoning", on("single word pong", answerJSON(200, `{"choices":[{"message":{"content":"pong","reasoning":"hm"},"finish_reason":"stop"}]}`)), nil, map[string]string{"reasoning": "ok: in reasoning"}, true},
		{"think tags", on("single word pong", answerJSON(200, completion("<think>hm</think>pong"))), nil, map[string]string{"reasoning": "ok: in <think> tags"}, true},
		{"half of the think tags", on("single word pong", answerJSON(200, completion("hm</think>pong"))), nil, map[string]string{"reasoning": "warn: think:prefilled"}, true},

		{"images refused", on("image_url", bad("this model has no vision")), nil, map[string]string{"images": "skip: no vision"}, true},
		{"images unseen", nil, nil, map[string]string{"images": "warn: I see **1 image**"}, true},
		{"images crash it", on("image_url", answerJSON(500, `{"error":{"message":"oops"}}`)), nil, map[string]string{"images": "warn: oops"}, true},

		{"native Messages", on("/messages", answerJSON(200, `{"type":"message","content":[]}`)), nil, map[string]string{"native_dialects": "ok: NATIVE_DIALECTS=messages passes"}, true},
		{"native and set", on("/messages", answerJSON(200, `{"type":"message","content":[]}`)), []string{"NATIVE_DIALECTS", "messages"}, map[string]string{"native_dialects": "ok: messages, as NATIVE_DIALECTS says"}, true},
		{"set and not native", nil, []string{"NATIVE_DIALECTS", "messages"}, map[string]string{"native_dialects": "fail: NATIVE_DIALECTS names messages too (HTTP 404"}, false},
		{"set and something else", on("/messages", answerJSON(200, `{"ok":true}`)), []string{"NATIVE_DIALECTS", "messages"}, map[string]string{"native_dialects": "fail: another form"}, false},
		{"set and failing now", on("/messages", answerJSON(503, `{"error":{"message":"busy"}}`)), []string{"NATIVE_DIALECTS", "messages"}, map[string]string{"native_dialects": "warn: busy"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := examined(t, tt.upstream, tt.settings...)
			d.expect(t, tt.want)
			if d.OK != tt.ok {
				t.Errorf("ok = %t: %v", d.OK, d.verdict())
			}
		})
	}
}

// A native dialect is asked for where the gateway would send it, with the key
// where its servers look for it.
func TestDoctorNativeRequests(t *testing.T) {
	var seen []string
	all := patient(func(w http.ResponseWriter, r *http.Request, body string) bool {
		answers := map[string]string{
			"/v1/responses": `{"object":"response"}`,
			"/v1/messages":  `{"type":"message"}`,
			"/v1beta/models/demo-tools:generateContent": `{"candidates":[]}`,
		}
		answer, ok := answers[r.URL.Path]
		if ok {
			seen = append(seen, r.URL.Path+" "+r.Header.Get("Authorization")+"|"+r.Header.Get("X-Api-Key")+"|"+r.Header.Get("X-Goog-Api-Key")+"|"+r.Header.Get("Anthropic-Version"))
			answerJSON(200, answer)(w, r)
		}
		return ok
	})
	d := examined(t, all, "A4F_API_KEY", "the-upstream-key")
	d.expect(t, map[string]string{"native_dialects": "ok: NATIVE_DIALECTS=responses,messages,gemini"})
	want := `/v1/responses Bearer the-upstream-key||| /v1/messages |the-upstream-key||2023-06-01 /v1beta/models/demo-tools:generateContent ||the-upstream-key|`
	if got := strings.Join(seen, " "); got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
}

// One refusal for too many requests is waited out.
func TestDoctorWaits(t *testing.T) {
	limited := 0
	d := examined(t, patient(func(w http.ResponseWriter, r *http.Request, body string) bool {
		if !strings.Contains(r.URL.Path, "/chat") || limited > 0 {
			return false
		}
		limited++
		answerJSON(429, `{"error":{"message":"slow down"}}`)(w, r)
		return true
	}))
	d.expect(t, map[string]string{"chat": "ok: answered"})
}

func TestDoctorTimeouts(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"choices":`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for _, tt := range []struct {
		name     string
		upstream patient
		want     map[string]string
	}{
		{"silence", on("", hang), map[string]string{"network": "ok: connected", "models": "warn: no answer within 100ms", "key": "skip: no answer", "chat": "fail: is not overloaded"}},
		{"half an answer", on("/chat", stall), map[string]string{"chat": "fail: did not end within 100ms"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := httptest.NewServer(tt.upstream)
			defer up.Close()
			d := doctorFor(t, "A4F_BASE_URL", up.URL)
			d.patience = 100 * time.Millisecond
			d.examine(t.Context(), func(finding) {})
			d.expect(t, tt.want)
		})
	}
}

// certificateUntil is for 127.0.0.1, valid for a year until then.
func certificateUntil(t *testing.T, end time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: end.AddDate(-1, 0, 0), NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestDoctorTLS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		left   time.Duration // of the certificate's life
		trust  bool
		host   string
		scheme string
		want   map[string]string
	}{
		{"good", 90 * 24 * time.Hour, true, "127.0.0.1", "https", map[string]string{"tls": "ok: TLS 1.3 in ", "chat": "ok: answered"}},
		{"soon to end", 3*24*time.Hour + time.Hour, true, "127.0.0.1", "https", map[string]string{"tls": "warn: (3 days)", "chat": "ok: answered"}},
		{"ended", -time.Hour, true, "127.0.0.1", "https", map[string]string{"network": "ok: connected", "tls": "fail: have it renewed", "models": "skip: no connection", "chat": "skip: no connection"}},
		{"unknown authority", 90 * 24 * time.Hour, false, "127.0.0.1", "https", map[string]string{"tls": "fail: SSL_CERT_FILE"}},
		{"another name", 90 * 24 * time.Hour, true, "localhost", "https", map[string]string{"tls": "fail: is for 127.0.0.1, not for localhost"}},
		{"http to its port", 90 * 24 * time.Hour, true, "127.0.0.1", "http", map[string]string{"tls": "skip: plain http", "chat": "fail: must begin with https://"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pair, pool := certificateUntil(t, time.Now().Add(tt.left))
			up := httptest.NewUnstartedServer(patient(nil))
			up.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			up.Config.ErrorLog = nullLog()
			up.StartTLS()
			defer up.Close()
			_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
			d := doctorFor(t, "A4F_BASE_URL", tt.scheme+"://"+tt.host+":"+port)
			if tt.trust {
				d.s.upstream.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
			}
			d.examine(t.Context(), func(finding) {})
			d.expect(t, tt.want)
			if d.OK != strings.HasPrefix(tt.want["chat"], "ok") {
				t.Errorf("ok = %t", d.OK)
			}
		})
	}
}

func TestDoctorNetwork(t *testing.T) {
	plain := httptest.NewServer(patient(nil))
	defer plain.Close()
	for _, tt := range []struct {
		name, base string
		want       map[string]string
	}{
		{"nobody listens", "http://127.0.0.1:" + freePort(t), map[string]string{"network": "fail: host.docker.internal", "tls": "skip: no connection", "models": "skip: no connection", "key": "skip: no connection", "chat": "skip: no connection"}},
		{"no TLS there", strings.Replace(plain.URL, "http://", "https://", 1), map[string]string{"network": "ok: connected", "tls": "fail: may have to begin with http://"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := doctorFor(t, "A4F_BASE_URL", tt.base)
			d.examine(t.Context(), func(finding) {})
			d.expect(t, tt.want)
			if d.OK {
				t.Error("all is well")
			}
		})
	}
}

// A key that travels in the open is worth a word, unless it stays in the house.
func TestIsNear(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "192.168.0.9": true, "fd00::1": true, "localhost": true, "vllm": true,
		"host.docker.internal": true, "gpu.local": true, "api.example.com": false, "8.8.8.8": false, "2001:db8::1": false,
	} {
		if got := isNear(host); got != want {
			t.Errorf("isNear(%s) = %t", host, got)
		}
	}
	d := doctorFor(t, "A4F_BASE_URL", "http://api.example.com/v1")
	d.trace.address = "192.0.2.1:80"
	if f := d.checkTLS(t.Context()); f.Status != markWarn || !strings.Contains(f.Advice, "https://") {
		t.Errorf("a key over plain http: %+v", f)
	}
}

func TestRedSquare(t *testing.T) {
	_, data, _ := strings.Cut(redSquare, ",")
	b, err := decodeBase64(data)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, b, a := img.At(63, 63).RGBA(); r != 0xffff || g != 0 || b != 0 || a != 0xffff || img.Bounds().Dx() != 64 {
		t.Errorf("%v: %x %x %x %x", img.Bounds(), r, g, b, a)
	}
}

func TestStreamGaps(t *testing.T) {
	ms := func(all ...int) *timedStream {
		s := &timedStream{}
		for _, n := range all {
			s.arrivals = append(s.arrivals, time.Duration(n)*time.Millisecond)
		}
		return s
	}
	for _, tt := range []struct {
		s        *timedStream
		together bool
	}{
		{ms(500), true}, {ms(500, 510), true}, {ms(500, 600), false}, {ms(1, 2), false},
	} {
		if got := tt.s.together(); got != tt.together {
			t.Errorf("%v together = %t", tt.s.arrivals, got)
		}
	}
	s := ms(100, 110, 130, 200)
	if s.usualGap() != 20*time.Millisecond || s.longestGap() != 70*time.Millisecond {
		t.Errorf("gaps %v and %v", s.usualGap(), s.longestGap())
	}
	if s := ms(10, 15); s.usualGap() != 5*time.Millisecond || s.longestGap() != 5*time.Millisecond {
		t.Errorf("gaps %v and %v", s.usualGap(), s.longestGap())
	}
}
