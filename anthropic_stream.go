package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// anthropicStream writes a streamed answer as Anthropic's events (dialects C.6).
// There is never more than one open block, and blocks are numbered from 0
// without a gap: clients append blocks as they start, and don't look at the
// number. What upstreams send while the block of another call is open waits
// until that can be closed.
type anthropicStream struct {
	x         *exchange
	id        string        // of the message
	newCallID func() string // for calls that come without an id

	started bool // message_start is out
	open    anthropicOpen
	blocks  int // started so far; the open block is the last of them

	thought reasoning       // of the open thinking block, but for its text
	unshown []byte          // the text, if it goes into the signature alone
	calls   []anthropicFlow // by callDelta.Call
	call    int             // which call the open tool block is for
	space   []byte          // white space that may turn out to lead a text
	later   anthropicLater

	end     chatChoice // Finish, StopReason and Refusal as far as known
	usage   usage
	written int // bytes of answer so far
}

// anthropicOpen is the kind of the open block.
type anthropicOpen int

const (
	openNone anthropicOpen = iota
	openThinking
	openText
	openTool
)

// anthropicLater is what came in the middle of a call and waits for the end of
// its block.
type anthropicLater struct {
	thought reasoning // but for its text
	thinks  []byte
	text    []byte
}

// anthropicFlow is a tool call on its way.
type anthropicFlow struct {
	id, name string
	state    flowState
	args     []byte // so far
	sent     int    // bytes of args that are out
	checked  int    // length of args when whole was found out
	whole    bool
}

type flowState int

const (
	flowWaiting flowState = iota // for its name, or for its turn
	flowOpen
	flowClosed
)

// streamAnthropic makes the encoder of one streamed answer.
func streamAnthropic(x *exchange) streamEncoder {
	return &anthropicStream{x: x, id: newID("msg_"), newCallID: newCallID}
}

// chunk writes what a chunk adds. A chunk without any of the first choice, such
// as one that only names a role, is no reason to begin.
func (s *anthropicStream) chunk(dst []byte, c *chatChunk) []byte {
	if c.Usage.Known {
		s.usage = c.Usage
	}
	for i := range c.Deltas {
		if d := &c.Deltas[i]; d.Index == 0 {
			dst = s.delta(dst, d)
		}
	}
	return dst
}

func (s *anthropicStream) delta(dst []byte, d *chatDelta) []byte {
	if d.Reasoning.Text == "" && d.Text == "" && d.Refusal == "" && len(d.Calls) == 0 && d.Finish == "" && d.StopReason == "" {
		return dst
	}
	dst = s.start(dst)
	if d.Reasoning.Text != "" {
		dst = s.think(dst, d.Reasoning)
	}
	if d.Text != "" {
		dst = s.text(dst, d.Text)
	}
	if d.Refusal != "" {
		s.end.Refusal = d.Refusal
		dst = s.text(dst, d.Refusal)
	}
	for i := range d.Calls {
		dst = s.tool(dst, &d.Calls[i])
	}
	if s.end.Finish == "" {
		s.end.Finish = d.Finish
	}
	if d.StopReason != "" {
		s.end.StopReason = d.StopReason
	}
	return dst
}

// start opens the message.
func (s *anthropicStream) start(dst []byte) []byte {
	if s.started {
		return dst
	}
	s.started = true
	dst = append(dst, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":"...)
	dst = appendQuoted(dst, s.id)
	dst = append(dst, `,"type":"message","role":"assistant","model":`...)
	dst = appendQuoted(dst, s.x.model)
	dst = append(dst, `,"content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"diagnostics":null,"usage":`...)
	dst = appendAnthropicUsage(dst, anthropicUsage{InputTokens: s.x.estimate, OutputTokens: 1})
	return append(dst, "}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n"...)
}

// think takes reasoning. Clients that did not ask for it don't get it (dialects
// C-81).
func (s *anthropicStream) think(dst []byte, r reasoning) []byte {
	s.written += len(r.Text)
	if !s.x.anthropic.ShowThinking {
		return dst
	}
	if s.open == openTool {
		if !s.calls[s.call].complete() {
			s.later.thought = r
			s.later.thinks = append(s.later.thinks, r.Text...)
			return dst
		}
		dst = s.closeTool(dst)
	}
	return s.appendThought(dst, r)
}

func (s *anthropicStream) appendThought(dst []byte, r reasoning) []byte {
	if s.open != openThinking {
		dst = s.close(dst)
		dst = append(s.startBlock(dst, openThinking), `{"type":"thinking","thinking":"","signature":""}`...)
		dst = append(dst, anthropicEventEnd...)
		s.unshown = s.unshown[:0]
	}
	s.thought = r
	if s.x.anthropic.OmitThinking {
		s.unshown = append(s.unshown, r.Text...)
		return dst
	}
	dst = append(s.blockDelta(dst), `{"type":"thinking_delta","thinking":`...)
	return append(appendQuoted(dst, r.Text), anthropicDeltaEnd...)
}

