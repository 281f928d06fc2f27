package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what is counted, whatever clients and the upstream send.
const (
	maxModelLabels   = 100    // models with figures of their own; the others share "other"
	maxRequestSeries = 20_000 // combinations of a request's labels; of later ones the model alone is told
)

// Values of labels for what has none of its own.
const (
	labelNone  = "none"  // there is nothing to name
	labelOther = "other" // there is, but it gets no series
)

// metrics are the figures of GET /metrics. Counting takes no lock but a read lock,
// and makes nothing anew but the series of labels that are seen for the first time.
type metrics struct {
	streams atomic.Int64 // answers that are being streamed
	store   [storeOperations]storeSeries

	mu        sync.RWMutex
	index     map[requestLabels]*requestSeries // of every combination that was seen; several may share one series
	requests  []*requestSeries                 // these three are in the order in which they were made
	durations []*durationSeries
	models    []*modelSeries
}

// requestLabels are the labels of apiproxy_requests_total.
type requestLabels struct {
	route, dialect, model, key string
	status                     int // 0 = other
}

// A durationSeries is the histogram of one combination of the labels of
// apiproxy_request_duration_seconds.
type durationSeries struct {
	labels struct{ route, model string }
	*histogram
}

// A requestSeries is the counter of one combination of labels, with the series
// that a request of these labels counts in beside it.
type requestSeries struct {
	labels   requestLabels
	count    atomic.Uint64
	duration *durationSeries
	model    *modelSeries
}

// modelSeries are the figures of a model.
type modelSeries struct {
	name       string
	outcomes   [len(outcomes)]atomic.Uint64
	firstToken *histogram
	gaps       *histogram
	input      atomic.Uint64
	cached     atomic.Uint64 // part of input
	output     atomic.Uint64
	reasoning  atomic.Uint64 // part of output
}

// outcomes are the values of a label, in the order of modelSeries.outcomes.
var outcomes = [...]outcome{outcomeOK, outcomeClientClosed, outcomeUpstreamError, outcomeIncomplete}

func newMetrics() *metrics {
	m := &metrics{index: map[requestLabels]*requestSeries{}}
	for i := range m.store {
		m.store[i].duration = newHistogram(storeBounds)
	}
	return m
}

// observe counts an exchange that is over.
func (s *server) observe(x *exchange, status int) {
	labels := requestLabels{route: cmp.Or(x.route, labelOther), dialect: labelNone, model: labelNone, key: cmp.Or(x.cred.Label, labelNone), status: status}
	if x.chat || x.native {
		labels.dialect = cmp.Or(x.source, x.dialect.name)
	}
	if x.model != "" {
		labels.model = cmp.Or(s.models.known(s.modelScope(x), x.model), labelOther)
	}
	s.metrics.count(x, s.metrics.series(labels))
}

// count adds an exchange to the series that its labels have.
func (m *metrics) count(x *exchange, s *requestSeries) {
	s.count.Add(1)
	s.duration.observe(time.Since(x.start))
	s.model.outcomes[max(0, slices.Index(outcomes[:], x.outcome))].Add(1)
	if x.streaming {
		m.streams.Add(-1)
		if x.firstByte > 0 {
			s.model.firstToken.observe(x.firstByte)
		}
	}
	s.model.gaps.merge(&x.gaps)
	if x.usage.Known {
		s.model.input.Add(uint64(x.usage.Prompt))
		s.model.cached.Add(uint64(x.usage.Cached))
		s.model.output.Add(uint64(x.usage.Completion))
		s.model.reasoning.Add(uint64(x.usage.Reasoning))
	}
}

// series is the series of these labels, made when it is seen first.
func (m *metrics) series(labels requestLabels) *requestSeries {
	m.mu.RLock()
	s := m.index[labels]
	if s == nil && len(m.index) >= maxRequestSeries {
		labels = requestLabels{labelOther, labelOther, labels.model, labelOther, 0}
		s = m.index[labels]
	}
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add(labels)
}

