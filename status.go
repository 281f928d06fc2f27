package main

import (
	"errors"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How much of the past GET /status remembers. A key in use takes some 70 kB, the
// texts of its rows included, and statusOwners of them less than 20 MB.
const (
	statusRows    = 200 // requests of each key
	statusMinutes = 60  // minutes of each key
	statusOwners  = 256 // keys; in mode passthrough anyone may bring new ones
	statusText    = 128 // bytes of a text in a row
)

// A statusBook remembers each key's last requests, and its figures by the minute.
// What it is told takes one short lock and, once a key is known, no memory.
type statusBook struct {
	mu     sync.Mutex
	owners map[string]*ownerStatus
	uses   uint64 // counts accesses, to know which key was used least recently
}

func newStatusBook() *statusBook { return &statusBook{owners: map[string]*ownerStatus{}} }

// An ownerStatus is what one key did.
type ownerStatus struct {
	used    uint64
	last    int64       // the number of the newest row
	rows    []statusRow // a ring, once there are statusRows of them
	next    int         // where it begins: the oldest row
	minutes [statusMinutes]statusMinute
}

// A statusRow is one request that is over.
type statusRow struct {
	Seq        int64     `json:"seq"` // grows with each row, over restarts too
	ID         string    `json:"id"`
	Time       time.Time `json:"time"` // its arrival
	Method     string    `json:"method"`
	Route      string    `json:"route"`
	Status     int       `json:"status"`
	Outcome    outcome   `json:"outcome"`
	Dialect    string    `json:"dialect,omitempty"`
	Model      string    `json:"model,omitempty"`
	Stream     bool      `json:"stream"`
	Session    string    `json:"session,omitempty"`
	DurationMS float64   `json:"duration_ms"`
	FirstMS    float64   `json:"first_byte_ms,omitempty"` // absent when the upstream sent nothing
	Code       string    `json:"code,omitempty"`          // of the error that the client was told
	Error      string    `json:"error,omitempty"`

	usage    usage
	upstream bool // the upstream answered
}

// A statusMinute is a minute's sum over rows.
type statusMinute struct {
	minute             int64 // since 1970
	last               int64 // the number of its newest row
	requests, errors   int64
	prompt, completion int64
	duration, first    latencies
}

// recordStatus takes down a request that is over, under the key that sent it.
func (s *server) recordStatus(w *statusWriter, r *http.Request, x *exchange) {
	if x.cred.Owner == "" || x.route == "/status" || x.route == "/metrics" { // looking is no traffic
		return
	}
	row := statusRow{
		ID: x.id, Time: x.start, Method: methodName(r.Method), Route: x.route, Status: w.status, Outcome: x.outcome,
		DurationMS: inMilliseconds(time.Since(x.start)), FirstMS: inMilliseconds(x.firstByte), usage: x.usage, upstream: x.upstreamStatus != 0,
	}
	if row.Status == 0 {
		row.Status = 499 // the client left before there was one
	}
	if x.chat || x.native {
		row.Dialect, row.Model, row.Stream = x.source, printable(x.model), x.stream
		if row.Dialect == "" {
			row.Dialect = x.dialect.name
		}
	}
	if x.session != nil {
		row.Session = x.session.key.ID
	}
	if e := (*apiError)(nil); errors.As(x.failure, &e) { // not its cause, which is the operator's
		row.Code, row.Error = e.Code, s.unsecret(x, e.Message)
	}
	row.Model, row.Code, row.Error = clipped(row.Model), clipped(row.Code), clipped(row.Error)
	s.status.add(x.cred.Owner, time.Now(), &row)
}

// methodName is a method's name in memory of its own: the one in a request is
// part of a line that may be long.
func methodName(method string) string {
	for _, known := range [...]string{"POST", "GET", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"} {
		if method == known {
			return known
		}
	}
	return strings.Clone(method[:min(len(method), 16)])
}

// clipped is text cut to what a row holds, without keeping the rest in memory.
func clipped(text string) string {
	if len(text) > statusText {
		return strings.ToValidUTF8(text[:statusText], "") + "…"
	}
	return text
}

func (b *statusBook) add(owner string, now time.Time, row *statusRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owner(owner, now).add(now, row)
}

// owner finds what a key did, or begins it in the place of the key that was used
// least recently.
func (b *statusBook) owner(name string, now time.Time) *ownerStatus {
	b.uses++
	o := b.owners[name]
	if o == nil {
		o = &ownerStatus{}
		if len(b.owners) >= statusOwners {
			o = b.evict()
		}
		// A page that looks on after a restart must not take new rows for old ones.
		o.last = now.UnixMicro()
		b.owners[name] = o
	}
	o.used = b.uses
	return o
}

// evict forgets the key that was used least recently, and returns its memory.
func (b *statusBook) evict() *ownerStatus {
	var oldest string
	for name, o := range b.owners {
		if oldest == "" || o.used < b.owners[oldest].used {
			oldest = name
		}
	}
	o := b.owners[oldest]
	delete(b.owners, oldest)
	clear(o.rows)
	*o = ownerStatus{rows: o.rows[:0]}
	return o
}

func (o *ownerStatus) add(now time.Time, row *statusRow) {
	o.last++
	row.Seq = o.last
	if len(o.rows) < statusRows {
		o.rows = append(o.rows, *row)
	} else {
		o.rows[o.next] = *row
		o.next = (o.next + 1) % statusRows
	}
	minute := now.Unix() / 60
	m := &o.minutes[minute%statusMinutes]
	if m.minute != minute {
		*m = statusMinute{minute: minute}
	}
	m.add(row)
}

func (m *statusMinute) add(row *statusRow) {
	m.last = row.Seq
	m.requests++
	if row.failed() {
		m.errors++
	}
	if row.usage.Known {
		m.prompt += row.usage.Prompt
		m.completion += row.usage.Completion
	}
	if row.upstream { // what the gateway answers by itself would only make it look fast
		m.duration.add(row.DurationMS)
		m.first.add(row.FirstMS)
	}
}

// failed says whether a request counts as an error. A client that leaves is none.
func (r *statusRow) failed() bool {
	return r.Outcome != outcomeClientClosed && (r.Status >= 400 || r.Outcome != outcomeOK)
}

// latencies is a histogram of times. Its bounds are the powers of two from a
// quarter of a millisecond to 17 minutes, and the middles between them.
type latencies [46]uint32

func (l *latencies) add(ms float64) { l[latencyBucket(ms)]++ }

func latencyBucket(ms float64) int {
	eighths := uint64(max(ms, 0) * 8)
	if eighths < 2 {
		return 0
	}
	octave := bits.Len64(eighths) - 2
	upper := int(eighths>>octave) & 1
	return min(1+2*octave+upper, len(latencies{})-1)
}

// latencyBound is where a bucket begins, in milliseconds.
func latencyBound(bucket int) float64 {
	if bucket == 0 {
		return 0
	}
	octave, upper := (bucket-1)/2, (bucket-1)%2
	return float64(uint64(2+upper)<<octave) / 8
}

// percentiles are three of a histogram's, in milliseconds.
type percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
}

