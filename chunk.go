package main

import (
	"bytes"
	"slices"
	"strings"
)

// A chunkReader makes chatChunks of what upstreams stream, and evens out what
// they do differently: where reasoning stands, how calls are numbered, what is
// repeated (dialects E). It holds the state of one answer.
type chunkReader struct {
	quirk   func(string) string
	newID   func() string // for calls to which the upstream gives none
	choices []*choiceState
}

// choiceState is what must be remembered of a choice between chunks.
type choiceState struct {
	index    int
	calls    callList
	args     []argsState // of each call
	text     pending
	think    thinkSplitter
	thoughts pending
	field    reasoningField // the first that reasoning came in; others repeat it
	details  []byte         // reasoning_details so far, joined by commas
	finished bool
}

func newChunkReader(quirk func(string) string) *chunkReader {
	return &chunkReader{quirk: quirk, newID: newCallID}
}

// read takes the data of one event.
func (r *chunkReader) read(data []byte) chatChunk {
	var c chatChunk
	for k, v := range members(data) {
		switch string(k) {
		case "id":
			c.ID = text(v)
		case "created":
			c.Created = intOf(v)
		case "service_tier":
			c.ServiceTier = text(v)
		case "choices":
			for choice := range elements(v) {
				if s := r.state(int(intOf(member(choice, "index")))); s != nil {
					c.Deltas = append(c.Deltas, r.choice(s, choice))
				}
			}
		default:
			c.Usage.read(k, v)
		}
	}
	return c
}

// flush hands over what was held back when the stream is at its end.
func (r *chunkReader) flush() []chatDelta {
	var rest []chatDelta
	for _, s := range r.choices {
		d := chatDelta{Index: s.index}
		s.addText(&d, s.text.end())
		s.think.end(&d)
		s.addReasoning(&d, s.thoughts.end())
		if d.Text != "" || d.Reasoning.Text != "" {
			rest = append(rest, d)
		}
	}
	return rest
}

// state is that of the choice of an index, nil when there are too many.
func (r *chunkReader) state(index int) *choiceState {
	for _, s := range r.choices {
		if s.index == index {
			return s
		}
	}
	if len(r.choices) == maxChoices {
		return nil
	}
	s := &choiceState{index: index, think: newThinkSplitter(r.quirk("think"))}
	r.choices = append(r.choices, s)
	return s
}

func (r *chunkReader) choice(s *choiceState, raw []byte) chatDelta {
	d := chatDelta{Index: s.index}
	for k, v := range members(raw) {
		switch string(k) {
		case "delta", "message":
			r.delta(s, &d, v)
		case "finish_reason":
			if f := text(v); f != "" && !s.finished {
				d.Finish, s.finished = strings.ToLower(f), true
			}
		case "stop_reason":
			d.StopReason = text(v)
		case "logprobs":
			if isObject(v) {
				d.Logprobs = bytes.Clone(v)
			}
		}
	}
	return d
}

func (r *chunkReader) delta(s *choiceState, d *chatDelta, delta []byte) {
	s.reasoning(d, delta)
	pos := 0
	for k, v := range members(delta) {
		switch string(k) {
		case "content":
			s.content(d, v)
		case "refusal":
			d.Refusal = text(v)
		case "annotations":
			if isArray(v) {
				d.Annotations = bytes.Clone(v)
			}
		case "tool_calls":
			for entry := range elements(v) {
				r.call(s, d, entry, pos)
				pos++
			}
		case "function_call":
			if isObject(v) {
				r.call(s, d, legacyCall(v), pos)
			}
		}
	}
}

// reasoning takes the first of the fields that upstreams put reasoning into;
// routers send the same text in several (dialects E-20, E-21).
func (s *choiceState) reasoning(d *chatDelta, delta []byte) {
	var found [3][]byte
	for k, v := range members(delta) {
		switch string(k) {
		case "reasoning_content":
			found[0] = v
		case "reasoning":
			found[1] = v
		case "reasoning_details":
			found[2] = v
		}
	}
	if isArray(found[2]) {
		inner := bytes.TrimSpace(found[2][1 : len(found[2])-1])
		if len(s.details) > 0 && len(inner) > 0 {
			s.details = append(s.details, ',')
		}
		s.details = append(s.details, inner...)
	}
	for i, field := range []reasoningField{reasoningContent, reasoningPlain, reasoningList} {
		if s.field != 0 && s.field != field {
			continue
		}
		if t := s.thoughts.add(reasoningContentOf(found[i], field)); t != "" {
			s.field = field
			s.addReasoning(d, t)
			return
		}
	}
}

// reasoningContentOf is the raw string content of reasoning in one of its
// shapes.
func reasoningContentOf(v []byte, field reasoningField) []byte {
	switch {
	case isString(v):
		return stringContent(v)
	case isObject(v):
		if t := member(v, "content"); isString(t) {
			return stringContent(t)
		}
		return stringContent(member(v, "text"))
	case field == reasoningList && isArray(v):
		var all []byte
		for d := range elements(v) {
			switch text(member(d, "type")) {
			case "reasoning.text":
				all = append(all, stringContent(member(d, "text"))...)
			case "reasoning.summary":
				all = append(all, stringContent(member(d, "summary"))...)
			}
		}
		return all
	}
	return nil
}

