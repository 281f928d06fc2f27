package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// A patient is an upstream that answers some requests by itself, and leaves the
// others, for which it returns false, to the demo.
type patient func(w http.ResponseWriter, r *http.Request, body string) bool

func (s patient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if s == nil || !s(w, r, string(body)) {
		newDemoUpstream(200*time.Microsecond).ServeHTTP(w, r)
	}
}

// on answers the requests whose path, or body, holds a text.
func on(part string, answer http.HandlerFunc) patient {
	return func(w http.ResponseWriter, r *http.Request, body string) bool {
		if !strings.Contains(r.URL.Path, part) && !strings.Contains(body, part) {
			return false
		}
		answer(w, r)
		return true
	}
}

// examined is a doctor that has been through an upstream.
func examined(t *testing.T, upstream http.Handler, settings ...string) *doctor {
	t.Helper()
	up := httptest.NewServer(upstream)
	t.Cleanup(up.Close)
	d := doctorFor(t, append([]string{"A4F_BASE_URL", up.URL}, settings...)...)
	d.examine(t.Context(), func(finding) {})
	return d
}

// doctorFor makes a doctor; the setting "model" is its flag.
func doctorFor(t *testing.T, settings ...string) *doctor {
	t.Helper()
	values := baseSettings(settings...)
	cfg, _, err := loadConfig(values)
	if err != nil {
		t.Fatal(err)
	}
	store, err := newStore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	model, named := values["model"]
	if !named {
		model = "demo-tools"
	}
	d := newDoctor(cfg, store, model, secret(values["A4F_API_KEY"]))
	t.Cleanup(func() {
		d.s.Close(context.Background())
		store.Close()
	})
	return d
}

// expect compares findings with "mark: part of what is found or advised".
func (d *doctor) expect(t *testing.T, want map[string]string) {
	t.Helper()
	for name, expected := range want {
		i := slices.IndexFunc(d.Checks, func(f finding) bool { return f.Check == name })
		if i < 0 {
			if expected != "" {
				t.Errorf("%s: no finding, want %s", name, expected)
			}
			continue
		}
		f := d.Checks[i]
		mark, part, _ := strings.Cut(expected, ": ")
		if f.Status != mark || !strings.Contains(f.Found+"\n"+f.Advice, part) {
			t.Errorf("%s = %s: %s (%s), want %s", name, f.Status, f.Found, f.Advice, expected)
		}
	}
}

func TestDoctorFindsAllWell(t *testing.T) {
	slow := newDemoUpstream(5 * time.Millisecond)
	d := examined(t, patient(func(w http.ResponseWriter, r *http.Request, body string) bool {
		if strings.Contains(body, "image_url") {
			answerJSON(200, completion("Red."))(w, r)
		} else {
			slow.ServeHTTP(w, r)
		}
		return true
	}))
	d.expect(t, map[string]string{
		"network": "ok: 127.0.0.1:", "tls": "skip: plain http", "models": "ok: 7 in the list; asking demo-tools", "key": "ok: accepted",
		"chat": "ok: 10 tokens in", "errors": "ok: HTTP 404, in OpenAI's form", "streaming": "ok: pieces, the first after", "stream_usage": "ok: usage_inject:on",
		"tools": "ok: called", "parallel_tools": "ok: 2 calls", "json_schema": "ok: obeyed", "reasoning": "skip: none", "images": "ok: seen",
		"native_dialects": "skip: none", "store": "warn: set REDIS_URL", "persistence": "", "eviction": "",
	})
	if !d.OK || d.Model != "demo-tools" || !slices.Equal(d.Settings, []string{"UPSTREAM_QUIRKS=usage_inject:on"}) {
		t.Errorf("ok %t, model %q, settings %q", d.OK, d.Model, d.Settings)
	}
}