// text takes visible text. White space opens no block: models put it between
// calls, where it means nothing (dialects C-116).
func (s *anthropicStream) text(dst []byte, t string) []byte {
	s.written += len(t)
	if s.open == openText {
		return s.appendText(dst, t)
	}
	if len(s.later.text) == 0 && strings.Trim(t, blank) == "" {
		s.space = append(s.space, t...)
		return dst
	}
	s.later.text = append(append(s.later.text, s.space...), t...)
	s.space = s.space[:0]
	if s.open == openTool {
		if !s.calls[s.call].complete() {
			return dst
		}
		return s.closeTool(dst)
	}
	return s.flushLater(dst)
}

func (s *anthropicStream) appendText(dst []byte, t string) []byte {
	if s.open != openText {
		dst = s.close(dst)
		dst = append(s.startBlock(dst, openText), `{"type":"text","text":"","citations":null}`...)
		dst = append(dst, anthropicEventEnd...)
	}
	dst = append(s.blockDelta(dst), `{"type":"text_delta","text":`...)
	return append(appendQuoted(dst, t), anthropicDeltaEnd...)
}

// flushLater writes what waited for the end of a call's block.
func (s *anthropicStream) flushLater(dst []byte) []byte {
	if len(s.later.thinks) > 0 {
		r := s.later.thought
		r.Text = string(s.later.thinks)
		dst = s.appendThought(dst, r)
	}
	if len(s.later.text) > 0 {
		dst = s.appendText(dst, string(s.later.text))
	}
	s.later = anthropicLater{}
	return dst
}

// tool takes a piece of a call.
func (s *anthropicStream) tool(dst []byte, d *callDelta) []byte {
	for len(s.calls) <= d.Call {
		s.calls = append(s.calls, anthropicFlow{})
	}
	s.written += len(d.Args)
	c := &s.calls[d.Call]
	switch c.state {
	case flowOpen:
		c.args = append(c.args, d.Args...)
		if c.sent > 0 && d.Args != "" {
			c.sent = len(c.args)
			return s.argsDelta(dst, d.Args)
		}
		return s.appendArgs(dst, c)
	case flowClosed: // its block is over: this can't be said any more (dialects C-121)
		if strings.Trim(d.Args, blank) != "" {
			s.x.drop(droppedCall)
		}
		return dst
	}
	if d.ID != "" && c.id == "" {
		c.id = d.ID
	}
	if d.Name != "" {
		c.name = d.Name
	}
	c.args = append(c.args, d.Args...)
	return s.turn(dst)
}

// turn opens the block of the first call that waits, if it can be; then that
// call may be complete already, and it is the next one's turn.
func (s *anthropicStream) turn(dst []byte) []byte {
	for {
		next := slices.IndexFunc(s.calls, func(c anthropicFlow) bool { return c.state == flowWaiting && c.name != "" })
		if next < 0 || s.open == openTool && !s.calls[s.call].complete() {
			return dst
		}
		if s.open == openTool {
			dst = s.closeTool(dst)
		}
		dst = s.openCall(dst, next)
	}
}

func (s *anthropicStream) openCall(dst []byte, at int) []byte {
	dst = s.close(dst)
	s.space = s.space[:0]
	c := &s.calls[at]
	c.state, s.call = flowOpen, at
	if c.id == "" {
		c.id = s.newCallID()
	}
	s.written += len(c.name)
	dst = append(s.startBlock(dst, openTool), `{"type":"tool_use","id":`...)
	dst = append(appendQuoted(dst, c.id), `,"name":`...)
	dst = append(appendQuoted(dst, s.x.clientToolName(c.name)), `,"input":{},"caller":{"type":"direct"}}`...)
	dst = append(dst, anthropicEventEnd...)
	return s.appendArgs(dst, c)
}

// appendArgs writes what there is of the open call's arguments. Clients need an
// object; what begins as anything else is held back until it can be made one.
func (s *anthropicStream) appendArgs(dst []byte, c *anthropicFlow) []byte {
	if c.sent == len(c.args) || c.sent == 0 && !bytes.HasPrefix(bytes.TrimLeft(c.args, blank), []byte("{")) {
		return dst
	}
	dst = s.argsDelta(dst, string(c.args[c.sent:]))
	c.sent = len(c.args)
	return dst
}

func (s *anthropicStream) argsDelta(dst []byte, piece string) []byte {
	dst = append(s.blockDelta(dst), `{"type":"input_json_delta","partial_json":`...)
	return append(appendQuoted(dst, piece), anthropicDeltaEnd...)
}

