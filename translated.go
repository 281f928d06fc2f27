package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// prepareConverted turns a body in another dialect into a chat request, and
// makes its payload.
func (s *server) prepareConverted(r *http.Request, x *exchange, from source, body []byte) error {
	x.source = from.name
	if err := checkCount(from, body); err != nil {
		return err
	}
	if from.name == responses.name {
		if err := s.loadChain(x, body); err != nil {
			return err
		}
	}
	q, err := from.decode(x, body)
	if err != nil {
		return err
	}
	x.signed = s.replays.signed(x.ctx, q.Model) || strings.HasSuffix(s.upstream.base.Hostname(), ".googleapis.com")
	if !x.signed {
		dropExtraContent(q)
	}
	if x.dialect == &openai { // the answer passes through: nothing is added that was not asked for
		q.StreamOptions = bytes.Clone(orAbsent(member(body, "stream_options")))
	}
	s.replays.putBack(x, q)
	if err := s.pairResults(r, x, q); err != nil {
		return err
	}
	x.heed(q)
	for _, field := range s.upstream.learned.apply(q.Model, q) {
		x.drop(field)
	}
	x.request = q
	x.promptTokens = q.promptTokens()
	x.estimate = s.calibration.correct(q.Model, x.promptTokens)
	written, p, err := q.peeked()
	if err != nil {
		return err
	}
	err = s.prepareChat(r, x, written, p, nil)
	x.fidelity = fidelityConverted
	return err
}

// maxMessages is how many messages and parts of such a converted request may have.
// Each costs many times its bytes while it is converted, and no conversation comes
// near.
const maxMessages = 100_000

// checkCount refuses a request of more. A short body can't hold them.
func checkCount(from source, body []byte) error {
	if len(body) < maxMessages*len("{},") {
		return nil
	}
	lists := map[string][2]string{anthropic.name: {"messages", "content"}, responses.name: {"input", "content"}, gemini.name: {"contents", "parts"}}
	list, parts := lists[from.name][0], lists[from.name][1]
	n := 0
	for message := range elements(member(body, list)) {
		n++
		for range elements(member(message, parts)) {
			n++
		}
		if n > maxMessages {
			return badRequest(list, list+" holds more than "+strconv.Itoa(maxMessages)+" messages and parts; send fewer")
		}
	}
	return nil
}

// peeked is the request as JSON, looked at.
func (q *chatRequest) peeked() ([]byte, *peeked, error) {
	written, err := q.body()
	if err != nil {
		return nil, nil, err
	}
	p, err := peek(written)
	if err != nil {
		return nil, nil, badJSON(err)
	}
	return written, &p, nil
}

// rewrite makes the payload anew, after the request has lost a field to the
// upstream's refusal.
func (s *server) rewrite(x *exchange) error {
	written, p, err := x.request.peeked()
	if err != nil {
		return err
	}
	messages := p.fields[fieldMessages]
	if x.history != nil {
		c, err := parseConversation(messages.of(written))
		if err != nil {
			return err
		}
		x.history.conversation = c
	}
	x.spliceChat(written, s.aliasEdit(x.model, p), x.history, messages.start)
	x.fidelity = fidelityConverted
	return nil
}

// message is a choice as the message that is recorded and sent back: reasoning
// stays with tool calls alone (dialects E-24).
func (c *chatChoice) message() chatMessage {
	m := chatMessage{Role: "assistant", Content: textContent(c.Text + c.Refusal), ToolCalls: c.Calls}
	if len(c.Calls) > 0 {
		m.Content.Null = c.Text == ""
		c.Reasoning.putBack(&m)
	}
	return m
}

