package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// figures are the samples of a text in Prometheus's format, by name and labels as
// they are written.
type figures map[string]float64

var (
	metricName  = `[a-zA-Z_:][a-zA-Z0-9_:]*`
	metricLabel = `[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"`
	metricLine  = regexp.MustCompile(`^(` + metricName + `)(\{` + metricLabel + `(?:,` + metricLabel + `)*\})? (\S+)$`)
	helpLine    = regexp.MustCompile(`^# HELP (` + metricName + `) (\S.*\.)$`)
	typeLine    = regexp.MustCompile(`^# TYPE (` + metricName + `) (counter|gauge|histogram|summary)$`)
)

// readFigures reads a text and holds it against what the format and the conventions
// ask for.
func readFigures(t testing.TB, text string) figures {
	t.Helper()
	got := figures{}
	families := map[string]string{} // kinds by name
	family, help := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := helpLine.FindStringSubmatch(line); m != nil {
			help = m[1]
			continue
		}
		if m := typeLine.FindStringSubmatch(line); m != nil {
			if family = m[1]; help != family || families[family] != "" {
				t.Errorf("%q follows the help of %q, or comes a second time", line, help)
			}
			if families[family] = m[2]; (m[2] == "counter") != strings.HasSuffix(family, "_total") {
				t.Errorf("%s is a %s", family, m[2])
			}
			continue
		}
		m := metricLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a line of the format: %q", line)
		}
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if kind := families[family]; (kind == "histogram" || kind == "summary") && name == family+suffix {
				name = family
			}
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if _, again := got[m[1]+m[2]]; again || name != family || err != nil || math.IsNaN(value) {
			t.Errorf("%q: in the family %s, seen before: %t, error %v", line, family, again, err)
		}
		got[m[1]+m[2]] = value
	}
	got.checkHistograms(t, families)
	return got
}

var bucketBound = regexp.MustCompile(`,?le="([^"]*)"`)

// checkHistograms looks at the buckets of each histogram: none holds less than the
// one below it, and the last holds what the count says.
func (f figures) checkHistograms(t testing.TB, families map[string]string) {
	t.Helper()
	type bucket struct{ bound, n float64 }
	buckets := map[string][]bucket{}
	for sample, n := range f {
		name, labels, _ := strings.Cut(sample, "{")
		family, isBucket := strings.CutSuffix(name, "_bucket")
		if !isBucket || families[family] != "histogram" {
			continue
		}
		bound, err := strconv.ParseFloat(bucketBound.FindStringSubmatch(labels)[1], 64)
		if err != nil {
			t.Errorf("%s: %v", sample, err)
		}
		count := strings.TrimSuffix(strings.Replace(family+"_count{"+bucketBound.ReplaceAllString(labels, ""), "{}", "", 1), "{")
		buckets[count] = append(buckets[count], bucket{bound, n})
	}
	for count, list := range buckets {
		slices.SortFunc(list, func(a, b bucket) int { return int(math.Copysign(1, a.bound-b.bound)) })
		for i := 1; i < len(list); i++ {
			if list[i].n < list[i-1].n {
				t.Errorf("%s: %v below %v", count, list[i-1], list[i])
			}
		}
		last := list[len(list)-1]
		if total, ok := f[count]; !ok || last.n != total || !math.IsInf(last.bound, 1) {
			t.Errorf("%s is %v, the last bucket %v", count, total, last)
		}
	}
}

// figures are what the gateway's GET /metrics says.
func (g *gateway) figures() figures {
	g.t.Helper()
	res := g.do("GET", "/metrics", "")
	body := readAll(g.t, res)
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/plain; version=0.0.4; charset=utf-8" {
		g.t.Fatalf("GET /metrics = %d, %s: %s", res.StatusCode, got, body)
	}
	for _, secret := range []string{testKey, otherKey, testUpstream} {
		if strings.Contains(body, secret) {
			g.t.Errorf("the metrics hold the key %s", secret)
		}
	}
	return readFigures(g.t, body)
}