func (s *choiceState) addReasoning(d *chatDelta, t string) {
	if t == "" {
		return
	}
	d.Reasoning.Text += t
	d.Reasoning.Field = s.field
	if s.field == 0 {
		d.Reasoning.Field = reasoningInText
	}
	d.Reasoning.Details = s.details
}

// content takes text, or parts of which some may be thoughts (dialects E-10).
func (s *choiceState) content(d *chatDelta, v []byte) {
	if isString(v) {
		s.addText(d, s.text.add(stringContent(v)))
		return
	}
	for part := range elements(v) {
		switch {
		case text(member(part, "type")) == "thinking":
			for t := range elements(member(part, "thinking")) {
				s.addReasoning(d, text(member(t, "text")))
			}
			s.addReasoning(d, text(member(part, "thinking")))
		default:
			s.addText(d, s.text.add(stringContent(member(part, "text"))))
		}
	}
}

// addText splits thoughts in tags off, unless reasoning has a field of its own.
func (s *choiceState) addText(d *chatDelta, t string) {
	if s.field != 0 {
		d.Text += t
		return
	}
	s.think.add(d, t)
}

// call takes one entry of tool_calls.
func (r *chunkReader) call(s *choiceState, d *chatDelta, entry []byte, pos int) {
	at := s.calls.add(entry, pos)
	if at < 0 {
		return
	}
	call := s.calls[at]
	for len(s.args) <= at {
		s.args = append(s.args, argsState{})
	}
	state := &s.args[at]
	if piece := call.args[state.seen:]; state.seen > 0 && r.quirk("args") == "cumulative" && bytes.HasPrefix(piece, call.args[:state.seen]) {
		call.args = piece
	}
	state.seen = len(call.args)
	if len(call.id) == 0 && len(call.name) > 0 {
		call.id, call.made = []byte(r.newID()), true
	}
	piece := call.args[state.sent:]
	piece = piece[:len(piece)-halfPair(piece)]
	state.sent += len(piece)
	delta := callDelta{Call: at, ID: unquote(call.id), Name: unquote(call.name), Args: unquote(piece)}
	if i := slices.IndexFunc(call.extra, func(m assembled) bool { return m.key == "extra_content" }); i >= 0 {
		delta.Extra = slices.Clone(call.extra[i].raw)
	}
	d.Calls = append(d.Calls, delta)
}

// argsState is how much of a call's arguments has come, and was handed on, in
// bytes of JSON string content.
type argsState struct{ seen, sent int }

// legacyCall is a function_call as the entry of tool_calls that it is now
// (dialects E-9).
func legacyCall(function []byte) []byte {
	return slices.Concat([]byte(`{"index":0,"function":`), function, []byte("}"))
}

// pending decodes text that comes in pieces of JSON string content, and holds
// half of a surrogate pair back until the other half comes (dialects E-53).
type pending struct{ half []byte }

func (p *pending) add(content []byte) string {
	if len(p.half) > 0 {
		content = append(p.half, content...)
		p.half = nil
	}
	if n := halfPair(content); n > 0 {
		p.half = bytes.Clone(content[len(content)-n:])
		content = content[:len(content)-n]
	}
	return unquote(content)
}

// end is what a half without its other half comes to.
func (p *pending) end() string {
	half := p.half
	p.half = nil
	return unquote(half)
}

// halfPair is the length of the escape for the first half of a surrogate pair
// with which JSON string content ends, 0 for none.
func halfPair(content []byte) int {
	const n = len(`\ud83d`)
	if len(content) < n {
		return 0
	}
	tail := content[len(content)-n:]
	if tail[0] != '\\' || tail[1] != 'u' || tail[2]|0x20 != 'd' || !strings.ContainsRune("89abAB", rune(tail[3])) {
		return 0
	}
	slashes := 0
	for i := len(content) - n; i >= 0 && content[i] == '\\'; i-- {
		slashes++
	}
	if slashes%2 == 0 {
		return 0
	}
	return n
}

// A thinkSplitter takes thoughts out of text that begins with a <think> tag
// (dialects E-22, E-23).
type thinkSplitter struct {
	state thinkState
	held  string // may be a part of a tag
}

type thinkState int

const (
	thinkMaybe  thinkState = iota // nothing but space so far
	thinkInside                   // between the tags
	thinkAfter                    // in the space after the closing tag
	thinkNone                     // text
)

const (
	thinkOpen  = "<think>"
	thinkClose = "</think>"
	blank      = " \t\r\n"
)

// newThinkSplitter begins as the quirk think says: auto, prefilled or off.
func newThinkSplitter(quirk string) thinkSplitter {
	switch quirk {
	case "prefilled":
		return thinkSplitter{state: thinkInside}
	case "off":
		return thinkSplitter{state: thinkNone}
	}
	return thinkSplitter{}
}

