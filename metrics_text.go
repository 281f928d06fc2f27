package main

import (
	"cmp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// metricsText is written in Prometheus's text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
type metricsText struct{ b []byte }

// The kinds of metrics that there are.
const (
	kindCounter   = "counter"
	kindGauge     = "gauge"
	kindHistogram = "histogram"
	kindSummary   = "summary"
)

// family begins a metric; its samples follow.
func (t *metricsText) family(name, kind, help string) {
	t.b = append(t.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// sample is one value. labels are names and values in turn.
func (t *metricsText) sample(name string, value float64, labels ...string) {
	t.b = append(t.b, name...)
	before := byte('{')
	for pair := range slices.Chunk(labels, 2) {
		t.b = append(append(append(t.b, before), pair[0]...), '=', '"')
		t.b = append(append(t.b, escapeLabel(pair[1])...), '"')
		before = ','
	}
	if len(labels) > 0 {
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, ' ')
	t.b = append(strconv.AppendFloat(t.b, value, 'g', -1, 64), '\n')
}

// single is a metric that has one value.
func (t *metricsText) single(name, kind, help string, value float64) {
	t.family(name, kind, help)
	t.sample(name, value)
}

// histogram is the samples of h. Each bucket holds those below it, and the count is
// made of the same look at the buckets as they are.
func (t *metricsText) histogram(name string, h *histogram, labels ...string) {
	within := uint64(0)
	for i := range h.buckets {
		within += h.buckets[i].Load()
		bound := "+Inf"
		if i < len(h.bounds) {
			bound = strconv.FormatFloat(h.bounds[i].Seconds(), 'g', -1, 64)
		}
		t.sample(name+"_bucket", float64(within), append(slices.Clip(labels), "le", bound)...)
	}
	t.sample(name+"_sum", time.Duration(h.sum.Load()).Seconds(), labels...)
	t.sample(name+"_count", float64(within), labels...)
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func escapeLabel(value string) string {
	return labelEscapes.Replace(strings.ToValidUTF8(value, "\ufffd"))
}

// writeMetrics puts the gateway's own figures into t.
func (s *server) writeMetrics(t *metricsText) {
	build := buildSettings()
	t.family("apiproxy_build_info", kindGauge, "The build that runs, in its labels; always 1.")
	t.sample("apiproxy_build_info", 1, "version", version(), "revision", build["vcs.revision"], "goversion", runtime.Version())
	t.single("apiproxy_requests_in_flight", kindGauge, "Requests that are being answered.", float64(s.inFlight.Load()))
	t.single("apiproxy_streams_open", kindGauge, "Answers that are being streamed.", float64(s.metrics.streams.Load()))
	requests, durations, models := s.metrics.all()
	t.requests(requests, durations)
	t.models(models)
	t.sessions(s.sessions)
	t.store(&s.metrics.store, s.watch.up())
	t.family("apiproxy_model_list_requests_total", kindCounter, "Looks at the cached model list: a hit, stale when an old list was served, a miss when the caller waited for the upstream.")
	t.sample("apiproxy_model_list_requests_total", float64(s.models.hits.Load()), "result", "hit")
	t.sample("apiproxy_model_list_requests_total", float64(s.models.stale.Load()), "result", "stale")
	t.sample("apiproxy_model_list_requests_total", float64(s.models.misses.Load()), "result", "miss")
}

func (t *metricsText) requests(requests []*requestSeries, durations []*durationSeries) {
	t.family("apiproxy_requests_total", kindCounter, "Requests that are over, by the label of the client's key, never the key itself.")
	for _, r := range requests {
		status := labelOther
		if r.labels.status != 0 {
			status = strconv.Itoa(r.labels.status)
		}
		t.sample("apiproxy_requests_total", float64(r.count.Load()),
			"route", r.labels.route, "dialect", r.labels.dialect, "model", r.labels.model, "status", status, "key", r.labels.key)
	}
	t.family("apiproxy_request_duration_seconds", kindHistogram, "Time from a request to the end of its answer.")
	for _, d := range durations {
		t.histogram("apiproxy_request_duration_seconds", d.histogram, "route", d.labels.route, "model", d.labels.model)
	}
}

func (t *metricsText) models(models []*modelSeries) {
	t.family("apiproxy_request_outcomes_total", kindCounter, "How requests ended: ok, client_closed, upstream_error, or incomplete when the answer broke off.")
	for _, m := range models {
		for i, o := range outcomes {
			t.sample("apiproxy_request_outcomes_total", float64(m.outcomes[i].Load()), "model", m.name, "outcome", string(o))
		}
	}
	for _, f := range []struct {
		name, help string
		of         func(*modelSeries) *histogram
	}{
		{"apiproxy_time_to_first_token_seconds", "Time from a request to the first piece of its stream.", func(m *modelSeries) *histogram { return m.firstToken }},
		{"apiproxy_inter_token_gap_seconds", "Time between two pieces of the upstream's stream.", func(m *modelSeries) *histogram { return m.gaps }},
	} {
		t.family(f.name, kindHistogram, f.help)
		for _, m := range models {
			t.histogram(f.name, f.of(m), "model", m.name)
		}
	}
	for _, f := range []struct {
		name, help string
		of         func(*modelSeries) *atomic.Uint64
	}{
		{"apiproxy_input_tokens_total", "Tokens of prompts, where the upstream told.", func(m *modelSeries) *atomic.Uint64 { return &m.input }},
		{"apiproxy_cached_input_tokens_total", "Tokens of prompts that the upstream read from its cache; part of the input tokens.", func(m *modelSeries) *atomic.Uint64 { return &m.cached }},
		{"apiproxy_output_tokens_total", "Tokens of answers, where the upstream told.", func(m *modelSeries) *atomic.Uint64 { return &m.output }},
		{"apiproxy_reasoning_tokens_total", "Tokens of reasoning; part of the output tokens.", func(m *modelSeries) *atomic.Uint64 { return &m.reasoning }},
	} {
		t.family(f.name, kindCounter, f.help)
		for _, m := range models {
			t.sample(f.name, float64(f.of(m).Load()), "model", m.name)
		}
	}
}

func (t *metricsText) sessions(s *sessions) {
	t.family("apiproxy_session_turns_total", kindCounter, "Turns of sessions, by what became of them.")
	for i, became := range storings {
		t.sample("apiproxy_session_turns_total", float64(s.turns[i].Load()), "result", cmp.Or(string(became), "stored"))
	}
	turns, bytes := s.backlog()
	t.single("apiproxy_session_queue_turns", kindGauge, "Turns that wait for the store to come back.", float64(turns))
	t.single("apiproxy_session_queue_bytes", kindGauge, "Memory that the waiting turns take.", float64(bytes))
}

func (t *metricsText) store(series *[storeOperations]storeSeries, up bool) {
	reached := 0.0
	if up {
		reached = 1
	}
	t.single("apiproxy_store_up", kindGauge, "Whether the store could be reached when it was last tried.", reached)
	t.family("apiproxy_store_call_duration_seconds", kindHistogram, "Time of calls to the store.")
	for i, name := range storeOperationNames {
		t.histogram("apiproxy_store_call_duration_seconds", series[i].duration, "operation", name)
	}
	t.family("apiproxy_store_errors_total", kindCounter, "Calls to the store that failed.")
	for i, name := range storeOperationNames {
		t.sample("apiproxy_store_errors_total", float64(series[i].errors.Load()), "operation", name)
	}
}