// percentiles is nil for a histogram that is empty.
func (l *latencies) percentiles() *percentiles {
	total := uint32(0)
	for _, n := range l {
		total += n
	}
	if total == 0 {
		return nil
	}
	return &percentiles{l.quantile(0.5, total), l.quantile(0.9, total), l.quantile(0.99, total)}
}

// quantile is the time under which the part q of all is, taken to be spread evenly
// within a bucket.
func (l *latencies) quantile(q float64, total uint32) float64 {
	rank, below := q*float64(total), 0.0
	for i, n := range l {
		if below+float64(n) >= rank && n > 0 {
			from, to := latencyBound(i), latencyBound(i+1)
			return from + (to-from)*(rank-below)/float64(n)
		}
		below += float64(n)
	}
	return latencyBound(len(l))
}

func (l *latencies) merge(other *latencies) {
	for i, n := range other {
		l[i] += n
	}
}

// statusView is the body of GET /status.
type statusView struct {
	Key       string       `json:"key"` // its label
	Version   string       `json:"version"`
	Store     string       `json:"store"`
	StartedAt time.Time    `json:"started_at"`
	Time      time.Time    `json:"time"`
	Seq       int64        `json:"seq"`      // to be sent as since the next time
	Requests  []rowView    `json:"requests"` // the oldest first
	Minutes   []minuteView `json:"minutes"`  // those with requests
	Hour      minuteView   `json:"hour"`     // all of them
}