// add makes the series of labels, if it is not there. m.mu is held.
func (m *metrics) add(labels requestLabels) *requestSeries {
	if s := m.index[labels]; s != nil {
		return s
	}
	// Copies: a name may be a part of a long text that would stay in memory with it.
	labels.model, labels.key = strings.Clone(labels.model), strings.Clone(labels.key)
	model := m.model(labels.model)
	if model.name != labels.model {
		shared := labels
		shared.model = model.name
		s := m.add(shared)
		m.index[labels] = s
		return s
	}
	s := &requestSeries{labels: labels, duration: m.duration(labels.route, labels.model), model: model}
	m.index[labels] = s
	m.requests = append(m.requests, s)
	return s
}

// duration is the histogram of a route and a model. m.mu is held.
func (m *metrics) duration(route, model string) *durationSeries {
	for _, s := range m.durations {
		if s.labels.route == route && s.labels.model == model {
			return s
		}
	}
	s := &durationSeries{histogram: newHistogram(answerBounds)}
	s.labels.route, s.labels.model = route, model
	m.durations = append(m.durations, s)
	return s
}

// model is the series of a model: the one that is shared, once there are too many.
// m.mu is held.
func (m *metrics) model(name string) *modelSeries {
	for _, s := range m.models {
		if s.name == name {
			return s
		}
	}
	if len(m.models) >= maxModelLabels && name != labelOther && name != labelNone {
		return m.model(labelOther)
	}
	s := &modelSeries{name: name, firstToken: newHistogram(answerBounds), gaps: newHistogram(answerBounds)}
	m.models = append(m.models, s)
	return s
}

// all are the series that there are. A series is never taken away, so the slices
// stay as they are while others are added.
func (m *metrics) all() ([]*requestSeries, []*durationSeries, []*modelSeries) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.requests, m.durations, m.models
}

// streamBegins counts an answer among the open streams if it is one.
func (m *metrics) streamBegins(x *exchange, res *http.Response) {
	if isEventStream(res.Header) || x.stream && x.jsonArray() {
		x.streaming = true
		m.streams.Add(1)
	}
}

// modelScope is the list of models that an exchange's client has.
func (s *server) modelScope(x *exchange) string {
	if s.keys.mode == authPassthrough {
		return x.cred.Owner
	}
	return ""
}

// Upper bounds of buckets: of what an upstream takes, from a fast chunk to the
// longest answer, and of what a store takes, from memory to its time-out.
var (
	answerBounds = []time.Duration{
		5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	}
	storeBounds = []time.Duration{
		10 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
		5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second,
	}
)

// answerBuckets is the number of buckets of answerBounds, the last without a bound.
const answerBuckets = 17

// A histogram counts durations by bucket.
type histogram struct {
	bounds  []time.Duration
	buckets []atomic.Uint64 // one more than bounds
	sum     atomic.Int64    // nanoseconds
}

func newHistogram(bounds []time.Duration) *histogram {
	return &histogram{bounds: bounds, buckets: make([]atomic.Uint64, len(bounds)+1)}
}

func (h *histogram) observe(d time.Duration) {
	h.buckets[bucketOf(h.bounds, d)].Add(1)
	h.sum.Add(int64(d))
}

// bucketOf is the place of the first bound that holds d. It looks from below:
// most durations are short.
func bucketOf(bounds []time.Duration, d time.Duration) int {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	return i
}

// merge adds the gaps of a stream.
func (h *histogram) merge(g *gapCounts) {
	if g.sum == 0 {
		return
	}
	for i, n := range g.buckets {
		if n > 0 {
			h.buckets[i].Add(uint64(n))
		}
	}
	h.sum.Add(int64(g.sum))
}

// gapCounts are the times between the pieces of one stream. They are the
// stream's own until it is over, so that a piece takes no lock and shares nothing.
type gapCounts struct {
	calls   int
	last    time.Duration
	sum     time.Duration
	buckets [answerBuckets]uint32
}

