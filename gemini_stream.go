package main

import (
	"slices"
	"strconv"
)

// A geminiStream writes one streamed answer, as server-sent events or as a JSON
// array (dialects B.7). Text goes out as it comes; calls go out whole, in the
// last chunk of their candidate, which waits for the end of the upstream's
// stream, since usage comes last.
type geminiStream struct {
	x     *exchange
	g     *geminiRequest
	newID func() string // for calls to which the upstream gives none

	id      string
	created int64
	tail    []byte // what ends a chunk, from after the candidates; fixed by the first one
	written bool   // a chunk is out
	fed     bool   // the upstream sent something

	candidates []*geminiOpen
	usage      usage
	size       int64 // bytes of what the model has said
}

// A geminiOpen is a candidate whose last chunk is not out.
type geminiOpen struct {
	index    int
	thoughts reasoning // those that are shown and not signed yet
	spoken   bool      // text is out that is not blank
	held     string    // text that may not have to be shown
	refused  bool
	calls    []geminiOpenCall
	finish   string
	logprobs *geminiLogprobs
}

type geminiOpenCall struct {
	call chatToolCall
	args []byte // so far
}

const geminiFrameEnd = "\r\n\r\n"

func newGeminiStream(x *exchange) streamEncoder {
	return &geminiStream{x: x, g: x.geminiView(), newID: newCallID}
}