// translateAnswer turns a whole chat answer into the client's dialect, as a
// stream if it asked for one.
func (s *server) translateAnswer(x *exchange, res *http.Response, body []byte) error {
	c := readCompletion(body, x.quirk)
	if len(c.Choices) == 0 {
		return malformed("it holds no choices", nil)
	}
	if e := failedFinish(c.Choices[0].Finish); e != nil {
		return e
	}
	s.afterAnswer(x, c)
	if stored := s.recordMessage(x, &c.Choices[0], false); stored != "" {
		res.Header.Set("X-Session-Store", string(stored))
	}
	if !c.Usage.Known || c.Usage.Prompt == 0 {
		res.Header.Set("X-APIProxy-Usage", "estimate")
	}
	if x.stream {
		enc := x.dialect.stream(x)
		chunk := newChunkReader(x.quirk).read(body)
		setBody(res, enc.finish(enc.chunk(nil, &chunk)))
		x.setStreamType(res)
		return nil
	}
	out, err := marshal(x.dialect.encode(x, c))
	if err != nil {
		return err
	}
	res.Header.Set("Content-Type", "application/json")
	setBody(res, out)
	return nil
}

// setStreamType gives a translated stream its headers.
func (x *exchange) setStreamType(res *http.Response) {
	setEventStream(res)
	if x.jsonArray() {
		res.Header.Set("Content-Type", "application/json")
	} else {
		res.Header.Set("Content-Type", "text/event-stream; charset=utf-8")
	}
}

// jsonArray says whether the client's stream is a JSON array, which Gemini has
// beside event streams (dialects B-102).
func (x *exchange) jsonArray() bool {
	return x.dialect == &gemini && x.gemini != nil && !x.gemini.SSE
}

// streamTranslated puts the translating reader on a chat stream. It returns once
// the client's answer can begin: an upstream that fails before it has said
// anything still gets an error status (dialects 0-8).
func (s *server) streamTranslated(x *exchange, res *http.Response) error {
	t := &translatedStream{s: s, x: x, src: s.mask.reader(res.Body), enc: x.dialect.stream(x), read: newChunkReader(x.quirk)}
	res.Body = t
	var err error
	if interval := s.cfg.StreamPing.Translated; interval > 0 {
		ping := x.dialect.ping
		if x.jsonArray() {
			ping = " "
		}
		p := newPinger(t, interval, ping, func() { x.cancel(context.Canceled) })
		res.Body = p
		err = p.begin(x.jsonArray())
	} else {
		err = t.begin()
	}
	if err == nil {
		x.setStreamType(res)
	}
	return err
}

// recordMessage puts a choice into the session, as the message that will be sent
// back.
func (s *server) recordMessage(x *exchange, c *chatChoice, incomplete bool) storing {
	if x.session == nil {
		return stored
	}
	m := c.message()
	if x.quirk("tool_id_9") == "on" {
		shortenIDs(&m) // the results will come with the short ids
	}
	message, err := marshal(m)
	if err != nil {
		return storeNotStored
	}
	s.mask.bytes(message)
	return s.sessions.record(x.ctx, x.session, message, incomplete)
}

// failedFinish is the error that a finish reason stands for, nil for none.
func failedFinish(finish string) *apiError {
	switch finish {
	case "error", "abort", "insufficient_system_resource":
		return upstreamFailure(http.StatusBadGateway, "", "the upstream reported an error while it answered (finish_reason "+finish+")", nil)
	}
	return nil
}

// afterAnswer takes the answer as it is complete: it keeps what the calls will
// need when they come back, and learns from the upstream's count of the prompt.
func (s *server) afterAnswer(x *exchange, c *chatResponse) {
	if n := c.dropNameless(); n > 0 {
		s.log.Warn("the upstream called tools without a name; the calls are left out", "id", x.id, "calls", n)
	}
	for i := range c.Choices {
		s.replays.keep(x, &c.Choices[i])
	}
	if c.Usage.Known && x.promptTokens > 0 {
		s.calibration.learn(x.model, x.promptTokens, c.Usage.Prompt)
	}
}

// A translatedStream reads a chat stream and gives the client its own dialect's
// events. Its reader pulls like chatStream's.
type translatedStream struct {
	s    *server
	x    *exchange
	src  io.ReadCloser
	enc  streamEncoder
	read *chunkReader

	events eventParser
	answer chatResponse // so far
	size   int          // bytes of the upstream's so far
	buf    []byte       // what is read from src
	out    []byte       // what the client gets next
	begun  bool         // the upstream has sent something
	sent   bool         // anything was handed on
	bad    int          // malformed events in a row
	done   bool         // [DONE] came
	failed *apiError    // the upstream sent an error
	ended  bool
	stored bool // the turn is recorded, or must not be
	// told says that the failure that comes before anything was handed on has been
	// reported as an error; what is left is its frame.
	told atomic.Bool
}