// readAt notes when the stream's reader is asked for the next piece, which is when
// the one before it has been dealt with. The time from the first call to the
// second is the wait for the first piece, and no gap.
func (g *gapCounts) readAt(now time.Duration) {
	if g.calls++; g.calls > 2 {
		gap := now - g.last
		g.buckets[bucketOf(answerBounds, gap)]++
		g.sum += gap
	}
	g.last = now
}

// turnCounts count turns by what became of them.
type turnCounts [len(storings)]atomic.Uint64

// storings are all that can become of a turn, in the order of turnCounts.
var storings = [...]storing{stored, storeDeferred, storeTooLarge, storeNotStored}

func (c *turnCounts) add(became storing) { c[max(0, slices.Index(storings[:], became))].Add(1) }

// storeSeries are the figures of one operation of the store.
type storeSeries struct {
	duration *histogram // counts the calls
	errors   atomic.Uint64
}

// The operations of a store, in the order of metrics.store.
const (
	storeHistory = iota
	storeAppend
	storeReplace
	storeDelete
	storeGet
	storeSet
	storePing
	storeOperations
)

var storeOperationNames = [storeOperations]string{"history", "append", "replace", "delete", "get", "set", "ping"}

// A measuredStore counts the calls of a store.
type measuredStore struct {
	Store
	series *[storeOperations]storeSeries
}

func (m measuredStore) count(operation int, began time.Time, err error) {
	s := &m.series[operation]
	s.duration.observe(time.Since(began))
	if err != nil && !errors.Is(err, errNotFound) {
		s.errors.Add(1)
	}
}

func (m measuredStore) History(ctx context.Context, s sessionKey, pick threadPick) (*sessionRecord, error) {
	began := time.Now()
	rec, err := m.Store.History(ctx, s, pick)
	m.count(storeHistory, began, err)
	return rec, err
}

func (m measuredStore) Append(ctx context.Context, s sessionKey, w threadWrite) error {
	began := time.Now()
	err := m.Store.Append(ctx, s, w)
	m.count(storeAppend, began, err)
	return err
}

func (m measuredStore) Replace(ctx context.Context, s sessionKey, w threadWrite) error {
	began := time.Now()
	err := m.Store.Replace(ctx, s, w)
	m.count(storeReplace, began, err)
	return err
}

func (m measuredStore) Delete(ctx context.Context, s sessionKey) error {
	began := time.Now()
	err := m.Store.Delete(ctx, s)
	m.count(storeDelete, began, err)
	return err
}

func (m measuredStore) Get(ctx context.Context, key string) ([]byte, error) {
	began := time.Now()
	value, err := m.Store.Get(ctx, key)
	m.count(storeGet, began, err)
	return value, err
}

func (m measuredStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	began := time.Now()
	err := m.Store.Set(ctx, key, value, ttl)
	m.count(storeSet, began, err)
	return err
}

func (m measuredStore) Ping(ctx context.Context) error {
	began := time.Now()
	err := m.Store.Ping(ctx)
	m.count(storePing, began, err)
	return err
}

// handleMetrics serves GET /metrics to clients. In mode passthrough anybody's key
// gets this far, and the figures are the operator's.
func (s *server) handleMetrics(w http.ResponseWriter, r *http.Request) {
	if s.keys.mode == authPassthrough {
		writeError(w, exchangeOf(r), &apiError{
			Status: http.StatusNotFound, Type: "invalid_request_error", Code: "unknown_url", NoRetry: true,
			Message: "with APIPROXY_AUTH=passthrough, metrics are served on METRICS_ADDR alone",
		})
		return
	}
	s.serveMetrics(w, r)
}

// serveMetrics writes the figures. It sees to it that there is a list of models,
// without which no model is known by name.
func (s *server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	if s.keys.mode != authPassthrough {
		s.models.warm()
	}
	var t metricsText
	s.writeMetrics(&t)
	writeRuntime(&t)
	writeProcess(&t)
	h := w.Header()
	h.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(t.b)))
	w.Write(t.b)
}
