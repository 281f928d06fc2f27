package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A terminalHandler writes a log for people: one line for each record, and for
// requests in columns. What comes from clients is shown such that no terminal takes
// it for anything but text.
type terminalHandler struct {
	level  slog.Level
	colour bool
	layout string // of times
	attrs  string // of WithAttrs, as they are written
	group  string // what stands before the names of attributes

	mu *sync.Mutex // held while a line is written
	w  io.Writer
}

// Layouts of times: nobody watches a terminal for days.
const (
	clockLayout = "15:04:05"
	dateLayout  = "2006-01-02 15:04:05"
)

// newTerminalHandler writes for the terminal that env describes, or plain lines
// when w is none.
func newTerminalHandler(w io.Writer, level slog.Level, env map[string]string) *terminalHandler {
	h := &terminalHandler{level: level, layout: dateLayout, mu: &sync.Mutex{}, w: w}
	if isTerminal(w) {
		h.layout, h.colour = clockLayout, wantsColour(env)
	}
	return h
}

// wantsColour says whether a terminal is to be shown colours
// (https://no-color.org).
func wantsColour(env map[string]string) bool {
	return env["NO_COLOR"] == "" && env["TERM"] != "" && env["TERM"] != "dumb"
}

func (h *terminalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *terminalHandler) WithGroup(name string) slog.Handler {
	inside := *h
	if name != "" {
		inside.group += name + "."
	}
	return &inside
}

func (h *terminalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	l := terminalLine{}
	for _, a := range attrs {
		l.attr(h.group, a)
	}
	with := *h
	with.attrs += l.b.String()
	return &with
}

func (h *terminalHandler) Handle(_ context.Context, r slog.Record) error {
	l := terminalLine{colour: h.colour}
	l.text(dim, r.Time.Format(h.layout))
	l.gap()
	if r.Message == requestMessage && h.group == "" {
		h.request(&l, r)
	} else {
		l.column(levelColour(r.Level), r.Level.String(), statusWidth)
		l.gap()
		l.text("", visible(r.Message))
		l.b.WriteString(h.attrs)
		r.Attrs(func(a slog.Attr) bool {
			l.attr(h.group, a)
			return true
		})
	}
	l.b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(l.b.Bytes())
	return err
}

func levelColour(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return red
	case level >= slog.LevelWarn:
		return yellow
	case level >= slog.LevelInfo:
		return cyan
	}
	return dim
}

// Widths of the columns of a request, in characters.
const (
	statusWidth   = 5 // also of a level
	methodWidth   = 4
	routeWidth    = 22
	modelWidth    = 20
	durationWidth = 7
	tokensWidth   = 11
)

// request writes the columns of a request, and after them what went wrong. At level
// debug every other attribute follows.
func (h *terminalHandler) request(l *terminalLine, r slog.Record) {
	f := requestFields{}
	var rest []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		if !f.take(a) {
			rest = append(rest, a)
		}
		return true
	})
	l.column(statusColour(f.status), strconv.FormatInt(f.status, 10), statusWidth)
	l.gap()
	l.column("", cmp.Or(visible(f.method), "-"), methodWidth)
	l.text("", " ")
	l.column("", cmp.Or(visible(f.route), "-"), routeWidth)
	l.gap()
	l.column(cyan, cmp.Or(shorten(visible(f.model), modelWidth), "-"), modelWidth)
	l.gap()
	l.right(shortDuration(f.duration), durationWidth)
	l.gap()
	first := ""
	if f.stream {
		first = "ttft " + shortDuration(f.firstByte)
	}
	l.column(dim, first, len("ttft ")+durationWidth)
	l.gap()
	l.right(f.tokens(), tokensWidth)
	l.gap()
	switch { // "ok" is the gateway's side of it: a client's mistake is told by its text
	case f.err == "":
		l.text(outcomeColour(f.outcome), visible(string(f.outcome)))
	case f.outcome == outcomeOK:
		l.text(red, visible(f.err))
	default:
		l.text(red, visible(string(f.outcome)+": "+f.err))
	}
	failed := f.outcome != outcomeOK || f.status >= 400
	for _, a := range rest {
		if h.level < slog.LevelInfo || a.Key == "request_body" || a.Key == "response_body" || failed && a.Key == "id" {
			l.attr("", a)
		}
	}
}