// The doctor sends what the gateway sends.
func TestDoctorHeaders(t *testing.T) {
	for _, settings := range [][]string{
		{"MASK_AS_BROWSER", "true", "MASK_ORIGIN", "https://app.example", "MASK_REFERER", "https://app.example/"},
		{"MASK_AS_BROWSER", "false"},
	} {
		var asked http.Header
		d := doctorFor(t, settings...)
		up := httptest.NewServer(patient(func(w http.ResponseWriter, r *http.Request, body string) bool {
			if strings.HasSuffix(r.URL.Path, "/chat/completions") {
				asked = r.Header.Clone()
			}
			return false
		}))
		base, err := joinBase(up.URL)
		if err != nil {
			t.Fatal(err)
		}
		d.s.upstream.base = base
		d.ask(t.Context(), question("hi"))
		up.Close()

		g := newGateway(t, answerJSON(200, completion("ok")), func(c *config) {
			own := *d.s.cfg
			own.BaseURL, own.ClientKeys = c.BaseURL, c.ClientKeys
			*c = own
		})
		g.chat(greeting, "Accept: */*", "User-Agent: "+asked.Get("User-Agent"))
		sent := g.last().Header
		for _, h := range []http.Header{asked, sent} {
			h.Del("Content-Length")
		}
		if got, want := flatten(asked), flatten(sent); !slices.Equal(got, want) {
			t.Errorf("%q: the doctor sends\n%q\nthe gateway\n%q", settings, got, want)
		}
	}
}

func TestDoctorExit(t *testing.T) {
	well := httptest.NewServer(patient(nil))
	defer well.Close()
	ill := httptest.NewServer(on("", answerJSON(500, `{"error":{"message":"out of memory"}}`)))
	defer ill.Close()
	for _, tt := range []struct {
		name           string
		environ        []string
		args           []string
		code           int
		stdout, stderr []string
	}{
		{"well", []string{"A4F_BASE_URL=" + well.URL, "A4F_API_KEY=some-upstream-key"}, []string{"-doctor"}, 0,
			[]string{"upstream " + well.URL + "/v1\n", "✓ chat  ", "asking demo\n", "! tools  ", "\nsettings to consider:\n  UPSTREAM_QUIRKS=usage_inject:on\n"}, nil},
		{"no UTF-8", []string{"A4F_BASE_URL=" + well.URL, "A4F_API_KEY=some-upstream-key", "LC_ALL=C", "LANG=de_DE.UTF-8"}, []string{"-doctor", "-model", "demo-tools"}, 0,
			[]string{"+ chat  ", "- tls  ", "> set REDIS_URL"}, nil},
		{"ill", []string{"A4F_BASE_URL=" + ill.URL, "A4F_API_KEY=some-upstream-key", "MODELS_STATIC=m"}, []string{"-doctor"}, 1,
			[]string{"✗ chat             m: HTTP 500: out of memory\n                   → look at the upstream's own log\n"}, []string{"apiproxy: broken: chat\n"}},
		{"ill, as JSON", []string{"A4F_BASE_URL=" + ill.URL, "A4F_API_KEY=some-upstream-key"}, []string{"-doctor", "-json"}, 1,
			[]string{`"ok":false`, `{"check":"chat","status":"fail","found":"no model is known","advice":"name one with -model`}, []string{"broken: chat"}},
		{"bad settings", []string{"LOG_LEVEL=loud"}, []string{"-doctor"}, 1, nil, []string{"the configuration can't be used:\n", "A4F_BASE_URL: not set", "LOG_LEVEL"}},
		{"bad settings, as JSON", []string{"LOG_LEVEL=loud"}, []string{"-doctor", "-json"}, 1, nil, []string{"LOG_LEVEL"}},
		{"-json alone", nil, []string{"-json"}, 2, nil, []string{"go with -doctor"}},
		{"-model alone", nil, []string{"-demo", "-model", "x"}, 2, nil, []string{"go with -doctor"}},
		{"two modes", nil, []string{"-doctor", "-check"}, 2, nil, []string{"exclude each other"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := runGateway(t, tt.environ, tt.args...)
			if code != tt.code || tt.stdout == nil && stdout != "" {
				t.Errorf("exit code %d, want %d; stdout:\n%s\nstderr:\n%s", code, tt.code, stdout, stderr)
			}
			for _, want := range tt.stdout {
				if !strings.Contains(stdout, want) {
					t.Errorf("stdout has no %q:\n%s", want, stdout)
				}
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr has no %q:\n%s", want, stderr)
				}
			}
		})
	}
}