// figuresWith are the first figures in which all of want are there. Requests are
// counted after their answers.
func (g *gateway) figuresWith(want figures) figures {
	g.t.Helper()
	var got figures
	var missing string
	for range 200 {
		got, missing = g.figures(), ""
		for sample, value := range want {
			if v, ok := got[sample]; !ok || v != value {
				missing += fmt.Sprintf("%s is %v, there: %t, want %v\n", sample, v, ok, value)
			}
		}
		if missing == "" {
			return got
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.t.Fatalf("%s", missing)
	return nil
}

// usageChunk is the last chunk of a stream whose client asked for its usage.
const usageChunk = `data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}` + "\n\n"

// modelsUpstream has a list of models beside its chat.
func modelsUpstream(chat http.HandlerFunc, ids ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/models") {
			chat(w, r)
			return
		}
		answerJSON(200, `{"data":["`+strings.Join(ids, `","`)+`"]}`)(w, r)
	}
}

func TestMetrics(t *testing.T) {
	chat := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case bytes.Contains(body, []byte("fail")):
			answerJSON(429, `{"error":{"message":"slow down","type":"rate_limit_error"}}`)(w, r)
		case bytes.Contains(body, []byte("break")):
			answerStream(textChunk("a"))(w, r)
		case bytes.Contains(body, []byte(`"stream":true`)):
			answerStream(textChunk("a"), textChunk("b"), finishChunk, usageChunk, doneEvent)(w, r)
		default:
			answerJSON(200, completion("hi"))(w, r)
		}
	}
	g := newGateway(t, modelsUpstream(chat, "m"))
	readAll(t, g.do("GET", "/v1/models", ""))
	g.chat(`{"model":"m","messages":[]}`, "X-Session-Id: s")
	g.chat(`{"model":"m","messages":[]}`, "Authorization: Bearer "+otherKey)
	g.chat(`{"model":"m","stream":true,"messages":[]}`)
	g.chat(`{"model":"m","messages":[{"content":"fail"}]}`)
	g.chat(`{"model":"m","stream":true,"messages":[{"content":"break"}]}`)
	g.chat(`{"model":"stranger","messages":[]}`)
	readAll(t, g.do("POST", "/v1/messages", `{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`))
	g.chat(`{}`, "Authorization: Bearer wrong")
	readAll(t, g.do("GET", "//", ""))
	readAll(t, g.do("GET", "/v1/models", ""))

	const route = `route="/v1/chat/completions",dialect="openai",`
	got := g.figuresWith(figures{
		`apiproxy_requests_total{` + route + `model="m",status="200",key="tester"}`:                                 3,
		`apiproxy_requests_total{` + route + `model="m",status="200",key="other"}`:                                  1,
		`apiproxy_requests_total{` + route + `model="m",status="429",key="tester"}`:                                 1,
		`apiproxy_requests_total{` + route + `model="other",status="200",key="tester"}`:                             1,
		`apiproxy_requests_total{route="/v1/messages",dialect="anthropic",model="m",status="200",key="tester"}`:     1,
		`apiproxy_requests_total{route="/v1/chat/completions",dialect="none",model="none",status="401",key="none"}`: 1,
		`apiproxy_requests_total{route="other",dialect="none",model="none",status="400",key="none"}`:                1,
		`apiproxy_requests_total{route="/v1/models",dialect="none",model="none",status="200",key="tester"}`:         2,
		`apiproxy_request_duration_seconds_count{route="/v1/chat/completions",model="m"}`:                           5,
		`apiproxy_request_duration_seconds_bucket{route="/v1/chat/completions",model="m",le="600"}`:                 5,
		`apiproxy_request_outcomes_total{model="m",outcome="ok"}`:                                                   4,
		`apiproxy_request_outcomes_total{model="m",outcome="upstream_error"}`:                                       1,
		`apiproxy_request_outcomes_total{model="m",outcome="incomplete"}`:                                           1,
		`apiproxy_request_outcomes_total{model="m",outcome="client_closed"}`:                                        0,
		`apiproxy_time_to_first_token_seconds_count{model="m"}`:                                                     3,
		`apiproxy_input_tokens_total{model="m"}`:                                                                    3 + 3 + 10 + 10,
		`apiproxy_output_tokens_total{model="m"}`:                                                                   2 + 2 + 7 + 7,
		`apiproxy_cached_input_tokens_total{model="m"}`:                                                             4 + 4,
		`apiproxy_reasoning_tokens_total{model="m"}`:                                                                2 + 2,
		`apiproxy_streams_open`:                                           0,
		`apiproxy_requests_in_flight`:                                     1, // the one that asks
		`apiproxy_session_turns_total{result="stored"}`:                   1,
		`apiproxy_session_turns_total{result="deferred"}`:                 0,
		`apiproxy_session_queue_turns`:                                    0,
		`apiproxy_session_queue_bytes`:                                    0,
		`apiproxy_store_up`:                                               1,
		`apiproxy_store_call_duration_seconds_count{operation="history"}`: 1,
		`apiproxy_store_call_duration_seconds_count{operation="append"}`:  1,
		`apiproxy_store_errors_total{operation="history"}`:                0, // there was no such session
		`apiproxy_model_list_requests_total{result="miss"}`:               1,
		`apiproxy_model_list_requests_total{result="hit"}`:                1,
		`apiproxy_model_list_requests_total{result="stale"}`:              0,
	})
	for sample, low := range map[string]float64{
		`apiproxy_request_duration_seconds_sum{route="/v1/chat/completions",model="m"}`: 1e-6,
		`go_goroutines`:                                2,
		`go_memstats_heap_inuse_bytes`:                 1 << 18,
		`process_resident_memory_bytes`:                1 << 20,
		`process_virtual_memory_bytes`:                 1 << 20,
		`process_cpu_seconds_total`:                    0.001,
		`process_open_fds`:                             3,
		`process_max_fds`:                              10,
		`process_start_time_seconds`:                   float64(time.Now().Add(-time.Hour).Unix()),
		`go_gc_duration_seconds_count`:                 0,
		`go_sched_gomaxprocs_threads`:                  1,
		`go_info{version="` + runtime.Version() + `"}`: 1,
	} {
		if v, ok := got[sample]; !ok || v < low {
			t.Errorf("%s is %v, there: %t, want at least %v", sample, v, ok, low)
		}
	}
}