// begin reads until there is something for the client; an error is one that came
// before that.
func (t *translatedStream) begin() error {
	for len(t.out) == 0 && !t.ended && t.failed == nil {
		if err := t.pull(); err != nil {
			return err
		}
	}
	if len(t.out) == 0 && t.failed != nil {
		return t.failed
	}
	return nil
}

// Read hands on whole events. A failure before the first one is an *apiError,
// which can still become the answer's status; the next Read then gives the
// dialect's frame for it, for an answer that has begun with a keep-alive.
func (t *translatedStream) Read(p []byte) (int, error) {
	for len(t.out) == 0 {
		if t.ended {
			return 0, io.EOF
		}
		if t.failed != nil {
			if !t.sent && t.told.CompareAndSwap(false, true) {
				return 0, t.failed
			}
			if t.sent {
				t.x.outcome = outcomeIncomplete
			}
			t.out, t.ended = t.enc.fail(t.out, t.failed), true
			continue
		}
		if err := t.pull(); err != nil {
			return 0, err
		}
	}
	t.sent = true
	n := copy(p, wholeEvents(t.out, len(p)))
	t.out = t.out[n:]
	return n, nil
}

// wholeEvents is as much of out as most bytes take, without cutting an event in
// two, unless the first alone is longer (dialects 0-6).
func wholeEvents(out []byte, most int) []byte {
	if len(out) <= most {
		return out
	}
	for end := most; end > 0; {
		end = bytes.LastIndexByte(out[:end], '\n')
		whole := out[:end+1]
		if bytes.HasSuffix(whole, []byte("\n\n")) || bytes.HasSuffix(whole, []byte(geminiFrameEnd)) || bytes.HasSuffix(whole, []byte(",\r\n")) {
			return whole
		}
	}
	return out[:most]
}

// pull reads once from the upstream.
func (t *translatedStream) pull() error {
	if t.buf == nil {
		t.buf = make([]byte, 8<<10)
	}
	t.out = t.out[:0]
	n, err := t.src.Read(t.buf)
	if n > 0 && !t.begun {
		t.begun = true
		t.x.firstByte = time.Since(t.x.start)
	}
	t.size += n
	t.events.feed(t.buf[:n], t.event)
	switch {
	case t.events.tooLong:
		t.fail(malformed("an event of its stream is longer than 32 MiB", nil))
	case t.size > maxAnswerBytes:
		e := answerTooLong(maxAnswerBytes)
		e.Message = "the upstream's stream is longer than the " + strconv.Itoa(maxAnswerBytes) + " bytes that this gateway converts"
		t.fail(e)
	}
	switch {
	case t.failed != nil:
	case t.done || t.events.atDone():
		t.finish()
	case err != nil:
		if t.x.clientGone() {
			return err
		}
		t.events.end(t.event)
		t.end(err)
	}
	return nil
}

// event takes one of the upstream's events.
func (t *translatedStream) event(e event) {
	if t.done || t.failed != nil {
		return
	}
	if e.done() {
		t.done = true
		return
	}
	if checkJSON(e.data) != nil {
		t.s.log.Warn("an event of the upstream's stream is not JSON", "id", t.x.id, "bytes", len(e.data))
		if t.bad++; t.bad > 1 {
			t.fail(malformed("its stream holds what is not JSON", nil))
		}
		return
	}
	t.bad = 0
	if string(e.name) == "error" || isErrorEvent(e.data) {
		report, _ := parseUpstreamError(e.data)
		t.fail(t.s.inside200(report))
		return
	}
	c := t.read.read(e.data)
	t.take(&c)
}

// isErrorEvent says whether an event is an error and no chunk (dialects E-60).
func isErrorEvent(data []byte) bool {
	for first := range elements(data) { // Gemini's service wraps its errors in a list
		return !isNull(member(first, "error"))
	}
	var choices, message, detail, code bool
	for k, v := range members(data) {
		switch string(k) {
		case "error":
			if !isNull(v) {
				return true
			}
		case "choices":
			choices = true
		case "message":
			message = isString(v)
		case "detail":
			detail = !isNull(v)
		case "code":
			code = !isNull(v)
		}
	}
	return !choices && (detail || message && code || text(member(data, "object")) == "error")
}