// The form of -json is documented; what reads it must not break.
func TestDoctorJSON(t *testing.T) {
	_, stdout, _ := runGateway(t, nil, "-demo", "-doctor", "-json")
	var got struct {
		Version, Upstream, Store, Model *string
		OK                              *bool
		Checks                          []map[string]string
		Settings                        []string
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("%v in %q", err, stdout)
	}
	if got.Version == nil || got.Upstream == nil || got.Store == nil || got.Model == nil || got.OK == nil || got.Settings == nil {
		t.Errorf("a member is missing in %s", stdout)
	}
	var names []string
	for _, c := range got.Checks {
		names = append(names, c["check"])
		if _, ok := c["advice"]; len(c) != 4 || c["found"] == "" || !ok || !slices.Contains([]string{"ok", "warn", "fail", "skip"}, c["status"]) {
			t.Errorf("a check is %q", c)
		}
	}
	want := "network tls models key chat errors streaming stream_usage tools parallel_tools json_schema reasoning images native_dialects store"
	if strings.Join(names, " ") != want {
		t.Errorf("checks %q, want %s", names, want)
	}
}

// Whatever the upstream repeats, no key is printed, whole or in part.
func TestDoctorKeepsKeys(t *testing.T) {
	const key = "CANARY-upstream-0123456789abcdef"
	padding := strings.Repeat("x", 100)
	echo := func(status int, shape string) patient {
		return func(w http.ResponseWriter, r *http.Request, _ string) bool {
			all := padding + " " + r.Header.Get("Authorization") + r.Header.Get("X-Api-Key") + r.Header.Get("X-Goog-Api-Key")
			w.Header().Set("Location", "http://elsewhere/"+key+"?key="+key)
			w.WriteHeader(status)
			io.WriteString(w, strings.ReplaceAll(shape, "KEY", all))
			return true
		}
	}
	stream := func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if r.Method == "POST" {
			answerStream("data: {\"error\":{\"message\":\""+padding+r.Header.Get("Authorization")+"\"}}\n\n")(w, r)
		}
		return r.Method == "POST"
	}
	for name, upstream := range map[string]patient{
		"error":         echo(400, `{"error":{"message":"KEY"}}`),
		"refused":       echo(401, `{"error":{"message":"KEY"}}`),
		"text":          echo(500, "KEY"),
		"HTML":          echo(502, "<title>KEY</title>"),
		"redirect":      echo(307, ""),
		"completion":    echo(200, `{"choices":[{"message":{"content":"KEY","tool_calls":[{"id":"a","function":{"name":"KEY","arguments":"KEY"}}]},"finish_reason":"KEY"}]}`),
		"model names":   echo(200, `{"data":[{"id":"KEY"}],"choices":[]}`),
		"stream errors": stream,
	} {
		for _, auth := range []string{"keys", "passthrough", "off"} {
			for _, form := range [][]string{{"-doctor"}, {"-doctor", "-json"}} {
				t.Run(name+" "+auth+" "+strings.Join(form, " "), func(t *testing.T) {
					up := httptest.NewServer(upstream)
					defer up.Close()
					_, stdout, stderr := runGateway(t, []string{
						"A4F_BASE_URL=" + up.URL, "A4F_API_KEY=" + key, "APIPROXY_AUTH=" + auth, "LISTEN_ADDR=127.0.0.1:0",
						"APIPROXY_API_KEYS=a:CANARY-client-0123456789", "REDIS_URL=redis://user:CANARY-password@127.0.0.1:1/0",
					}, form...)
					if all := stdout + stderr; strings.Contains(all, "CANARY") {
						t.Errorf("a key is shown:\n%s", all)
					}
					if !strings.Contains(stdout, "network") || strings.Contains(stdout, "\x1b") {
						t.Errorf("not a report:\n%s", stdout)
					}
				})
			}
		}
	}
}

// What the upstream sends steers no terminal.
func TestDoctorPrintsPlainText(t *testing.T) {
	d := examined(t, on("", answerJSON(400, `{"error":{"message":"\u001b[2J\u0007bad\nline"}}`)), "MODELS_STATIC", "m", "model", "m\x1b[1m")
	if out, err := json.Marshal(d.diagnosis); err != nil || strings.Contains(string(out), `\u001b`) || strings.Contains(string(out), `\n`) {
		t.Errorf("%s, %v", out, err)
	}
	d.expect(t, map[string]string{"chat": "fail: [2J bad line"})
}

