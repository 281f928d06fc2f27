package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// afterDone is how long the upstream may keep the connection after [DONE]
// before the client's answer is ended without it.
const afterDone = 100 * time.Millisecond

// maxHeldLine is how long a line may get before its beginning is handed on
// without its end.
const maxHeldLine = 8 << 10

// streamAnswer puts the reader on a chat stream that the client gets as it is.
func (s *server) streamAnswer(x *exchange, res *http.Response) {
	setEventStream(res)
	c := &chatStream{s: s, x: x, src: s.mask.reader(res.Body)}
	if x.session != nil || x.fidelity == fidelityConverted {
		c.answer = &assembler{}
	}
	res.Body = c
	if s.cfg.StreamPing.PassThrough > 0 {
		res.Body = newPinger(res.Body, s.cfg.StreamPing.PassThrough, x.dialect.ping, func() { x.cancel(context.Canceled) })
	}
}

// A chatStream hands the upstream's events on byte for byte and reads along:
// the usage, how the stream ends, and the answer when a session wants it. Its
// reader pulls, one upstream read for each of its own, so that each event is
// with the client before the next is asked for.
//
// Lines are handed on whole, so that a stream which breaks off can still be
// given an error that its client understands.
type chatStream struct {
	s   *server
	x   *exchange
	src io.ReadCloser

	events eventParser
	answer *assembler // nil when nobody wants the answer
	size   int        // bytes so far
	unkept bool       // the answer was wanted, and got too long
	line   []byte     // a line that is not whole yet
	ready  []byte     // to hand on before anything else is read
	edge   edge       // of what was handed on

	begun    bool // the upstream has sent something
	finished bool // a finish_reason came
	done     bool // [DONE] came
	failed   bool // the upstream sent an error in the stream
	recorded bool // the turn is in the store, or the client is told that it is not
	ended    bool
	hidden   bool // the event that has begun is kept from the client
	timer    *time.Timer
}

func (c *chatStream) Read(p []byte) (int, error) {
	for {
		if len(c.ready) > 0 {
			n := copy(p, c.ready)
			c.ready = c.ready[n:]
			return n, nil
		}
		if c.ended {
			return 0, io.EOF
		}
		out, err := c.pull(p)
		if len(out) > 0 || err != nil {
			return c.give(p, out), err
		}
	}
}

// give hands out over, which may lie in p already, and keeps what does not fit.
func (c *chatStream) give(p, out []byte) int {
	n := copy(p, out)
	if n < len(out) {
		c.ready = bytes.Clone(out[n:])
	}
	return n
}

// pull reads once from the upstream and returns what may be handed on.
func (c *chatStream) pull(p []byte) ([]byte, error) {
	n, err := c.src.Read(p)
	if n > 0 && !c.begun {
		c.begun = true
		c.x.firstByte = time.Since(c.x.start)
	}
	c.size += n
	c.events.feed(p[:n], c.see)
	c.done = c.done || c.events.atDone()
	out := p[:n]
	if len(c.line) > 0 {
		out = append(c.line, out...)
		c.line = nil
	}
	if c.events.tooLong && !c.done {
		err = errEventTooLong
	}
	if err != nil {
		return c.end(out, err)
	}
	out = c.holdLine(out)
	if c.done {
		c.waitForEnd()
		out = c.record(out)
	}
	out = c.shown(out)
	c.edge.pass(out)
	return out, nil
}

// shown is what the client gets of whole lines: all of it, unless the gateway
// has changed the request in a way that the answer shows.
func (c *chatStream) shown(out []byte) []byte {
	out = c.x.restoreNames(out)
	if c.x.hideUsage {
		out = c.withoutUsage(out)
	}
	return out
}

// withoutUsage takes the chunk that holds nothing but the usage out of whole
// lines, with the blank line that ends it.
func (c *chatStream) withoutUsage(out []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(out) {
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if data = bytes.TrimSpace(data); ok && isObject(member(data, "usage")) && string(compact(member(data, "choices"))) == "[]" {
			c.hidden = true
			continue
		}
		if c.hidden && len(bytes.TrimSpace(line)) == 0 {
			c.hidden = false
			continue
		}
		kept = append(kept, line...)
	}
	return kept
}

// holdLine keeps back a line at the end of out that is not whole.
func (c *chatStream) holdLine(out []byte) []byte {
	whole := wholeLines(out)
	if held := out[len(whole):]; len(held) > 0 && len(held) <= maxHeldLine {
		c.line = bytes.Clone(held)
		return whole
	}
	return out
}

func wholeLines(b []byte) []byte {
	end := len(b)
	for end > 0 && b[end-1] != '\n' && b[end-1] != '\r' {
		end--
	}
	return b[:end]
}

// see reads one event.
func (c *chatStream) see(e event) {
	if e.done() {
		c.done = true
		return
	}
	c.failed = c.failed || string(e.name) == "error"
	for k, v := range members(e.data) {
		switch string(k) {
		case "choices":
			c.finished = c.finished || finishes(v)
		case "error":
			c.failed = c.failed || !isNull(v)
		default:
			c.x.usage.read(k, v)
		}
	}
	if c.answer == nil {
		return
	}
	if c.answer.add(e.data); c.size > maxAnswerBytes {
		c.answer, c.unkept = nil, true
	}
}