func (t *translatedStream) take(c *chatChunk) {
	if c.Usage.Known {
		t.x.usage = c.Usage
		t.answer.Usage = c.Usage
	}
	for i := range c.Deltas {
		d := &c.Deltas[i]
		if e := failedFinish(d.Finish); e != nil {
			t.fail(e)
			return
		}
		d.Calls = slices.DeleteFunc(d.Calls, func(c callDelta) bool { return c.Name == "" && c.Args == "" })
		t.answer.add(*d)
	}
	t.out = t.enc.chunk(t.out, c)
}

func (t *translatedStream) fail(e *apiError) {
	if t.failed != nil {
		return
	}
	t.failed = e
	t.stored = true // a failed turn is not recorded: the client will send it again
	t.x.fail(e)
}

// end decides what an upstream that stopped sending has left behind.
func (t *translatedStream) end(err error) {
	switch {
	case t.failed != nil:
	case t.bad > 0:
		t.fail(malformed("its stream ended with what is not JSON", nil))
	case err == io.EOF && (t.finished() || t.lenient()):
		t.finish()
	case t.done:
		t.finish()
	default:
		t.fail(streamError(t.x, err))
	}
}

func (t *translatedStream) finished() bool {
	return slices.ContainsFunc(t.answer.Choices, func(c chatChoice) bool { return c.Finish != "" })
}

// lenient says whether an end without a finish reason is taken for one (quirk
// lenient_eof, dialects C-125).
func (t *translatedStream) lenient() bool {
	if t.x.quirk("lenient_eof") != "on" || len(t.answer.Choices) == 0 {
		return false
	}
	t.answer.settle()
	return t.answer.Choices[0].plausible()
}

// plausible says whether a choice could be a whole answer: it says something, and
// none of its calls is cut off.
func (c *chatChoice) plausible() bool {
	for _, call := range c.Calls {
		if checkJSON([]byte(call.Function.Arguments)) != nil {
			return false
		}
	}
	return len(c.Calls) > 0 || c.Text != "" || c.Refusal != ""
}

// finish ends the client's stream. The turn is stored before the client sees
// that.
func (t *translatedStream) finish() {
	if rest := t.read.flush(); len(rest) > 0 {
		t.take(&chatChunk{Deltas: rest})
	}
	t.answer.settle()
	t.s.afterAnswer(t.x, &t.answer)
	if note := t.record(false); note != "" && !t.x.jsonArray() {
		t.out = append(t.out, ": session store "+string(note)+"\n\n"...)
	}
	t.out = t.enc.finish(t.out)
	t.ended, t.x.complete = true, true
}

// record puts the turn into its session.
func (t *translatedStream) record(incomplete bool) storing {
	if t.stored || len(t.answer.Choices) == 0 {
		return stored
	}
	t.stored = true
	return t.s.recordMessage(t.x, &t.answer.Choices[0], incomplete)
}

// Close is called when the client has the answer's end, or has left.
func (t *translatedStream) Close() error {
	if !t.ended && t.failed == nil {
		t.leave()
	}
	t.ended = true
	if t.done {
		// A moment for the upstream to end by itself, which keeps its connection
		// usable.
		defer time.AfterFunc(afterDone, func() { t.x.cancel(errAnswerOver) }).Stop()
		io.CopyN(io.Discard, t.src, maxAfterDone)
	}
	return t.src.Close()
}

// leave keeps what a client that left had been given.
func (t *translatedStream) leave() {
	if t.x.outcome == outcomeOK {
		t.x.outcome = outcomeClientClosed
	}
	if len(t.answer.Choices) == 0 {
		return
	}
	t.answer.settle()
	c := &t.answer.Choices[0]
	whole := c.Finish != ""
	if !whole {
		c.Calls = slices.DeleteFunc(c.Calls, func(call chatToolCall) bool {
			return call.Function.Name == "" || checkJSON([]byte(call.Function.Arguments)) != nil
		})
		if c.Text == "" && c.Refusal == "" && len(c.Calls) == 0 {
			return
		}
	}
	t.record(!whole)
}