func TestDoctorPassthrough(t *testing.T) {
	var keys []string
	locked := patient(func(w http.ResponseWriter, r *http.Request, _ string) bool {
		key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + r.Header.Get("X-Api-Key") + r.Header.Get("X-Goog-Api-Key")
		keys = append(keys, key)
		if key != "" {
			return false
		}
		answerJSON(401, `{"error":{"message":"who are you?"}}`)(w, r)
		return true
	})
	examined(t, locked, "APIPROXY_AUTH", "passthrough", "A4F_API_KEY", "a-key-of-a-client").expect(t, map[string]string{"key": "ok: accepted", "chat": "ok: answered"})
	if slices.ContainsFunc(keys, func(k string) bool { return k != "a-key-of-a-client" }) {
		t.Errorf("keys sent: %q", keys)
	}
	examined(t, locked, "APIPROXY_AUTH", "passthrough", "A4F_API_KEY", "").expect(t, map[string]string{
		"models": "warn: who are you?", "key": "fail: the doctor alone uses", "chat": "skip: the key is refused", "tools": "skip: chat does not work",
	})
	examined(t, patient(nil), "APIPROXY_AUTH", "passthrough", "A4F_API_KEY", "").expect(t, map[string]string{"key": "ok: the doctor asks without", "chat": "ok: answered"})
}

// A second signal is not needed: the doctor stops asking when it is told to.
func TestDoctorStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	up := httptest.NewServer(patient(func(http.ResponseWriter, *http.Request, string) bool {
		asked++
		cancel()
		return false
	}))
	defer up.Close()
	var stdout, stderr output
	code := run(ctx, []string{"-doctor"}, []string{"A4F_BASE_URL=" + up.URL, "A4F_API_KEY=some-upstream-key"}, &stdout, &stderr)
	if code != 1 || asked != 1 || !strings.Contains(stderr.String(), "context canceled") {
		t.Errorf("exit code %d after %d requests: %s%s", code, asked, &stdout, &stderr)
	}
}

func TestDoctorQuirksLine(t *testing.T) {
	d := doctorFor(t, "UPSTREAM_QUIRKS", "think:off,usage_inject:off,files:on")
	d.suggest("usage_inject:on")
	d.suggest("usage_inject:on")
	if got, want := d.quirksLine(), "UPSTREAM_QUIRKS=think:off,files:on,usage_inject:on"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestUTF8Locale(t *testing.T) {
	for _, tt := range []struct {
		values map[string]string
		want   bool
	}{
		{nil, true},
		{map[string]string{"LANG": "en_US.UTF-8"}, true},
		{map[string]string{"LANG": "C.utf8"}, true},
		{map[string]string{"LANG": "C"}, false},
		{map[string]string{"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, false},
		{map[string]string{"LC_CTYPE": "en_US.UTF-8", "LANG": "C"}, true},
	} {
		if got := utf8Locale(tt.values); got != tt.want {
			t.Errorf("utf8Locale(%v) = %t", tt.values, got)
		}
	}
}

// TestREADMEDoctor runs what the README shows of the doctor, and compares its
// table with the checks that there are.
func TestREADMEDoctor(t *testing.T) {
	blocks := codeBlocks(t, readmeEnglish)
	i := slices.IndexFunc(blocks, func(b codeBlock) bool { return b.mark == "run: doctor" })
	if i < 0 || i+1 == len(blocks) || blocks[i+1].mark != "output" {
		t.Fatal("no command of the doctor's with its output")
	}
	args, ok := strings.CutPrefix(blocks[i].text, "go run . ")
	if !ok {
		t.Fatalf("not the gateway: %s", blocks[i].text)
	}
	var documented, names []string
	for _, row := range readmeRows(t, readmeEnglish, "check") {
		documented = append(documented, codeSpans(row[0])...)
	}
	for _, c := range doctorChecks {
		names = append(names, c.name)
	}
	if !slices.Equal(documented, names) {
		t.Errorf("the README has the checks\n%q\nthe doctor\n%q", documented, names)
	}
	code, stdout, stderr := runGateway(t, nil, strings.Fields(args)...)
	if code != 0 || !matchesShortened(stdout, blocks[i+1].text) {
		t.Errorf("exit code %d, %s\n%s\nwant\n%s", code, stderr, stdout, blocks[i+1].text)
	}
}