func (s *geminiStream) chunk(dst []byte, c *chatChunk) []byte {
	s.fed = true
	if s.tail == nil {
		s.id, s.created = orElse(c.ID, s.id), max(c.Created, s.created)
	}
	if c.Usage.Known {
		s.usage = c.Usage
	}
	for i := range c.Deltas {
		dst = s.delta(dst, &c.Deltas[i])
	}
	return dst
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (s *geminiStream) candidate(index int) *geminiOpen {
	for _, o := range s.candidates {
		if o.index == index {
			return o
		}
	}
	o := &geminiOpen{index: index}
	s.candidates = append(s.candidates, o)
	return o
}

func (s *geminiStream) delta(dst []byte, d *chatDelta) []byte {
	o := s.candidate(d.Index)
	s.size += int64(len(d.Reasoning.Text) + len(d.Text) + len(d.Refusal))
	if s.g.IncludeThoughts && d.Reasoning.Text != "" {
		dst = s.append(dst, o.index, d.Reasoning.Text, true)
		o.thoughts = reasoning{Field: d.Reasoning.Field, Details: d.Reasoning.Details}
	}
	if d.Text != "" {
		dst = s.text(dst, o, d.Text)
	}
	if d.Refusal != "" {
		o.refused = true
		dst = s.append(s.sign(dst, o), o.index, d.Refusal, false)
		o.spoken = true
	}
	for i := range d.Calls {
		o.add(&d.Calls[i])
		s.size += int64(len(d.Calls[i].Args))
	}
	o.finish = orElse(o.finish, d.Finish)
	o.logprobs = geminiLogprobsOf(o.logprobs, d.Logprobs)
	return dst
}

// text writes text, or holds it: white space before any text or after calls
// means nothing if calls are all there is (dialects E-16), and an enum's quotes
// can be taken off only when it is whole.
func (s *geminiStream) text(dst []byte, o *geminiOpen, t string) []byte {
	if s.g.Enum || (!o.spoken || len(o.calls) > 0) && isBlank(t) {
		o.held += t
		return dst
	}
	if o.held != "" {
		t, o.held = o.held+t, ""
	}
	o.spoken = true
	return s.append(s.sign(dst, o), o.index, t, false)
}

// sign ends a run of thoughts with the signature under which it can come back
// (dialects E-24).
func (s *geminiStream) sign(dst []byte, o *geminiOpen) []byte {
	if o.thoughts.Field == 0 {
		return dst
	}
	stamp := geminiStamp(o.thoughts)
	o.thoughts = reasoning{}
	if stamp == "" {
		return dst
	}
	dst = append(s.open(dst), `{"candidates":[{"content":{"role":"model","parts":[{"text":"","thought":true,"thoughtSignature":`...)
	return s.close(appendQuoted(dst, stamp), o.index)
}

// append writes a chunk with one text.
func (s *geminiStream) append(dst []byte, index int, t string, thought bool) []byte {
	dst = append(s.open(dst), `{"candidates":[{"content":{"role":"model","parts":[{"text":`...)
	dst = appendQuoted(dst, t)
	if thought {
		dst = append(dst, `,"thought":true`...)
	}
	return s.close(dst, index)
}

// open begins a frame.
func (s *geminiStream) open(dst []byte) []byte {
	first := !s.written
	s.written = true
	switch {
	case s.g.SSE:
		return append(dst, "data: "...)
	case first:
		return append(dst, '[')
	}
	return append(dst, ",\r\n"...)
}

// close ends a chunk whose part is open.
func (s *geminiStream) close(dst []byte, index int) []byte {
	if s.tail == nil {
		s.tail = s.makeTail()
	}
	dst = append(dst, `}]},"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	return append(dst, s.tail...)
}

func (s *geminiStream) makeTail() []byte {
	tail := appendQuoted([]byte(`}],"modelVersion":`), s.x.model)
	if t := geminiTime(s.created); t != "" {
		tail = appendQuoted(append(tail, `,"createTime":`...), t)
	}
	if s.id = orElse(s.id, s.x.id); s.id != "" { // it stays: all chunks have the same
		tail = appendQuoted(append(tail, `,"responseId":`...), s.id)
	}
	return s.end(append(tail, '}'))
}

// end ends a frame.
func (s *geminiStream) end(dst []byte) []byte {
	if s.g.SSE {
		return append(dst, geminiFrameEnd...)
	}
	return dst
}

// add takes a piece of a call.
func (o *geminiOpen) add(d *callDelta) {
	for len(o.calls) <= d.Call {
		o.calls = append(o.calls, geminiOpenCall{call: functionCall("", "", "")})
	}
	c := &o.calls[d.Call]
	c.call.ID = orElse(d.ID, c.call.ID)
	c.call.Function.Name = orElse(d.Name, c.call.Function.Name)
	c.args = append(c.args, d.Args...)
	if d.Extra != nil {
		c.call.ExtraContent = d.Extra
	}
}

func (s *geminiStream) finish(dst []byte) []byte {
	if len(s.candidates) == 0 && (s.fed || s.g.SSE) {
		s.candidate(0) // there is always an answer, if an empty one
	}
	slices.SortFunc(s.candidates, func(a, b *geminiOpen) int { return a.index - b.index })
	for i, o := range s.candidates {
		dst = s.last(dst, o, i == len(s.candidates)-1)
	}
	if s.g.SSE {
		return dst
	}
	if !s.written {
		dst = append(dst, '[')
	}
	return append(dst, ']')
}

// last writes the last chunk of a candidate; that of the last candidate has the
// usage.
func (s *geminiStream) last(dst []byte, o *geminiOpen, withUsage bool) []byte {
	calls := s.callParts(o)
	if s.g.Enum {
		o.held = bareEnum(o.held)
	}
	if o.held != "" && (len(calls) == 0 || !isBlank(o.held)) {
		dst = s.append(s.sign(dst, o), o.index, o.held, false)
	}
	dst = s.sign(dst, o)
	if len(calls) == 0 {
		calls = []geminiAnswerPart{{Text: new(string)}}
	}
	a := geminiAnswer{
		Candidates: []geminiCandidate{{
			Content: geminiContent{"model", calls}, FinishReason: s.finishReason(o), Index: o.index,
			AvgLogprobs: o.logprobs.mean(), LogprobsResult: o.logprobs,
		}},
		ModelVersion: s.x.model, CreateTime: geminiTime(s.created), ResponseID: orElse(s.id, s.x.id),
	}
	if withUsage {
		a.UsageMetadata = geminiUsageOf(s.usage, s.x.estimate, s.size)
	}
	return s.frame(dst, a)
}

func (s *geminiStream) callParts(o *geminiOpen) []geminiAnswerPart {
	var parts []geminiAnswerPart
	for i := range o.calls {
		c := &o.calls[i]
		if c.call.Function.Name == "" {
			continue
		}
		if c.call.ID == "" {
			c.call.ID = s.newID()
		}
		c.call.Function.Arguments = string(c.args)
		parts = append(parts, geminiCallPart(s.x, &c.call))
	}
	return parts
}

// finishReason is OTHER where a stream that just ended is taken for a whole one
// (quirk lenient_eof).
func (s *geminiStream) finishReason(o *geminiOpen) string {
	if o.finish == "" && !o.refused && s.x.quirk("lenient_eof") == "on" {
		return "OTHER"
	}
	return geminiFinish(o.finish, o.refused)
}

// frame writes a whole frame that is not worth writing by hand.
func (s *geminiStream) frame(dst []byte, v any) []byte {
	body, err := marshal(v)
	if err != nil {
		return dst
	}
	return s.end(append(s.open(dst), body...))
}

// fail writes the error that ends the stream. A refusal of the prompt is an
// answer, as long as there is no other.
func (s *geminiStream) fail(dst []byte, e *apiError) []byte {
	if isPromptRefusal(e) && !s.written {
		dst = s.frame(dst, geminiPromptBlocked(s.x.model))
	} else {
		dst = s.frame(dst, geminiErrorOf(e))
	}
	if s.g.SSE {
		return dst
	}
	return append(dst, ']')
}