type rowView struct {
	statusRow
	PromptTokens     *int64 `json:"prompt_tokens,omitempty"` // absent when the upstream did not tell
	CompletionTokens *int64 `json:"completion_tokens,omitempty"`
}

type minuteView struct {
	Time             time.Time    `json:"time"` // its beginning
	Requests         int64        `json:"requests"`
	Errors           int64        `json:"errors"`
	PromptTokens     int64        `json:"prompt_tokens"`
	CompletionTokens int64        `json:"completion_tokens"`
	DurationMS       *percentiles `json:"duration_ms,omitempty"` // of requests that the upstream answered
	FirstMS          *percentiles `json:"first_byte_ms,omitempty"`
}

// handleStatus serves GET /status: what the caller's key did lately. With
// ?since=N, N being the seq of an earlier answer, only what is new since then.
func (s *server) handleStatus(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	since, err := statusSince(r.URL.Query()["since"])
	if err != nil {
		writeError(w, x, err)
		return
	}
	now := time.Now()
	view := s.status.view(x.cred.Owner, now, since)
	view.Key, view.Version, view.Store, view.StartedAt = x.cred.Label, version(), s.store.Name(), s.started.UTC()
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, view)
}

func statusSince(values []string) (int64, error) {
	if len(values) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 0 || len(values) > 1 {
		return 0, badRequest("since", "since: not the seq of an answer of GET /status; accepted: one whole number, or none")
	}
	return n, nil
}

// view is what a key did after the row since.
func (b *statusBook) view(owner string, now time.Time, since int64) *statusView {
	o := b.copyOf(owner)
	v := &statusView{Time: now.UTC(), Seq: o.last, Requests: []rowView{}, Minutes: []minuteView{}}
	for i := range o.rows {
		if row := &o.rows[i]; row.Seq > since {
			v.Requests = append(v.Requests, row.view())
		}
	}
	oldest := now.Unix()/60 - statusMinutes + 1
	hour := statusMinute{minute: oldest}
	slices.SortFunc(o.minutes[:], func(a, b statusMinute) int { return int(a.minute - b.minute) })
	for i := range o.minutes {
		m := &o.minutes[i]
		if m.minute < oldest {
			continue
		}
		hour.merge(m)
		if m.last > since {
			v.Minutes = append(v.Minutes, m.view())
		}
	}
	v.Hour = hour.view()
	return v
}

// copyOf is what a key did, with its rows in order, so that nothing is worked out
// under the lock.
func (b *statusBook) copyOf(owner string) *ownerStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.owners[owner]
	if o == nil {
		return &ownerStatus{}
	}
	b.uses++
	o.used = b.uses
	c := *o
	c.rows = slices.Concat(o.rows[o.next:], o.rows[:o.next])
	return &c
}

func (r *statusRow) view() rowView {
	v := rowView{statusRow: *r}
	v.Time = r.Time.UTC()
	if r.usage.Known {
		v.PromptTokens, v.CompletionTokens = &v.usage.Prompt, &v.usage.Completion
	}
	return v
}

func (m *statusMinute) merge(other *statusMinute) {
	m.requests += other.requests
	m.errors += other.errors
	m.prompt += other.prompt
	m.completion += other.completion
	m.duration.merge(&other.duration)
	m.first.merge(&other.first)
}

func (m *statusMinute) view() minuteView {
	return minuteView{
		Time: time.Unix(m.minute*60, 0).UTC(), Requests: m.requests, Errors: m.errors, PromptTokens: m.prompt, CompletionTokens: m.completion,
		DurationMS: m.duration.percentiles(), FirstMS: m.first.percentiles(),
	}
}
