package main

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// The line of a request is written for each, so it has a way of its own to JSON:
// slog's takes an attribute through four copies, which is a twentieth of a short
// request. Every other record, and every other format, goes through slog.

// lineFields takes the fields of a request's line.
type lineFields interface {
	text(key, value string)
	count(key string, n int64)
	milliseconds(key string, d time.Duration)
	flag(key string, on bool)
}

// A jsonHandler is slog's for JSON, and writes requests' lines itself. Each line
// is one Write.
type jsonHandler struct {
	*slog.JSONHandler
	out io.Writer
}

func newJSONHandler(w io.Writer, opts *slog.HandlerOptions) *jsonHandler {
	return &jsonHandler{slog.NewJSONHandler(w, opts), w}
}

// logLine writes one line with the fields that fill adds.
func logLine(h slog.Handler, level slog.Level, msg string, fill func(lineFields)) {
	now := time.Now()
	if h, ok := h.(*jsonHandler); ok {
		line := jsonLines.Get().(*jsonLine)
		line.begin(now, level, msg)
		fill(line)
		line.end(h.out)
		jsonLines.Put(line)
		return
	}
	var attrs attrFields
	fill(&attrs)
	record := slog.NewRecord(now, level, msg, 0)
	record.AddAttrs(attrs...)
	h.Handle(context.Background(), record)
}

var jsonLines = sync.Pool{New: func() any { return new(jsonLine) }}

// A jsonLine is a line of JSON that grows field by field.
type jsonLine []byte

func (l *jsonLine) begin(now time.Time, level slog.Level, msg string) {
	b := append((*l)[:0], `{"time":"`...)
	b = now.AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","level":"`...), level.String()...)
	*l = append(b, '"')
	l.text("msg", msg)
}

func (l *jsonLine) end(w io.Writer) {
	*l = append(*l, "}\n"...)
	w.Write(*l)
	if cap(*l) > maxKeptBuffer {
		*l = nil
	}
}

// key is the line up to a field's value.
func (l *jsonLine) key(name string) []byte {
	return append(append(append(*l, `,"`...), name...), `":`...)
}

func (l *jsonLine) text(key, value string)    { *l = appendQuoted(l.key(key), value) }
func (l *jsonLine) count(key string, n int64) { *l = strconv.AppendInt(l.key(key), n, 10) }
func (l *jsonLine) flag(key string, on bool)  { *l = strconv.AppendBool(l.key(key), on) }
func (l *jsonLine) milliseconds(key string, d time.Duration) {
	us := d.Microseconds()
	b := strconv.AppendInt(l.key(key), us/1000, 10)
	*l = append(b, '.', '0'+byte(us/100%10), '0'+byte(us/10%10), '0'+byte(us%10))
}

// attrFields are a line's fields as slog has them.
type attrFields []slog.Attr

func (a *attrFields) text(key, value string)    { *a = append(*a, slog.String(key, value)) }
func (a *attrFields) count(key string, n int64) { *a = append(*a, slog.Int64(key, n)) }
func (a *attrFields) flag(key string, on bool)  { *a = append(*a, slog.Bool(key, on)) }
func (a *attrFields) milliseconds(key string, d time.Duration) {
	*a = append(*a, slog.Float64(key, inMilliseconds(d)))
}