// requestFields are the attributes of a request's record that have columns.
type requestFields struct {
	status                int64
	method, route, model  string
	outcome               outcome
	err                   string
	stream, counted       bool
	duration, firstByte   float64 // milliseconds
	prompted, completions int64   // tokens
}

// take reads an attribute that has a column.
func (f *requestFields) take(a slog.Attr) bool {
	v := a.Value
	switch a.Key {
	case "status":
		f.status = v.Int64()
	case "method":
		f.method = v.String()
	case "route":
		f.route = v.String()
	case "model":
		f.model = v.String()
	case "outcome":
		f.outcome = outcome(v.String())
	case "error":
		f.err = v.String()
	case "stream":
		f.stream = v.Bool()
	case "duration_ms":
		f.duration = v.Float64()
	case "first_byte_ms":
		f.firstByte = v.Float64()
	case "prompt_tokens":
		f.prompted, f.counted = v.Int64(), true
	case "completion_tokens":
		f.completions = v.Int64()
	default:
		return false
	}
	return true
}

// tokens is what the upstream counted, in and out.
func (f *requestFields) tokens() string {
	if !f.counted {
		return ""
	}
	return fmt.Sprintf("%d→%d tok", f.prompted, f.completions)
}

func statusColour(status int64) string {
	switch {
	case status >= 500:
		return red
	case status >= 400:
		return yellow
	}
	return green
}

func outcomeColour(o outcome) string {
	switch o {
	case outcomeOK:
		return dim
	case outcomeClientClosed:
		return yellow
	}
	return red
}

// shortDuration is milliseconds with about three digits.
func shortDuration(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0fms", ms)
	case ms < 60_000:
		return fmt.Sprintf("%.2fs", ms/1000)
	}
	seconds := int(ms / 1000)
	return fmt.Sprintf("%dm%02ds", seconds/60, seconds%60)
}

// Colours (ECMA-48, select graphic rendition).
const (
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// A terminalLine is a line that is being written. What is put into it must be
// visible text.
type terminalLine struct {
	b      bytes.Buffer
	colour bool
}

func (l *terminalLine) text(colour, s string) {
	if l.colour && colour != "" && s != "" {
		s = "\x1b[" + colour + "m" + s + "\x1b[0m"
	}
	l.b.WriteString(s)
}

// column is text filled up with spaces. What is longer moves the rest of its line.
func (l *terminalLine) column(colour, s string, width int) {
	l.text(colour, s)
	l.fill(s, width)
}

// right is text with the spaces before it.
func (l *terminalLine) right(s string, width int) {
	l.fill(s, width)
	l.text("", s)
}

func (l *terminalLine) fill(s string, width int) {
	for range width - utf8.RuneCountInString(s) {
		l.b.WriteByte(' ')
	}
}

func (l *terminalLine) gap() { l.b.WriteString("  ") }

// attr appends name=value, a group's attributes each by its own name.
func (l *terminalLine) attr(group string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range v.Group() {
			l.attr(group, inner)
		}
	case a.Key == "stack":
		l.lines(v.String())
	default:
		l.gap()
		l.text(dim, visible(group+a.Key)+"=")
		l.text("", logValue(v.String()))
	}
}

// lines appends a text of several lines, each on its own below the record.
func (l *terminalLine) lines(s string) {
	for line := range strings.Lines(s) {
		l.b.WriteString("\n    ")
		l.text(dim, visible(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "  ")))
	}
}

// visible is text in which every character is one that terminals show, and none
// that they obey.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// logValue is text as the value of an attribute.
func logValue(s string) string {
	plain := func(r rune) bool { return unicode.IsPrint(r) && !strings.ContainsRune(` ="`, r) && r != utf8.RuneError }
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return strconv.Quote(s)
}

// shorten cuts text that is longer than a column.
func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
