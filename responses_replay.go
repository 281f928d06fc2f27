package main

import (
	"encoding/json"
	"slices"
	"strconv"
)

// A replayer writes the events of a response that is over, with one delta for
// each part (dialects D-130).
type replayer struct {
	dst   []byte
	seq   int64
	after int64 // events up to this one are left out
}

// replayEvents are the events that lead to a stored response object, after the
// event of that number; -1 for all.
func replayEvents(object json.RawMessage, startingAfter int64) []byte {
	p := replayer{after: startingAfter}
	begun := begunObject(object)
	p.event("response.created", `,"response":`, begun)
	p.event("response.in_progress", `,"response":`, begun)
	i := 0
	for item := range elements(member(object, "output")) {
		p.item(i, item)
		i++
	}
	p.event("response."+text(member(object, "status")), `,"response":`, object)
	return append(p.dst, "data: [DONE]\n\n"...)
}

// begunObject is a response object as it was when the response had begun.
func begunObject(object json.RawMessage) []byte {
	out := []byte{'{'}
	for k, v := range members(object) {
		switch string(k) {
		case "status":
			v = []byte(`"in_progress"`)
		case "output":
			v = []byte("[]")
		case "completed_at", "incomplete_details", "error", "usage":
			v = []byte("null")
		}
		out = appendMember(out, k, v)
	}
	return closeObject(out)
}

// event writes one event, of pieces of JSON.
func (p *replayer) event(name string, pieces ...any) {
	n := p.seq
	p.seq++
	if n <= p.after {
		return
	}
	d := append(append(p.dst, "event: "...), name...)
	d = append(append(d, "\ndata: {\"type\":\""...), name...)
	d = strconv.AppendInt(append(d, `","sequence_number":`...), n, 10)
	for _, piece := range pieces {
		switch v := piece.(type) {
		case string:
			d = append(d, v...)
		case []byte:
			d = append(d, v...)
		case json.RawMessage:
			d = append(d, v...)
		case int:
			d = strconv.AppendInt(d, int64(v), 10)
		}
	}
	p.dst = endEvent(d)
}

// item writes the events of one item.
func (p *replayer) item(index int, item []byte) {
	typ := text(member(item, "type"))
	at := slices.Concat([]byte(`,"item_id":`), member(item, "id"), []byte(`,"output_index":`+strconv.Itoa(index)))
	added := item
	switch typ {
	case "message":
		added = opened(item, "content", "[]")
	case "reasoning":
		added = opened(item, "summary", "[]")
	case "function_call":
		added = opened(item, "arguments", `""`)
	case "custom_tool_call":
		added = opened(item, "input", `""`)
	}
	p.event("response.output_item.added", `,"output_index":`, index, `,"item":`, added)
	switch typ {
	case "message":
		p.message(at, item)
	case "reasoning":
		p.reasoning(at, item)
	case "function_call":
		args := member(item, "arguments")
		p.event("response.function_call_arguments.delta", at, `,"delta":`, args)
		p.event("response.function_call_arguments.done", at, `,"name":`, member(item, "name"), `,"arguments":`, args)
	case "custom_tool_call":
		input := member(item, "input")
		p.event("response.custom_tool_call_input.delta", at, `,"delta":`, input)
		p.event("response.custom_tool_call_input.done", at, `,"input":`, input)
	}
	p.event("response.output_item.done", `,"output_index":`, index, `,"item":`, item)
}

// opened is an item as it was when it was added, with nothing in it.
func opened(item []byte, field, empty string) []byte {
	out := []byte{'{'}
	for k, v := range members(item) {
		switch string(k) {
		case field:
			v = []byte(empty)
		case "status":
			v = []byte(`"in_progress"`)
		case "encrypted_content":
			continue
		}
		out = appendMember(out, k, v)
	}
	return closeObject(out)
}

func (p *replayer) message(at, item []byte) {
	i := 0
	for part := range elements(member(item, "content")) {
		where := append(slices.Clone(at), `,"content_index":`+strconv.Itoa(i)...)
		if refusal := member(part, "refusal"); refusal != nil {
			p.event("response.content_part.added", where, `,"part":{"type":"refusal","refusal":""}`)
			p.event("response.refusal.delta", where, `,"delta":`, refusal)
			p.event("response.refusal.done", where, `,"refusal":`, refusal)
		} else {
			said, logprobs := member(part, "text"), orDefault(member(part, "logprobs"), "[]")
			p.event("response.content_part.added", where, `,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}`)
			p.event("response.output_text.delta", where, `,"delta":`, said, `,"logprobs":`, logprobs)
			p.event("response.output_text.done", where, `,"text":`, said, `,"logprobs":`, logprobs)
		}
		p.event("response.content_part.done", where, `,"part":`, part)
		i++
	}
}

func (p *replayer) reasoning(at, item []byte) {
	i := 0
	for part := range elements(member(item, "summary")) {
		where := append(slices.Clone(at), `,"summary_index":`+strconv.Itoa(i)...)
		shown := member(part, "text")
		p.event("response.reasoning_summary_part.added", where, `,"part":{"type":"summary_text","text":""}`)
		p.event("response.reasoning_summary_text.delta", where, `,"delta":`, shown)
		p.event("response.reasoning_summary_text.done", where, `,"text":`, shown)
		p.event("response.reasoning_summary_part.done", where, `,"part":`, part)
		i++
	}
}
