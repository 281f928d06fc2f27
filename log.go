package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// LOG_BODIES shows the beginning of a body. More of it is kept than is shown, so
// that a key across the cut is still known for one and masked.
const (
	maxLoggedBody = 9 << 10
	maxShownBody  = 8 << 10
)

// requestMessage is the message of a request's log line.
const requestMessage = "request"

// logged makes the exchange of each request, answers panics, and writes one log
// line when it is over.
func (s *server) logged(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, r := newExchange(r)
		x.id = requestID(r)
		x.trace = printable(r.Header.Get("Traceparent"))
		sw := newStatusWriter(w, s.cfg.LogBodies)
		h := sw.Header()
		h["X-Request-Id"] = []string{x.id}
		h["X-Content-Type-Options"] = nosniff
		defer s.finish(sw, r, x)
		next(sw, r)
	})
}

// nosniff is shared by all answers.
var nosniff = []string{"nosniff"}

// finish ends an exchange, whatever way its handler ended.
func (s *server) finish(w *statusWriter, r *http.Request, x *exchange) {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		s.log.Error("panic", "id", x.id, "panic", s.unsecret(x, fmt.Sprint(p)), "stack", s.unsecret(x, string(debug.Stack())))
		x.failure = errors.New("panic")
		if w.status == 0 {
			writeError(w, x, &apiError{Status: http.StatusInternalServerError, Type: "server_error", Message: "the gateway failed at this request; its log has the reason under the id " + x.id})
			p = nil
		}
	}
	switch {
	case x.outcome != outcomeOK || x.complete || w.whole():
	case x.clientGone() || w.err != nil:
		x.outcome = outcomeClientClosed
	case p == http.ErrAbortHandler:
		x.breakOff(cutOffReason(x))
	}
	s.recordStatus(w, r, x)
	s.observe(x, w.answered(x))
	s.logExchange(w, r, x)
	x.cancel(errAnswerOver)
	if p != nil {
		panic(http.ErrAbortHandler) // the connection is closed: the client must not take the answer for whole
	}
}

// cutOffReason is why an answer ended before its end, when nobody has said so.
func cutOffReason(x *exchange) error {
	if cause := context.Cause(x.ctx); cause != nil {
		return cause
	}
	return errors.New("the upstream's answer broke off before its end")
}

func (s *server) logExchange(w *statusWriter, r *http.Request, x *exchange) {
	level := slog.LevelInfo
	switch {
	case x.outcome == outcomeUpstreamError || x.outcome == outcomeIncomplete:
		level = slog.LevelWarn
	case x.route == "/health" || x.route == "/ready" || x.route == "/status" || x.route == "/metrics":
		level = slog.LevelDebug
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	logLine(s.log.Handler(), level, requestMessage, func(f lineFields) { s.describe(f, w, r, x) })
}

// describe fills the line of a request.
func (s *server) describe(f lineFields, w *statusWriter, r *http.Request, x *exchange) {
	f.text("id", x.id)
	f.text("method", r.Method)
	f.text("route", x.route)
	f.count("status", int64(w.answered(x)))
	f.text("outcome", string(x.outcome))
	f.text("key", x.cred.Label)
	if x.chat || x.native {
		f.text("dialect", cmp.Or(x.source, x.dialect.name))
		f.text("model", s.unsecret(x, printable(x.model)))
		f.flag("stream", x.stream)
		f.text("fidelity", string(x.fidelity))
	}
	if len(x.dropped) > 0 {
		f.text("dropped", strings.Join(x.dropped, ","))
	}
	if x.session != nil {
		f.text("session", s.unsecret(x, x.session.key.ID))
	}
	if x.upstreamStatus != 0 {
		f.count("upstream_status", int64(x.upstreamStatus))
		f.milliseconds("first_byte_ms", x.firstByte)
	}
	f.milliseconds("duration_ms", time.Since(x.start))
	f.count("bytes_in", x.bytesIn)
	f.count("bytes_out", w.bytes)
	if x.usage.Known {
		f.count("prompt_tokens", x.usage.Prompt)
		f.count("completion_tokens", x.usage.Completion)
	}
	if x.trace != "" {
		f.text("traceparent", x.trace)
	}
	if state := r.Header.Values("Tracestate"); x.trace != "" && len(state) > 0 {
		f.text("tracestate", printable(strings.Join(state, ",")))
	}
	if x.failure != nil {
		f.text("error", s.unsecret(x, x.failure.Error()))
	}
	if s.cfg.LogBodies {
		f.text("request_body", s.shown(x, x.requestBody))
		f.text("response_body", s.shown(x, w.body))
	}
}

// shown is a body as a log line shows it. The mask changes no length.
func (s *server) shown(x *exchange, body []byte) string {
	masked := s.unsecret(x, string(body))
	return masked[:min(len(masked), maxShownBody)]
}

// unsecret is text without the keys that it may hold: those that the gateway
// knows, and the client's own, which in mode passthrough is one that it does not.
func (s *server) unsecret(x *exchange, text string) string {
	text = s.mask.text(text)
	if key := string(x.cred.Key); len(key) >= minMasked {
		text = strings.ReplaceAll(text, key, strings.Repeat("*", len(key)))
	}
	return text
}

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// requestID is the client's own id if it is well formed, else a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	ok := len(id) > 0 && len(id) <= 128
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '_' || c == '.' || c == ':'
	}
	if ok {
		return id
	}
	return "req_" + randomHex(12)
}

// printable cuts a client's text to what a log line can hold, and drops what
// could forge one.
func printable(s string) string {
	if len(s) > 128 {
		s = s[:128]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

// statusWriter notes what was sent, and keeps a client that does not read from
// holding an answer for ever.
type statusWriter struct {
	http.ResponseWriter
	control  *http.ResponseController
	status   int // 0 until the headers are sent
	bytes    int64
	err      error // the client could not be written to
	began    time.Time
	deadline time.Duration // after began, for the client to take what is written
	capture  bool
	body     []byte // the beginning of it, with LOG_BODIES
}

// A write to a client that takes nothing for writeTimeout fails. The deadline is
// moved only when half of it is over, to spare the timers.
const writeTimeout = 2 * time.Minute

func newStatusWriter(w http.ResponseWriter, capture bool) *statusWriter {
	sw := &statusWriter{ResponseWriter: w, control: http.NewResponseController(w), capture: capture, began: time.Now()}
	sw.extend() // the connection still has the deadline of the request before this one
	return sw
}

// answered is the status that the client got, or 499 when it left before any.
func (w *statusWriter) answered(x *exchange) int {
	if x.outcome == outcomeClientClosed && w.status == 0 {
		return 499
	}
	return w.status
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// whole says whether a body of declared length has been written to its end:
// leaving then is not leaving early.
func (w *statusWriter) whole() bool {
	length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	return err == nil && w.err == nil && w.bytes == length
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	if err != nil {
		w.err = err
	}
	if w.capture && len(w.body) < maxLoggedBody {
		w.body = append(w.body, p[:min(n, maxLoggedBody-len(w.body))]...)
	}
	return n, err
}

// FlushError sends what is written.
func (w *statusWriter) FlushError() error { return w.control.Flush() }

func (w *statusWriter) extend() {
	if now := time.Since(w.began); w.deadline-now < writeTimeout/2 {
		w.deadline = now + writeTimeout
		w.control.SetWriteDeadline(w.began.Add(w.deadline))
	}
}