// A stream that is open counts as that, and as a request in flight.
func TestMetricsOpenStreams(t *testing.T) {
	for _, ping := range []time.Duration{0, time.Hour} {
		g := newGateway(t, modelsUpstream(hangUpstream(textChunk("a"))), func(c *config) { c.StreamPing = pingInterval{ping, ping} })
		ctx, cancel := context.WithCancel(t.Context())
		for _, path := range []string{"/v1/chat/completions", "/v1beta/models/m:streamGenerateContent"} {
			body := `{"model":"m","stream":true,"messages":[]}`
			if strings.Contains(path, "Generate") {
				body = `{"contents":[{"parts":[{"text":"hi"}]}]}`
			}
			res, err := http.DefaultTransport.RoundTrip(g.request("POST", path, body).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := res.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		g.figuresWith(figures{`apiproxy_streams_open`: 2, `apiproxy_requests_in_flight`: 3})
		cancel()
		g.figuresWith(figures{`apiproxy_streams_open`: 0, `apiproxy_requests_in_flight`: 1, `apiproxy_request_outcomes_total{model="other",outcome="client_closed"}`: 2})
	}
}

// The gaps of a stream are those between the upstream's pieces, keep-alives or not.
func TestMetricsGaps(t *testing.T) {
	for _, ping := range []time.Duration{0, time.Hour} {
		next := make(chan bool)
		g := newGateway(t, modelsUpstream(func(w http.ResponseWriter, r *http.Request) {
			for _, piece := range []string{textChunk("a"), textChunk("b"), textChunk("c"), finishChunk + doneEvent} {
				answerStream(piece)(w, r)
				<-next
			}
		}), func(c *config) { c.StreamPing = pingInterval{ping, ping} })
		res := g.do("POST", "/v1/chat/completions", `{"model":"m","stream":true,"messages":[]}`)
		for range 4 {
			if _, err := res.Body.Read(make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			next <- true
		}
		g.logLines(1)
		got := g.figures()
		if n := got[`apiproxy_inter_token_gap_seconds_count{model="other"}`]; n < 2 || n > 4 {
			t.Errorf("%v gaps in a stream of four pieces", n)
		}
		if sum := got[`apiproxy_inter_token_gap_seconds_sum{model="other"}`]; sum <= 0 || sum > patience.Seconds() {
			t.Errorf("the gaps last %v seconds", sum)
		}
	}
}

func TestMetricsStoreDown(t *testing.T) {
	moody := newMoodyStore(t)
	store := &hookedStore{Store: moody}
	g := newGatewayOn(t, store, answerJSON(200, completion("hi")))
	store.setDown(true)
	moody.down.Store(true)
	g.chat(`{"messages":[`+userMsg("a")+`,`+assistantMsg("b")+`,`+userMsg("c")+`]}`, "X-Session-Id: s")
	g.server.watch.look(context.Background(), g.server.store, g.server.log)
	got := g.figuresWith(figures{
		`apiproxy_session_turns_total{result="deferred"}`: 1,
		`apiproxy_session_queue_turns`:                    1,
		`apiproxy_store_up`:                               0,
	})
	for _, sample := range []string{`apiproxy_session_queue_bytes`, `apiproxy_store_errors_total{operation="history"}`, `apiproxy_store_errors_total{operation="ping"}`} {
		if got[sample] < 1 {
			t.Errorf("%s is %v", sample, got[sample])
		}
	}
}

func TestMetricsModels(t *testing.T) {
	alias := func(c *config) { c.Aliases = []modelAlias{{"exact", "m1"}, {"claude-*", "m2"}} }
	g := newGateway(t, modelsUpstream(answerJSON(200, completion("hi")), "m1", "m2"), alias)
	label := func(name string) string {
		return fmt.Sprintf(`apiproxy_request_outcomes_total{model="%s",outcome="ok"}`, name)
	}
	chat := func(model string) { g.chat(`{"model":"` + model + `","messages":[]}`) }
	chat("m1") // before anything is known
	g.figuresWith(figures{label("other"): 1})
	// Looking at the metrics has made the list known.
	eventually(t, "a list of models", func() bool { return g.server.models.held("") != nil })
	for _, model := range []string{"m1", "exact", "claude-opus", "m3", `x\"\n{}`} {
		chat(model)
	}
	got := g.figuresWith(figures{label("m1"): 1, label("exact"): 1, label("m2"): 1, label("other"): 3})
	if _, there := got[label("none")]; !there {
		t.Error("requests without a model have no label")
	}
	asked := 0
	for _, seen := range g.upstream.all() {
		if strings.HasSuffix(seen.URL.Path, "/models") {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("the upstream was asked for its list %d times", asked)
	}
}

func TestMetricsStaticModels(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("hi")), func(c *config) { c.ModelsStatic = []string{"mine"} })
	g.chat(`{"model":"mine","messages":[]}`)
	g.figuresWith(figures{`apiproxy_request_outcomes_total{model="mine",outcome="ok"}`: 1})
	for _, seen := range g.upstream.all() {
		if strings.HasSuffix(seen.URL.Path, "/models") {
			t.Error("the upstream was asked for a list")
		}
	}
}

func TestMetricsAccess(t *testing.T) {
	for _, tt := range []struct {
		mode   authMode
		key    string
		status int
	}{
		{authKeys, "", 401},
		{authKeys, "wrong", 401},
		{authKeys, testKey, 200},
		{authOff, "", 200},
		{authPassthrough, "", 401},
		{authPassthrough, "client-of-the-upstream", 404},
	} {
		g := newGateway(t, answerJSON(200, completion("hi")), func(c *config) { c.Auth = tt.mode })
		header := "Authorization: "
		if tt.key != "" {
			header += "Bearer " + tt.key
		}
		if res := g.do("GET", "/metrics", "", header); res.StatusCode != tt.status {
			t.Errorf("mode %s, key %q: GET /metrics = %d, want %d", tt.mode, tt.key, res.StatusCode, tt.status)
		}
	}
}

// In mode passthrough every key has one label, and no list is fetched without one.
func TestMetricsPassthrough(t *testing.T) {
	g := newGateway(t, modelsUpstream(answerJSON(200, completion("hi")), "m"), func(c *config) { c.Auth = authPassthrough })
	for _, key := range []string{"key-number-one", "key-number-two"} {
		readAll(t, g.do("GET", "/v1/models", "", "Authorization: Bearer "+key))
		g.chat(`{"model":"m","messages":[]}`, "Authorization: Bearer "+key)
	}
	g.logLines(4)
	before := len(g.upstream.all())
	text := string(g.operatorMetrics())
	if strings.Contains(text, "key-number") {
		t.Errorf("a key is in the metrics: %s", text)
	}
	const want = `apiproxy_requests_total{route="/v1/chat/completions",dialect="openai",model="m",status="200",key="passthrough"}`
	if got := readFigures(t, text)[want]; got != 2 {
		t.Errorf("%s is %v, want 2", want, got)
	}
	if after := len(g.upstream.all()); after != before {
		t.Errorf("%d requests to the upstream for the metrics", after-before)
	}
}

// operatorMetrics is GET /metrics as METRICS_ADDR serves it.
func (g *gateway) operatorMetrics() []byte {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.server.operatorHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		g.t.Fatalf("GET /metrics = %d %s", w.Code, w.Body)
	}
	return w.Body.Bytes()
}

func TestMetricsAreBounded(t *testing.T) {
	m := newMetrics()
	for i := range 3 * maxModelLabels {
		m.series(requestLabels{route: "/", model: fmt.Sprint("model-", i), status: 200})
	}
	for i := range maxRequestSeries {
		m.series(requestLabels{route: "/", model: labelNone, key: fmt.Sprint("key-", i), status: 200})
	}
	late := m.series(requestLabels{route: "/late", dialect: "gemini", model: labelNone, key: "late", status: 201})
	if want := (requestLabels{labelOther, labelOther, labelNone, labelOther, 0}); late.labels != want {
		t.Errorf("a late combination counts as %v, want %v", late.labels, want)
	}
	if again := m.series(requestLabels{route: "/later", model: labelNone}); again != late {
		t.Errorf("another one counts as %v", again.labels)
	}
	if len(m.models) > maxModelLabels+2 || len(m.requests) > maxRequestSeries+1 || len(m.index) > maxRequestSeries+maxModelLabels+2 {
		t.Errorf("%d models, %d series, %d combinations", len(m.models), len(m.requests), len(m.index))
	}
	beyond := m.series(requestLabels{route: "/", model: fmt.Sprint("model-", maxModelLabels+50), status: 200})
	if beyond.labels.model != labelOther || beyond.model.name != labelOther {
		t.Errorf("a model above the limit counts as %v", beyond.labels)
	}
}

func TestMetricsText(t *testing.T) {
	var text metricsText
	text.family("x_total", kindCounter, "A help.")
	text.sample("x_total", 1)
	text.sample("x_total", 1e21, "a", "back\\slash \"quote\"\nline", "b", "\xff é")
	text.sample("x_total", 0.1, "a", "")
	const want = "# HELP x_total A help.\n# TYPE x_total counter\nx_total 1\n" +
		`x_total{a="back\\slash \"quote\"\nline",b="` + "\ufffd é" + `"} 1e+21` + "\n" + `x_total{a=""} 0.1` + "\n"
	if string(text.b) != want {
		t.Errorf("got\n%s\nwant\n%s", text.b, want)
	}
	readFigures(t, string(text.b))
}

func TestHistogram(t *testing.T) {
	h := newHistogram([]time.Duration{time.Millisecond, time.Second})
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Second, time.Hour} {
		h.observe(d)
	}
	var text metricsText
	text.histogram("x", h, "a", "b")
	const want = `x_bucket{a="b",le="0.001"} 2
x_bucket{a="b",le="1"} 4
x_bucket{a="b",le="+Inf"} 5
x_sum{a="b"} 3601.002000001
x_count{a="b"} 5
`
	if string(text.b) != want {
		t.Errorf("got\n%s\nwant\n%s", text.b, want)
	}
	if answerBuckets != len(answerBounds)+1 {
		t.Errorf("%d buckets for %d bounds", answerBuckets, len(answerBounds))
	}
	if !slices.IsSorted(answerBounds) || !slices.IsSorted(storeBounds) {
		t.Error("bounds are out of order")
	}
}

