package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// A responsesStream writes an answer as the events of the Responses API
// (dialects D.7). An item is built once: what its done event held is what the
// final object holds.
type responsesStream struct {
	x         *exchange
	r         *responsesRequest
	id        string
	createdAt int64
	seq       int64 // of the next event

	items  []*outputItem // by output_index
	open   *outputItem   // the message or reasoning being written; nil for none
	calls  []*outputItem // by the call's number
	called bool          // the model has called a tool
	space  string        // white space that may come before text, or before nothing

	logprobs    []byte // of text that is not written yet, without brackets
	details     int    // bytes of reasoning_details that earlier reasoning items have
	annotations json.RawMessage
	tier        string
	finished    string // finish_reason
	usage       usage
	stamps      []reasoningStamp
	object      json.RawMessage // the terminal object
}

func streamResponses(x *exchange) streamEncoder { return newResponsesStream(x) }

func newResponsesStream(x *exchange) *responsesStream {
	r := newResponsesRequest(x.responses)
	return &responsesStream{x: x, r: r, id: r.ids.response(), createdAt: r.now().Unix()}
}

// chunk writes what a chunk of the upstream's adds.
func (s *responsesStream) chunk(dst []byte, c *chatChunk) []byte {
	dst = s.begin(dst)
	if c.ServiceTier != "" {
		s.tier = c.ServiceTier
	}
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

// begin opens the response, once.
func (s *responsesStream) begin(dst []byte) []byte {
	if s.seq > 0 {
		return dst
	}
	object := s.appendObject(nil, objectState{status: "in_progress", stored: s.keeps()})
	for _, name := range []string{"response.created", "response.in_progress"} {
		dst = append(s.event(dst, name), `,"response":`...)
		dst = endEvent(append(dst, object...))
	}
	return dst
}

func (s *responsesStream) delta(dst []byte, d *chatDelta) []byte {
	if d.Reasoning.Text != "" {
		dst = s.reasoning(dst, &d.Reasoning)
	}
	if d.Annotations != nil {
		s.annotations = d.Annotations
	}
	if d.Reasoning.Text == "" && d.Calls == nil || d.Text != "" {
		s.logprobs = joinRaw(s.logprobs, s.tokens(d.Logprobs))
	}
	if d.Text != "" {
		dst = s.text(dst, d.Text)
	}
	if d.Refusal != "" {
		dst = s.writePart(s.openPart(dst, partRefusal), d.Refusal)
	}
	for i := range d.Calls {
		dst = s.call(dst, &d.Calls[i])
	}
	if s.finished == "" {
		s.finished = d.Finish
	}
	return dst
}

func (s *responsesStream) reasoning(dst []byte, r *reasoning) []byte {
	it := s.open
	if it == nil || it.kind != itemReasoning {
		dst = s.closeOpen(dst, "completed")
		it = s.add(itemReasoning, "rs_")
		s.open = it
		dst = append(s.event(dst, "response.output_item.added"), `,"output_index":`...)
		dst = append(strconv.AppendInt(dst, int64(it.index), 10), `,"item":{"type":"reasoning","id":"`...)
		dst = endEvent(append(append(dst, it.id...), `","status":"in_progress","summary":[]}`...))
		dst = s.at(s.event(dst, "response.reasoning_summary_part.added"), it)
		dst = endEvent(append(dst, `,"summary_index":0,"part":{"type":"summary_text","text":""}`...))
	}
	it.think.Field, it.think.Details = r.Field, r.Details
	dst = s.at(s.event(dst, "response.reasoning_summary_text.delta"), it)
	dst = append(dst, `,"summary_index":0,"delta":`...)
	return endEvent(it.appendText(dst, r.Text))
}

// text writes visible text. Text that is only white space opens no message: it
// waits for what comes next, and goes if that is a call (dialects D-125).
func (s *responsesStream) text(dst []byte, t string) []byte {
	if s.open == nil || s.open.kind != itemMessage {
		s.space += t
		if strings.Trim(t, blank) == "" {
			return dst
		}
		t, s.space = s.space, ""
	}
	return s.writePart(s.openPart(dst, partOutputText), t)
}

// openPart makes sure that a message is open, and in it a part of that kind.
func (s *responsesStream) openPart(dst []byte, kind partKind) []byte {
	it := s.open
	if it == nil || it.kind != itemMessage {
		dst = s.closeOpen(dst, "completed")
		it = s.add(itemMessage, "msg_")
		s.open = it
		dst = append(s.event(dst, "response.output_item.added"), `,"output_index":`...)
		dst = append(strconv.AppendInt(dst, int64(it.index), 10), `,"item":{"type":"message","id":"`...)
		dst = endEvent(append(append(dst, it.id...), `","status":"in_progress","role":"assistant","content":[]}`...))
	}
	if n := len(it.parts); n > 0 {
		if it.parts[n-1].kind == kind {
			return dst
		}
		dst = s.closePart(dst, it)
	}
	it.parts = append(it.parts, outputPart{kind: kind})
	dst = s.at(s.event(dst, "response.content_part.added"), it)
	dst = it.lastPart(append(it.contentIndex(dst), `,"part":`...))
	return endEvent(dst)
}

// writePart appends to the part that is open.
func (s *responsesStream) writePart(dst []byte, t string) []byte {
	it := s.open
	p := &it.parts[len(it.parts)-1]
	if p.kind == partRefusal {
		dst = s.at(s.event(dst, "response.refusal.delta"), it)
		dst = append(it.contentIndex(dst), `,"delta":`...)
		return endEvent(p.appendText(dst, t))
	}
	dst = s.at(s.event(dst, "response.output_text.delta"), it)
	dst = append(it.contentIndex(dst), `,"delta":`...)
	dst = append(p.appendText(dst, t), `,"logprobs":[`...)
	dst = append(append(dst, s.logprobs...), ']')
	p.logprobs, s.logprobs = joinRaw(p.logprobs, s.logprobs), nil
	return endEvent(dst)
}

// call writes a piece of a tool call. Nothing is sent of a call before its name
// is known.
func (s *responsesStream) call(dst []byte, c *callDelta) []byte {
	for len(s.calls) <= c.Call {
		s.calls = append(s.calls, &outputItem{kind: itemUnknown})
	}
	it := s.calls[c.Call]
	if it.kind != itemUnknown {
		return s.arguments(dst, it, c.Args)
	}
	it.args = append(it.args, c.Args...)
	if c.Name == "" {
		return dst
	}
	s.space, s.logprobs, s.called = "", nil, true
	if !s.r.mayCall(c.Name) {
		it.kind = itemSuppressed
		s.x.drop(droppedCall)
		return dst
	}
	it.tool, it.callID = s.r.toolOf(s.x, c.Name), c.ID
	if it.callID == "" {
		it.callID = newCallID()
	}
	dst = s.closeOpen(dst, "completed")
	switch it.tool.kind {
	case toolFunction:
		dst = s.addCall(dst, it, itemFunctionCall, "fc_")
		args := string(it.args)
		it.args = nil
		return s.arguments(dst, it, args)
	case toolCustom:
		return s.addCall(dst, it, itemCustomCall, "ctc_")
	}
	it.kind = itemLateCall
	return dst
}

// addCall announces a call whose input comes in pieces.
func (s *responsesStream) addCall(dst []byte, it *outputItem, kind itemKind, prefix string) []byte {
	it.kind = kind
	s.place(it, prefix)
	dst = append(s.event(dst, "response.output_item.added"), `,"output_index":`...)
	dst = append(strconv.AppendInt(dst, int64(it.index), 10), `,"item":`...)
	return endEvent(it.appendCall(dst, nil, "in_progress"))
}

// arguments writes a piece of a call's arguments, or keeps it, if the client is
// to get something else made of the whole.
func (s *responsesStream) arguments(dst []byte, it *outputItem, piece string) []byte {
	switch {
	case piece == "" || it.kind == itemSuppressed:
		return dst
	case it.kind != itemFunctionCall:
		it.args = append(it.args, piece...)
		return dst
	}
	dst = append(s.at(s.event(dst, "response.function_call_arguments.delta"), it), `,"delta":`...)
	return endEvent(it.appendText(dst, piece))
}

// finish ends the answer.
func (s *responsesStream) finish(dst []byte) []byte {
	dst = s.begin(dst)
	end := objectState{status: "completed"}
	switch s.finished {
	case "length", "model_length", "max_tokens":
		end = objectState{status: "incomplete", reason: "max_output_tokens"}
	case "content_filter":
		end = objectState{status: "incomplete", reason: "content_filter"}
	}
	if s.space != "" && !s.called {
		dst = s.writePart(s.openPart(dst, partOutputText), s.space)
	}
	if slices.ContainsFunc(s.calls, func(it *outputItem) bool { return it.kind == itemUnknown }) {
		s.x.drop(droppedCall) // its name never came
	}
	late := s.lateCalls()
	if len(s.items) == 0 && len(late) == 0 {
		dst = s.openPart(dst, partOutputText)
	}
	for i, it := range s.items {
		status := "completed"
		if i == len(s.items)-1 && len(late) == 0 {
			status = end.status
		}
		dst = s.close(dst, it, status)
	}
	for i, it := range late {
		status := "completed"
		if i == len(late)-1 {
			status = end.status
		}
		dst = s.lateCall(dst, it, status)
	}
	now := s.r.now().Unix()
	if end.status == "completed" {
		end.completedAt = now
	}
	return s.terminal(dst, end)
}

// lateCalls are the calls that are sent whole, at the end.
func (s *responsesStream) lateCalls() []*outputItem {
	var late []*outputItem
	for _, it := range s.calls {
		if it.kind == itemLateCall {
			late = append(late, it)
		}
	}
	return late
}

// lateCall writes a call that the client gets whole (dialects D-120). If its
// arguments are not what the tool takes, the client gets them as a function
// call's, so that it can tell the model.
func (s *responsesStream) lateCall(dst []byte, it *outputItem, status string) []byte {
	payload, prefix := it.payload()
	if payload == nil {
		args := string(it.args)
		it.args = nil
		dst = s.addCall(dst, it, itemFunctionCall, "fc_")
		return s.close(s.arguments(dst, it, args), it, status)
	}
	s.place(it, prefix)
	it.raw = it.appendCall(nil, payload, status)
	for _, name := range []string{"response.output_item.added", "response.output_item.done"} {
		dst = append(s.event(dst, name), `,"output_index":`...)
		dst = append(strconv.AppendInt(dst, int64(it.index), 10), `,"item":`...)
		dst = endEvent(append(dst, it.raw...))
	}
	return dst
}

// fail ends an answer that has broken: what is finished stays in it, and the
// rest is left out (dialects D-128). A response that has not been created yet is
// created, so that the client sees the code.
func (s *responsesStream) fail(dst []byte, e *apiError) []byte {
	dst = s.begin(dst)
	return s.terminal(dst, objectState{status: "failed", err: e})
}

// terminal sends the last event, once what it holds is stored.
func (s *responsesStream) terminal(dst []byte, end objectState) []byte {
	end.output, end.usage = s.output(), true
	s.object = s.finalObject(end)
	dst = append(s.event(dst, "response."+end.status), `,"response":`...)
	dst = endEvent(append(dst, s.object...))
	return append(dst, "data: [DONE]\n\n"...)
}

// finalObject is the terminal object. It is stored on the way, if the client
// wants that, and says whether that worked.
func (s *responsesStream) finalObject(end objectState) json.RawMessage {
	end.stored = s.keeps()
	object := s.appendObject(nil, end)
	if !end.stored {
		return object
	}
	if s.r.Keep(storedResponse{ID: s.id, Previous: s.r.Previous, Status: end.status, Input: s.r.Input, Object: object, Stamps: s.stamps}) {
		return object
	}
	end.stored = false
	return s.appendObject(nil, end)
}

// keeps says whether the answer is to be stored.
func (s *responsesStream) keeps() bool { return s.r.Store && s.r.Keep != nil }

// output are the items that are finished.
func (s *responsesStream) output() [][]byte {
	var list [][]byte
	for _, it := range s.items {
		if it.raw != nil {
			list = append(list, it.raw)
		}
	}
	return list
}

// add makes an item and gives it the next place.
func (s *responsesStream) add(kind itemKind, prefix string) *outputItem {
	it := &outputItem{kind: kind}
	s.place(it, prefix)
	return it
}

func (s *responsesStream) place(it *outputItem, prefix string) {
	it.id, it.index = s.r.ids.next(prefix), len(s.items)
	s.items = append(s.items, it)
}

// closeOpen ends the message or the reasoning that is being written.
func (s *responsesStream) closeOpen(dst []byte, status string) []byte {
	if s.open == nil {
		return dst
	}
	return s.close(dst, s.open, status)
}

// close ends an item, unless it is ended.
func (s *responsesStream) close(dst []byte, it *outputItem, status string) []byte {
	if it.raw != nil {
		return dst
	}
	switch it.kind {
	case itemReasoning:
		dst = s.closeReasoning(dst, it, status)
	case itemMessage:
		dst = s.closePart(dst, it)
		it.raw = it.appendMessage(nil, status)
	case itemFunctionCall:
		if len(it.text) == 0 {
			dst = s.arguments(dst, it, "{}")
		}
		dst = s.at(s.event(dst, "response.function_call_arguments.done"), it)
		dst = appendQuoted(append(dst, `,"name":`...), it.tool.name)
		dst = endEvent(it.appendAll(append(dst, `,"arguments":`...)))
		it.raw = it.appendCall(nil, nil, status)
	case itemCustomCall:
		input := customInput(string(it.args))
		dst = append(s.at(s.event(dst, "response.custom_tool_call_input.delta"), it), `,"delta":`...)
		dst = endEvent(it.appendText(dst, input))
		dst = append(s.at(s.event(dst, "response.custom_tool_call_input.done"), it), `,"input":`...)
		dst = endEvent(it.appendAll(dst))
		it.raw = it.appendCall(nil, nil, status)
	}
	if it == s.open {
		s.open = nil
	}
	dst = append(s.event(dst, "response.output_item.done"), `,"output_index":`...)
	dst = append(strconv.AppendInt(dst, int64(it.index), 10), `,"item":`...)
	return endEvent(append(dst, it.raw...))
}

func (s *responsesStream) closeReasoning(dst []byte, it *outputItem, status string) []byte {
	dst = s.at(s.event(dst, "response.reasoning_summary_text.done"), it)
	dst = endEvent(it.appendAll(append(dst, `,"summary_index":0,"text":`...)))
	dst = s.at(s.event(dst, "response.reasoning_summary_part.done"), it)
	dst = it.appendAll(append(dst, `,"summary_index":0,"part":{"type":"summary_text","text":`...))
	dst = endEvent(append(dst, '}'))
	// reasoning_details add up over the whole answer; an item has its own.
	own := reasoning{Field: it.think.Field, Text: unquote(it.text)}
	own.Details = bytes.TrimLeft(it.think.Details[min(s.details, len(it.think.Details)):], ", ")
	s.details = max(s.details, len(it.think.Details))
	encrypted := ""
	if s.r.Encrypted {
		// Who asks for it counts on it, though thoughts in the text need not go back.
		if encrypted = own.stamp(true); encrypted == "" {
			encrypted = stampPrefix + string(reasoningInText) + "."
		}
	}
	if stamp := own.stamp(false); stamp != "" && s.keeps() {
		s.stamps = append(s.stamps, reasoningStamp{it.id, stamp})
	}
	it.raw = it.appendReasoning(nil, status, encrypted)
	return dst
}

// closePart ends the part that is open in a message.
func (s *responsesStream) closePart(dst []byte, it *outputItem) []byte {
	if len(it.parts) == 0 {
		return dst
	}
	p := &it.parts[len(it.parts)-1]
	if p.kind == partRefusal {
		dst = s.at(s.event(dst, "response.refusal.done"), it)
		dst = endEvent(p.appendAll(append(it.contentIndex(dst), `,"refusal":`...)))
	} else {
		p.annotations = flatAnnotations(s.annotations)
		s.annotations = nil
		dst = s.at(s.event(dst, "response.output_text.done"), it)
		dst = p.appendAll(append(it.contentIndex(dst), `,"text":`...))
		dst = append(append(dst, `,"logprobs":[`...), p.logprobs...)
		dst = endEvent(append(dst, ']'))
	}
	dst = s.at(s.event(dst, "response.content_part.done"), it)
	dst = it.lastPart(append(it.contentIndex(dst), `,"part":`...))
	return endEvent(dst)
}

// event appends the beginning of an event, up to its sequence number.
func (s *responsesStream) event(dst []byte, name string) []byte {
	dst = append(append(dst, "event: "...), name...)
	dst = append(append(dst, "\ndata: {\"type\":\""...), name...)
	dst = strconv.AppendInt(append(dst, `","sequence_number":`...), s.seq, 10)
	s.seq++
	return dst
}

func endEvent(dst []byte) []byte { return append(dst, "}\n\n"...) }

// at appends which item an event belongs to.
func (s *responsesStream) at(dst []byte, it *outputItem) []byte {
	dst = append(append(dst, `,"item_id":"`...), it.id...)
	return strconv.AppendInt(append(dst, `","output_index":`...), int64(it.index), 10)
}