func (t *thinkSplitter) add(d *chatDelta, s string) {
	for s != "" {
		switch t.state {
		case thinkMaybe:
			s = t.begin(d, t.held+s)
		case thinkInside:
			s = t.inside(d, t.held+s)
		case thinkAfter:
			if s = strings.TrimLeft(s, blank); s != "" {
				t.state = thinkNone
			}
		case thinkNone:
			d.Text += s
			s = ""
		}
	}
}

// begin decides whether text begins with the tag; what it returns is still to be
// looked at.
func (t *thinkSplitter) begin(d *chatDelta, s string) string {
	t.held = ""
	trimmed := strings.TrimLeft(s, blank)
	if rest, ok := strings.CutPrefix(trimmed, thinkOpen); ok {
		t.state = thinkInside
		return rest
	}
	if strings.HasPrefix(thinkOpen, trimmed) {
		t.held = s
		return ""
	}
	t.state = thinkNone
	return s
}

func (t *thinkSplitter) inside(d *chatDelta, s string) string {
	t.held = ""
	if thought, rest, ok := strings.Cut(s, thinkClose); ok {
		t.think(d, thought)
		t.state = thinkAfter
		return rest
	}
	keep := 0
	for n := min(len(s), len(thinkClose)-1); n > 0 && keep == 0; n-- {
		if strings.HasSuffix(s, thinkClose[:n]) {
			keep = n
		}
	}
	t.think(d, s[:len(s)-keep])
	t.held = s[len(s)-keep:]
	return ""
}

func (t *thinkSplitter) think(d *chatDelta, s string) {
	if s != "" {
		d.Reasoning.Text += s
		d.Reasoning.Field = reasoningInText
	}
}

// end hands over what was held back.
func (t *thinkSplitter) end(d *chatDelta) {
	if t.state == thinkInside {
		t.think(d, t.held)
	} else {
		d.Text += t.held
	}
	t.held = ""
}

// readCompletion reads a whole answer, or an assembled one.
func readCompletion(body []byte, quirk func(string) string) *chatResponse {
	r := newChunkReader(quirk)
	c := r.read(body)
	res := &chatResponse{ID: c.ID, Created: c.Created, ServiceTier: c.ServiceTier, Usage: c.Usage}
	for _, d := range append(c.Deltas, r.flush()...) {
		res.add(d)
	}
	res.settle()
	return res
}

// add puts a delta into the answer that it belongs to. Texts are complete after
// settle.
func (c *chatResponse) add(d chatDelta) {
	i := slices.IndexFunc(c.Choices, func(o chatChoice) bool { return o.Index == d.Index })
	if i < 0 {
		i = len(c.Choices)
		c.Choices = append(c.Choices, chatChoice{Index: d.Index})
		c.texts = append(c.texts, choiceTexts{})
	}
	o, texts := &c.Choices[i], &c.texts[i]
	texts.text = append(texts.text, d.Text...)
	texts.refusal = append(texts.refusal, d.Refusal...)
	if d.Reasoning.Field != 0 {
		texts.thought = append(texts.thought, d.Reasoning.Text...)
		o.Reasoning = d.Reasoning
	}
	for _, call := range d.Calls {
		for len(o.Calls) <= call.Call {
			o.Calls = append(o.Calls, functionCall("", "", ""))
			texts.args = append(texts.args, nil)
		}
		to := &o.Calls[call.Call]
		to.ID, to.Function.Name = call.ID, call.Name
		texts.args[call.Call] = append(texts.args[call.Call], call.Args...)
		if call.Extra != nil {
			to.ExtraContent = call.Extra
		}
	}
	if o.Finish == "" {
		o.Finish = d.Finish
	}
	if d.StopReason != "" {
		o.StopReason = d.StopReason
	}
	if d.Logprobs != nil {
		o.Logprobs = d.Logprobs
	}
	if d.Annotations != nil {
		o.Annotations = d.Annotations
	}
}

// choiceTexts are the texts of a choice while they grow.
type choiceTexts struct {
	text, refusal, thought []byte
	args                   [][]byte // of each call
}

// settle makes the texts of all choices what has been added up.
func (c *chatResponse) settle() {
	for i := range c.Choices {
		o, texts := &c.Choices[i], &c.texts[i]
		o.Text, o.Refusal, o.Reasoning.Text = string(texts.text), string(texts.refusal), string(texts.thought)
		for j := range o.Calls {
			o.Calls[j].Function.Arguments = string(texts.args[j])
		}
	}
}

// dropNameless leaves out the calls that name no tool, which nobody could answer
// (dialects E-17), and says how many those are. It is for a settled answer that
// does not grow any more.
func (c *chatResponse) dropNameless() int {
	dropped := 0
	for i := range c.Choices {
		o := &c.Choices[i]
		before := len(o.Calls)
		o.Calls = slices.DeleteFunc(o.Calls, func(call chatToolCall) bool { return call.Function.Name == "" })
		dropped += before - len(o.Calls)
	}
	return dropped
}