// finishes says whether a chunk's choices hold a finish_reason. Nearly all don't,
// and a look for the bytes shows it: within a string, quotes are escaped.
func finishes(choices []byte) bool {
	if bytes.Count(choices, []byte(`"finish_reason"`)) == bytes.Count(choices, []byte(`"finish_reason":null`)) {
		return false
	}
	for choice := range elements(choices) {
		if isString(member(choice, "finish_reason")) {
			return true
		}
	}
	return false
}

// waitForEnd lets the upstream end the answer by itself after [DONE], which
// keeps its connection usable, but not for long.
func (c *chatStream) waitForEnd() {
	if c.timer == nil {
		c.timer = time.AfterFunc(afterDone, func() { c.x.cancel(errAnswerOver) })
	}
}

// end decides what an upstream that stopped sending has left behind.
func (c *chatStream) end(out []byte, err error) ([]byte, error) {
	if err == io.EOF {
		c.events.end(c.see)
	}
	if c.x.clientGone() && !c.done {
		return nil, err
	}
	c.ended = true
	switch {
	case c.failed: // the upstream has told the client itself
		c.recorded = true // a failed turn is not recorded: the client will send it again
		c.x.outcome = outcomeUpstreamError
		return out, nil
	case c.done || err == io.EOF && c.finished:
		c.x.complete = true
		return c.shown(c.record(out)), nil
	}
	c.recorded = true
	e := streamError(c.x, err)
	c.x.breakOff(e)
	whole := wholeLines(out)
	c.edge.pass(whole)
	return c.x.dialect.failEvent(c.edge.close(whole), e), nil
}

var errEventTooLong = errors.New("a server-sent event is longer than the gateway reads")

// streamError is what the client of a stream is told when it breaks off.
func streamError(x *exchange, err error) *apiError {
	switch {
	case err == io.EOF:
		return upstreamFailure(http.StatusBadGateway, "upstream_stream_interrupted", "the upstream's stream ended before the answer did", err)
	case err == errEventTooLong:
		return upstreamFailure(http.StatusBadGateway, "upstream_too_long", "the upstream sent an event longer than the "+strconv.Itoa(maxEventBytes)+" bytes that this gateway reads", err)
	}
	e := asAPIError(x.ctx, err)
	if e.Code == "upstream_unreachable" {
		e.Code, e.Message = "upstream_stream_interrupted", "the upstream's stream broke off in the middle of the answer"
	}
	return e
}

// record puts the turn into its session before the client sees out, which holds
// the end of the answer. If it could not be stored at once, out says so.
func (c *chatStream) record(out []byte) []byte {
	if c.unkept && !c.recorded && c.x.session != nil {
		c.recorded = true
		return c.note(out, storeTooLarge)
	}
	if c.answer == nil || c.recorded || c.failed || len(c.answer.choices) == 0 {
		return out
	}
	c.recorded = true
	if c.x.fidelity == fidelityConverted {
		c.s.afterAnswer(c.x, readCompletion(c.answer.completion(), c.x.quirk))
	}
	if c.x.session == nil {
		return out
	}
	message := c.message()
	if stored := c.s.sessions.record(c.x.ctx, c.x.session, message, false); stored != "" {
		return c.note(out, stored)
	}
	return out
}

// message is the answer as it is recorded. A key that came in pieces, and so
// unmasked, is whole in it.
func (c *chatStream) message() []byte {
	m := recordable(c.answer.choices[0].appendMessage(nil))
	c.s.mask.bytes(m)
	return m
}

// note puts in before the end of the answer what became of its turn.
func (c *chatStream) note(out []byte, stored storing) []byte {
	rest := []byte(nil)
	if i := bytes.LastIndex(out, []byte("[DONE]")); i >= 0 {
		before := wholeLines(out[:i])
		out, rest = before, out[len(before):]
	}
	c.edge.pass(out)
	out = c.edge.close(slices.Clip(out))
	out = append(out, ": session store "+string(stored)+"\n\n"...)
	return append(out, rest...)
}

// Close is called when the client has the answer's end, or has left.
func (c *chatStream) Close() error {
	if c.timer != nil {
		c.timer.Stop()
	}
	if !c.ended {
		c.ended = true
		c.leave()
	}
	return c.src.Close()
}

// leave keeps what a client that left had been given. After a finish reason the
// turn is whole, even if the client did not wait for the end.
func (c *chatStream) leave() {
	if c.x.outcome == outcomeOK && !c.done {
		c.x.outcome = outcomeClientClosed
	}
	c.x.complete = c.done
	if c.answer == nil || c.x.session == nil || c.recorded || len(c.answer.choices) == 0 || c.failed {
		return
	}
	c.recorded = true
	first := c.answer.choices[0]
	if !c.finished {
		first.dropUnfinishedCalls()
		if !first.hasText() && len(first.calls) == 0 && first.function == nil {
			return
		}
	}
	c.s.sessions.record(c.x.ctx, c.x.session, c.message(), !c.finished)
}
