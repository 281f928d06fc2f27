package main

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAnswerBytes bounds an answer that is read whole.
const maxAnswerBytes = 64 << 20

// An answerForm is how an upstream's answer is written, whatever was asked for.
type answerForm int

const (
	formJSON answerForm = iota
	formEvents
	formOther
)

// chatAnswer gives the client the form that it asked for: an answer in the other
// one is gathered or split.
func (s *server) chatAnswer(x *exchange, res *http.Response) error {
	form, err := sniff(res)
	switch {
	case err != nil:
		return answerError(x, err)
	case form == formOther:
		return malformed("it is neither JSON nor an event stream", nil)
	case form == formEvents && x.stream:
		if x.dialect.stream != nil {
			return s.streamTranslated(x, res)
		}
		s.streamAnswer(x, res)
		return nil
	}
	body, err := wholeAnswer(x, res, form)
	res.Body.Close()
	if err != nil {
		return answerError(x, err)
	}
	s.mask.bytes(body)
	if err := s.observeAnswer(x, body); err != nil {
		return err
	}
	if x.dialect.encode != nil {
		return s.translateAnswer(x, res, body)
	}
	if x.fidelity == fidelityConverted {
		s.afterAnswer(x, readCompletion(body, x.quirk))
	}
	body = x.restoreNames(body)
	if stored := s.recordAnswer(x, body); stored != "" {
		res.Header.Set("X-Session-Store", string(stored))
	}
	if x.stream {
		setBody(res, splitCompletion(body, x.wantsUsage))
		setEventStream(res)
		return nil
	}
	if form == formEvents {
		res.Header.Set("Content-Type", "application/json")
	}
	setBody(res, body)
	return nil
}

// wholeAnswer reads an answer to its end and returns it as one completion.
func wholeAnswer(x *exchange, res *http.Response, form answerForm) ([]byte, error) {
	if form == formEvents {
		return gather(res.Body, func() { x.cancel(errAnswerOver) })
	}
	body, err := res.Body.(*sniffedBody).whole()
	if err != nil {
		return nil, err
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if isLines(body) {
		return gather(bytes.NewReader(body), func() {})
	}
	return body, nil
}

// isLines says whether a body is not one JSON value but a stream of chunks, each
// on a line of its own (dialects E-59).
func isLines(body []byte) bool {
	first, _, more := bytes.Cut(bytes.TrimSpace(body), []byte("\n"))
	return more && isArray(member(first, "choices")) && checkJSON(first) == nil
}

// answerError says why an answer did not come whole.
func answerError(x *exchange, err error) error {
	if x.clientGone() {
		return err
	}
	e := asAPIError(x.ctx, err)
	if e.Code == "upstream_unreachable" {
		e = upstreamFailure(http.StatusBadGateway, "upstream_incomplete", "the upstream's answer broke off before its end", err)
	}
	return e
}

func malformed(what string, cause error) *apiError {
	return upstreamFailure(http.StatusBadGateway, "upstream_malformed", "the upstream's answer makes no sense: "+what, cause)
}

// sniff finds the form of an answer. Only a type that says event stream is
// believed, so that such an answer begins at once; others are often wrong, and
// the first bytes decide (dialects E-57). It leaves the body unread.
func sniff(res *http.Response) (answerForm, error) {
	if isEventStream(res.Header) {
		return formEvents, nil
	}
	body := &sniffedBody{src: res.Body}
	if n := res.ContentLength; n > 0 {
		// One byte more, and a reader of it all need not look for room at its end.
		body.head = make([]byte, 0, min(n, maxBodyGuess)+1)
	}
	res.Body = body
	return body.form()
}

// maxSniffed is how much blank space may come before an answer; some upstreams
// send it to keep a connection alive while a request waits for its turn.
const maxSniffed = 64 << 10

// sniffedBody is a body whose beginning was looked at.
type sniffedBody struct {
	src  io.ReadCloser
	head []byte // read from src, but not by the reader of the body yet
}

// form reads until the form of the body is plain.
func (b *sniffedBody) form() (answerForm, error) {
	for {
		b.head = slices.Grow(b.head, 512)
		n, err := b.src.Read(b.head[len(b.head):cap(b.head)])
		b.head = b.head[:len(b.head)+n]
		if form, sure := formOf(b.head); sure || len(b.head) > maxSniffed {
			return form, nil
		}
		switch {
		case err == io.EOF:
			return formOther, nil
		case err != nil:
			return formOther, err
		}
	}
}

// formOf is the form of an answer that begins with head; it is not sure while
// head is too short to tell.
func formOf(head []byte) (form answerForm, sure bool) {
	if isPrefix(head, "\ufeff") {
		return formOther, false
	}
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	if len(head) == 0 {
		return formOther, false
	}
	if head[0] == '{' || head[0] == '[' {
		return formJSON, true
	}
	for _, start := range []string{":", "data:", "event:", "id:", "retry:"} {
		if bytes.HasPrefix(head, []byte(start)) {
			return formEvents, true
		}
		if isPrefix(head, start) {
			return formOther, false
		}
	}
	return formOther, true
}

func isPrefix(b []byte, of string) bool { return len(b) <= len(of) && string(b) == of[:len(b)] }

func (b *sniffedBody) Read(p []byte) (int, error) {
	if len(b.head) > 0 {
		n := copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	}
	return b.src.Read(p)
}

// whole reads the body to its end, on into the buffer that it was looked at in.
func (b *sniffedBody) whole() ([]byte, error) {
	for len(b.head) <= maxAnswerBytes {
		if len(b.head) == cap(b.head) {
			b.head = slices.Grow(b.head, len(b.head))
		}
		n, err := b.src.Read(b.head[len(b.head):cap(b.head)])
		b.head = b.head[:len(b.head)+n]
		switch {
		case err == io.EOF:
			return b.head, nil
		case err != nil:
			return nil, err
		}
	}
	return nil, answerTooLong(maxAnswerBytes)
}

func (b *sniffedBody) Close() error { return b.src.Close() }

// readAtMost reads a body whole, up to limit bytes.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(body)) > limit {
		return nil, answerTooLong(limit)
	}
	return body, err
}