func TestGapCounts(t *testing.T) {
	var g gapCounts
	for _, ms := range []time.Duration{0, 100, 104, 160, 160_000} { // the first piece came at 100
		g.readAt(ms * time.Millisecond)
	}
	h := newHistogram(answerBounds)
	h.merge(&g)
	h.merge(&gapCounts{})
	var text metricsText
	text.histogram("gap", h)
	for _, want := range []string{`le="0.005"} 1`, `le="0.05"} 1`, `le="0.1"} 2`, `le="120"} 2`, `le="300"} 3`, "gap_sum 159.9\n", "gap_count 3\n"} {
		if !strings.Contains(string(text.b), want) {
			t.Errorf("no %q in\n%s", want, text.b)
		}
	}
}

// BenchmarkMetrics is what counting costs: a request, a piece of a stream, and the
// text for a gateway with many models.
func BenchmarkMetrics(b *testing.B) {
	newServerOf := func(models int) *server {
		cfg, _, err := loadConfig(map[string]string{"A4F_BASE_URL": "http://127.0.0.1:1", "A4F_API_KEY": testUpstream})
		if err != nil {
			b.Fatal(err)
		}
		for i := range models {
			cfg.ModelsStatic = append(cfg.ModelsStatic, fmt.Sprint("vendor/model-", i))
		}
		store, err := newStore(cfg)
		if err != nil {
			b.Fatal(err)
		}
		s := newServer(cfg, store, slog.New(slog.DiscardHandler))
		b.Cleanup(func() { s.Close(context.Background()) })
		return s
	}
	exchangeOfModel := func(i int) *exchange {
		return &exchange{route: "/v1/chat/completions", dialect: &openai, source: "openai", chat: true, stream: true, model: fmt.Sprint("vendor/model-", i),
			cred: credential{Label: "key1"}, start: time.Now(), firstByte: time.Second, outcome: outcomeOK, streaming: true,
			usage: usage{Known: true, Prompt: 1000, Completion: 100}, gaps: gapCounts{sum: 1, buckets: [answerBuckets]uint32{100, 2, 3}}}
	}
	b.Run("request", func(b *testing.B) {
		s, x := newServerOf(100), exchangeOfModel(7)
		b.ReportAllocs()
		start := cpuTime()
		for b.Loop() {
			s.observe(x, 200)
		}
		b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
	})
	b.Run("requests at once", func(b *testing.B) {
		s := newServerOf(100)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			x := exchangeOfModel(7)
			for pb.Next() {
				s.observe(x, 200)
			}
		})
	})
	b.Run("chunk", func(b *testing.B) {
		var g gapCounts
		var now time.Duration
		b.ReportAllocs()
		for b.Loop() {
			now += 20 * time.Millisecond
			g.readAt(now)
		}
	})
	b.Run("text", func(b *testing.B) {
		s := newServerOf(100)
		for i := range 100 {
			s.observe(exchangeOfModel(i), 200)
		}
		b.ReportAllocs()
		start := cpuTime()
		for b.Loop() {
			w := httptest.NewRecorder()
			s.serveMetrics(w, nil)
			b.SetBytes(int64(w.Body.Len()))
		}
		b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
	})
}
