package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
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
	if err != nil {
		return answerError(x, err)
	}
	switch {
	case form == formEvents && x.stream:
		s.streamAnswer(x, res)
		return nil
	case form == formOther:
		return malformed("it is neither JSON nor an event stream", nil)
	}
	body, err := readAtMost(res.Body, maxAnswerBytes)
	res.Body.Close()
	if err != nil {
		return answerError(x, err)
	}
	if form == formEvents {
		if body, err = gather(body); err != nil {
			return err
		}
	}
	s.mask.bytes(body)
	if err := s.observeAnswer(x, body); err != nil {
		return err
	}
	if stored := s.recordAnswer(x, body); stored != "" {
		res.Header.Set("X-Session-Store", string(stored))
	}
	if x.stream {
		setEventStream(res)
		body = splitCompletion(body, x.wantsUsage)
	} else if form == formEvents {
		res.Header.Set("Content-Type", "application/json")
	}
	setBody(res, body)
	return nil
}

// answerError says why an answer did not come whole.
func answerError(x *exchange, err error) error {
	if x.clientGone() || errors.Is(err, errTooLong) {
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
	body := &peekedBody{src: res.Body}
	res.Body = body
	first, err := body.firstByte()
	if err == io.EOF {
		return formOther, nil
	}
	if err != nil {
		return formOther, err
	}
	switch {
	case first == '{' || first == '[':
		return formJSON, nil
	case first == 'd' || first == ':' || first == 'e' || first == 'i' || first == 'r':
		return formEvents, nil
	}
	return formOther, nil
}

// peekedBody is a body whose beginning was looked at.
type peekedBody struct {
	src  io.ReadCloser
	head []byte
}

// firstByte is the first byte that is neither space nor a byte order mark.
func (b *peekedBody) firstByte() (byte, error) {
	buf := make([]byte, 512)
	for {
		n, err := b.src.Read(buf[len(b.head):])
		b.head = buf[:len(b.head)+n]
		trimmed := bytes.TrimLeft(bytes.TrimPrefix(b.head, []byte("\ufeff")), " \t\r\n")
		if len(trimmed) > 0 && trimmed[0] != 0xef {
			return trimmed[0], nil
		}
		if err != nil {
			return 0, err
		}
		if len(b.head) == len(buf) {
			return ' ', nil
		}
	}
}

func (b *peekedBody) Read(p []byte) (int, error) {
	if len(b.head) > 0 {
		n := copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	}
	return b.src.Read(p)
}

func (b *peekedBody) Close() error { return b.src.Close() }

var errTooLong = errors.New("the upstream's answer is too long")

// readAtMost reads a body whole, up to limit bytes.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(body)) > limit {
		return nil, upstreamFailure(http.StatusBadGateway, "upstream_too_long", "the upstream's answer is longer than the "+strconv.FormatInt(limit, 10)+" bytes that this gateway reads whole; ask for a stream", errTooLong)
	}
	return body, err
}

// gather turns a whole event stream into the completion that it amounts to.
func gather(stream []byte) ([]byte, error) {
	var a assembler
	var p eventParser
	var failed []byte
	done := false
	each := func(e event) {
		switch {
		case e.done():
			done = true
		case string(e.name) == "error" || !isNull(member(e.data, "error")):
			failed = bytes.Clone(e.data)
		default:
			a.add(e.data)
		}
	}
	p.feed(stream, each)
	p.end(each)
	switch {
	case failed != nil:
		return failed, nil
	case !done && !a.finished():
		return nil, upstreamFailure(http.StatusBadGateway, "upstream_stream_interrupted", "the upstream's answer broke off before its end", nil)
	case len(a.choices) == 0:
		return nil, malformed("its stream holds no choices", nil)
	}
	return a.completion(), nil
}

// observeAnswer checks a whole answer and reads what the log wants of it.
func (s *server) observeAnswer(x *exchange, body []byte) error {
	if err := checkJSON(body); err != nil {
		return malformed("it is not valid JSON", err)
	}
	chat := false
	for k, v := range members(body) {
		chat = chat || string(k) == "choices" && isArray(v)
		x.usage.read(k, v)
	}
	if chat {
		return nil
	}
	if e, ok := parseUpstreamError(body); ok {
		return e.inside200(s.mask)
	}
	return malformed("it holds neither choices nor an error", nil)
}

// recordAnswer puts the turn into its session.
func (s *server) recordAnswer(x *exchange, body []byte) storing {
	if x.session == nil {
		return stored
	}
	for c := range elements(member(body, "choices")) {
		if m := member(c, "message"); isObject(m) {
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
	if isEventStream(res.Header) {
		res.ContentLength = -1
		res.Header.Del("Content-Length")
	}
}

func isEventStream(h http.Header) bool {
	return bytes.HasPrefix([]byte(h.Get("Content-Type")), []byte("text/event-stream"))
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