func answerTooLong(limit int64) *apiError {
	return upstreamFailure(http.StatusBadGateway, "upstream_too_long", "the upstream's answer is longer than the "+strconv.FormatInt(limit, 10)+" bytes that this gateway reads whole; ask for a stream", nil)
}

// gather reads an event stream up to its end marker and returns the completion
// that it amounts to. giveUp ends a read that is under way.
func gather(stream io.Reader, giveUp func()) ([]byte, error) {
	var g gathering
	var p eventParser
	buf := make([]byte, 32<<10)
	for size := 0; ; {
		n, err := stream.Read(buf)
		p.feed(buf[:n], g.add)
		size += n
		switch {
		case g.done || g.failed != nil || p.atDone():
			// A moment for the upstream to end by itself, which keeps its
			// connection usable.
			defer time.AfterFunc(afterDone, giveUp).Stop()
			io.CopyN(io.Discard, stream, maxAfterDone)
			g.done = true
			return g.result()
		case p.tooLong || size > maxAnswerBytes:
			return nil, answerTooLong(maxAnswerBytes)
		case err == io.EOF:
			p.end(g.add)
			return g.result()
		case err != nil:
			return nil, err
		}
	}
}

// maxAfterDone is how much is read after the end marker, to no other use than
// to keep the connection.
const maxAfterDone = 64 << 10

// A gathering is what came of a stream so far.
type gathering struct {
	chunks assembler
	failed []byte // the upstream's error
	done   bool
	broken int // events without sense in a row
}

func (g *gathering) add(e event) {
	switch {
	case g.done || g.failed != nil:
	case e.done():
		g.done = true
	case string(e.name) == "error" || isErrorEvent(e.data):
		g.failed = bytes.Clone(e.data)
	case g.chunks.add(e.data):
		g.broken = 0
	default:
		g.broken++
	}
}

// result is the completion. One event that makes no sense is passed over if the
// stream goes on well after it (dialects F-14).
func (g *gathering) result() ([]byte, error) {
	switch {
	case g.failed != nil:
		return g.failed, nil
	case g.broken > 0:
		return nil, malformed("its stream holds events that are not JSON", nil)
	case !g.done && !g.chunks.finished():
		return nil, upstreamFailure(http.StatusBadGateway, "upstream_stream_interrupted", "the upstream's answer broke off before its end", nil)
	}
	for _, c := range g.chunks.choices {
		c.calls.nameAll()
	}
	return g.chunks.completion(), nil
}

// observeAnswer checks a whole answer and reads what the log wants of it.
func (s *server) observeAnswer(x *exchange, body []byte) error {
	if err := checkJSON(body); err != nil {
		return malformed("it is not valid JSON", err)
	}
	var choices []byte
	failed := false
	for k, v := range members(body) {
		switch string(k) {
		case "choices":
			choices = v
		case "error":
			failed = !isNull(v)
		default:
			x.usage.read(k, v)
		}
	}
	answered := isArray(choices) && len(bytes.TrimSpace(choices[1:len(choices)-1])) > 0
	if answered && !failed {
		return nil
	}
	e, ok := parseUpstreamError(body)
	switch {
	case ok:
		return s.inside200(e)
	case answered:
		return nil
	case isArray(choices):
		return malformed("it holds no choices", nil)
	}
	return malformed("it holds neither choices nor an error", nil)
}

// recordAnswer puts the turn into its session.
func (s *server) recordAnswer(x *exchange, body []byte) storing {
	if x.session == nil {
		return stored
	}
	for c := range elements(member(body, "choices")) {
		if m := member(c, "message"); isObject(m) && intOf(member(c, "index")) == 0 {
			return s.sessions.record(x.ctx, x.session, recordable(m), false)
		}
	}
	return stored
}

// setBody makes body the whole of the answer.
func setBody(res *http.Response, body []byte) {
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	res.TransferEncoding = nil
}

func isEventStream(h http.Header) bool {
	const want = "text/event-stream"
	got := h.Get("Content-Type")
	return len(got) >= len(want) && strings.EqualFold(got[:len(want)], want)
}

// setEventStream gives an answer the headers that keep what lies between from
// buffering it.
func setEventStream(res *http.Response) {
	h := res.Header
	if !isEventStream(h) {
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	h.Del("Content-Length")
	res.ContentLength = -1
}