// complete says whether the arguments so far are a whole JSON value. The check
// is made again only for a call that has grown to what looks like an end.
func (c *anthropicFlow) complete() bool {
	if c.checked != len(c.args) {
		c.checked = len(c.args)
		tail := bytes.TrimRight(c.args, blank)
		c.whole = len(tail) > 0 && (tail[0] != '{' || tail[len(tail)-1] == '}') && checkJSON(tail) == nil
	}
	return c.whole
}

// closeTool ends the open call's block, and writes what waited for that.
func (s *anthropicStream) closeTool(dst []byte) []byte {
	return s.flushLater(s.close(dst))
}

// close ends the open block, if there is one.
func (s *anthropicStream) close(dst []byte) []byte {
	switch s.open {
	case openNone:
		return dst
	case openThinking:
		s.thought.Text = string(s.unshown)
		dst = append(s.blockDelta(dst), `{"type":"signature_delta","signature":`...)
		dst = append(appendQuoted(dst, s.thought.stamp(s.x.anthropic.OmitThinking)), anthropicDeltaEnd...)
	case openTool:
		c := &s.calls[s.call]
		if c.sent == 0 {
			dst = s.argsDelta(dst, string(argumentsObject(string(c.args))))
		}
		*c = anthropicFlow{state: flowClosed, name: c.name}
	}
	s.open = openNone
	dst = append(dst, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":"...)
	return append(strconv.AppendInt(dst, int64(s.blocks-1), 10), anthropicEventEnd...)
}

// The ends of events whose inner objects are still open.
const (
	anthropicEventEnd = "}\n\n"
	anthropicDeltaEnd = "}}\n\n"
)

// startBlock begins the event that starts a block, up to the block itself.
func (s *anthropicStream) startBlock(dst []byte, kind anthropicOpen) []byte {
	s.open = kind
	s.blocks++
	dst = append(dst, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":"...)
	return append(strconv.AppendInt(dst, int64(s.blocks-1), 10), `,"content_block":`...)
}

// blockDelta begins an event for the open block, up to the delta itself.
func (s *anthropicStream) blockDelta(dst []byte) []byte {
	dst = append(dst, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":"...)
	return append(strconv.AppendInt(dst, int64(s.blocks-1), 10), `,"delta":`...)
}

// finish ends the message: calls that still wait come out whole, one after
// another; those whose name never came are left out.
func (s *anthropicStream) finish(dst []byte) []byte {
	dst = s.start(dst)
	if s.open == openTool {
		dst = s.closeTool(dst)
	}
	for i := range s.calls {
		if c := &s.calls[i]; c.state == flowWaiting && c.name != "" {
			dst = s.close(s.openCall(dst, i))
		}
	}
	if slices.ContainsFunc(s.calls, func(c anthropicFlow) bool { return c.state == flowWaiting }) {
		s.x.drop(droppedCall)
	}
	calls := slices.ContainsFunc(s.calls, func(c anthropicFlow) bool { return c.state == flowClosed })
	if len(s.space) > 0 && !calls {
		dst = s.appendText(dst, string(s.space))
	}
	dst = s.close(dst)
	if s.blocks == 0 {
		dst = append(s.startBlock(dst, openText), `{"type":"text","text":"","citations":null}`...)
		dst = s.close(append(dst, anthropicEventEnd...))
	}
	dst = s.messageDelta(dst, anthropicStop(s.x, &s.end, calls))
	return append(dst, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"...)
}

func (s *anthropicStream) messageDelta(dst []byte, stop anthropicStopped) []byte {
	dst = append(dst, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"...)
	dst = append(appendQuoted(dst, stop.reason), `,"stop_sequence":`...)
	if stop.sequence == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendQuoted(dst, *stop.sequence)
	}
	dst = append(dst, `,"stop_details":`...)
	if stop.details == nil {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, `{"type":"refusal","category":null,"explanation":null}`...)
	}
	dst = append(dst, `,"container":null},"usage":`...)
	dst = appendAnthropicUsage(dst, s.x.anthropicUsage(s.usage, s.written))
	return append(dst, anthropicEventEnd...)
}

func appendAnthropicUsage(dst []byte, u anthropicUsage) []byte {
	raw, err := marshal(u)
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, raw...)
}

// fail ends a stream that broke with the error, in place of message_stop: the
// open block stays open, so that nobody takes the answer for a whole one.
func (s *anthropicStream) fail(dst []byte, e *apiError) []byte {
	if e.RequestID == "" {
		named := *e
		named.RequestID = s.x.id
		e = &named
	}
	return failEventAnthropic(dst, e)
}
