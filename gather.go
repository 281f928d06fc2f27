package main

import (
	"bytes"
	"slices"
	"strconv"
)

// What one answer may hold of a kind. Each is looked for among the others, and
// more answers nothing that a client can ask; what goes beyond is left out.
const (
	maxChoices = 128
	maxCalls   = 1024 // of a choice
	maxFields  = 256  // of a message, or of any other object
)

// An assembler puts the chunks of a chat stream together into the completion
// that they amount to. Text is joined as it stands in the JSON, escapes and
// all: nothing is decoded, and a surrogate pair that was split over two chunks
// becomes whole again.
type assembler struct {
	top     []assembled // members of the chunks themselves: id, model, …
	choices []*choice
	usage   []byte
}

// assembled is one member put together from many: strings and arrays add up,
// of anything else the last one counts.
type assembled struct {
	key   string
	raw   []byte // without the quotes of a string or the brackets of an array
	shape byte   // '"', '[', or 0 for anything else
}

// choice is one of the answers in a completion; n > 1 gives several.
type choice struct {
	index    int64
	fields   []assembled // of the message, calls apart
	calls    callList
	function *toolCall // a call in the form that came before tool calls; nil for none
	logprobs []assembled
	finish   []byte      // raw finish_reason; nil until it came
	other    []assembled // what upstreams add of their own
}

// add takes the data of one event; false if it is not JSON.
func (a *assembler) add(chunk []byte) bool {
	if checkJSON(chunk) != nil {
		return false
	}
	for k, v := range members(chunk) {
		switch string(k) {
		case "choices":
			for c := range elements(v) {
				a.addChoice(c)
			}
		case "usage":
			if isObject(v) && len(v) > len("{}") {
				a.usage = bytes.Clone(v)
			}
		case "object":
		default:
			a.top = setLast(a.top, k, v)
		}
	}
	return true
}

func (a *assembler) addChoice(raw []byte) {
	c := a.choice(intOf(member(raw, "index")))
	if c == nil {
		return
	}
	for k, v := range members(raw) {
		switch string(k) {
		case "index":
		case "delta", "message":
			c.addDelta(v)
		case "finish_reason":
			if c.finish == nil && isString(v) {
				c.finish = bytes.Clone(v)
			}
		case "logprobs":
			for name, list := range members(v) {
				c.logprobs = merge(c.logprobs, name, list)
			}
		default:
			c.other = setLast(c.other, k, v)
		}
	}
}

// choice is the choice of an index, nil when there are too many.
func (a *assembler) choice(index int64) *choice {
	for _, c := range a.choices {
		if c.index == index {
			return c
		}
	}
	if len(a.choices) == maxChoices {
		return nil
	}
	c := &choice{index: index}
	at, _ := slices.BinarySearchFunc(a.choices, index, func(c *choice, i int64) int { return int(c.index - i) })
	a.choices = slices.Insert(a.choices, at, c)
	return c
}

func (c *choice) addDelta(delta []byte) {
	for k, v := range members(delta) {
		switch string(k) {
		case "role":
		case "tool_calls":
			pos := 0
			for call := range elements(v) {
				c.calls.add(call, pos)
				pos++
			}
		case "function_call":
			if isObject(v) {
				if c.function == nil {
					c.function = &toolCall{}
				}
				c.function.addTo(v)
			}
		default:
			c.fields = merge(c.fields, k, v)
		}
	}
}

// merge adds a value to the member of that key.
func merge(list []assembled, key, v []byte) []assembled {
	if isNull(v) {
		return list
	}
	shape, inner := byte(0), v
	if isString(v) || isArray(v) {
		shape, inner = v[0], v[1:len(v)-1]
	}
	i := slices.IndexFunc(list, func(m assembled) bool { return m.key == string(key) })
	switch {
	case i < 0 && len(list) == maxFields:
		return list
	case i < 0:
		return append(list, assembled{string(key), bytes.Clone(inner), shape})
	}
	m := &list[i]
	switch {
	case shape == 0 || m.shape == 0:
		*m = assembled{m.key, bytes.Clone(inner), shape}
	case shape == '"' && m.shape == '"':
		m.raw = append(m.raw, inner...)
	default:
		m.toParts()
		if shape == '"' {
			inner = textPart(inner)
		}
		if len(m.raw) > 0 && len(bytes.TrimSpace(inner)) > 0 {
			m.raw = append(m.raw, ',')
		}
		m.raw = append(m.raw, inner...)
	}
	return list
}

// toParts turns text into a list of one text part, so that parts can follow.
func (m *assembled) toParts() {
	if m.shape == '"' {
		m.shape = '['
		if len(m.raw) > 0 {
			m.raw = textPart(m.raw)
		}
	}
}

func textPart(content []byte) []byte {
	part := append([]byte(`{"type":"text","text":"`), content...)
	return append(part, `"}`...)
}

// setLast makes v the member of that key, unless it says nothing.
func setLast(list []assembled, key, v []byte) []assembled {
	if isNull(v) || string(v) == `""` {
		return list
	}
	i := slices.IndexFunc(list, func(m assembled) bool { return m.key == string(key) })
	switch {
	case i < 0 && len(list) == maxFields:
		return list
	case i < 0:
		return append(list, assembled{key: string(key), raw: bytes.Clone(v)})
	}
	if !bytes.Equal(list[i].raw, v) {
		list[i].raw = bytes.Clone(v)
	}
	return list
}

func (m *assembled) append(dst []byte) []byte {
	dst = append(append(append(dst, '"'), m.key...), `":`...)
	switch m.shape {
	case '"':
		return append(append(append(dst, '"'), m.raw...), '"')
	case '[':
		return append(append(append(dst, '['), m.raw...), ']')
	}
	return append(dst, m.raw...)
}

// finished says whether any choice came to its end.
func (a *assembler) finished() bool {
	return slices.ContainsFunc(a.choices, func(c *choice) bool { return c.finish != nil })
}

// completion is everything so far as one chat.completion object.
func (a *assembler) completion() []byte {
	dst := []byte(`{"object":"chat.completion",`)
	for i := range a.top {
		dst = append(a.top[i].append(dst), ',')
	}
	dst = append(dst, `"choices":[`...)
	for i, c := range a.choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = c.append(dst)
	}
	dst = append(dst, ']')
	if a.usage != nil {
		dst = append(append(dst, `,"usage":`...), a.usage...)
	}
	return append(dst, '}')
}

func (c *choice) append(dst []byte) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, c.index, 10)
	dst = append(dst, `,"message":`...)
	dst = c.appendMessage(dst)
	dst = append(dst, `,"logprobs":`...)
	if len(c.logprobs) == 0 {
		dst = append(dst, `null`...)
	} else {
		for i := range c.logprobs {
			dst = append(dst, "{,"[min(i, 1)])
			dst = c.logprobs[i].append(dst)
		}
		dst = append(dst, '}')
	}
	for i := range c.other {
		dst = c.other[i].append(append(dst, ','))
	}
	dst = append(dst, `,"finish_reason":`...)
	if c.finish == nil {
		return append(dst, `null}`...)
	}
	return append(append(dst, c.finish...), '}')
}

// appendMessage appends the choice's message so far. Calls that are not
// complete are in it too.
func (c *choice) appendMessage(dst []byte) []byte {
	dst = append(dst, `{"role":"assistant"`...)
	if !slices.ContainsFunc(c.fields, func(m assembled) bool { return m.key == "content" }) {
		dst = append(dst, `,"content":null`...)
	}
	for i := range c.fields {
		dst = c.fields[i].append(append(dst, ','))
	}
	if len(c.calls) > 0 {
		dst = append(dst, `,"tool_calls":[`...)
		for i, call := range c.calls {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = call.append(dst)
		}
		dst = append(dst, ']')
	}
	if c.function != nil {
		dst = append(dst, `,"function_call":`...)
		dst = c.function.appendFunction(dst)
	}
	return append(dst, '}')
}

// hasText says whether any visible text has come.
func (c *choice) hasText() bool {
	return slices.ContainsFunc(c.fields, func(m assembled) bool {
		return (m.key == "content" || m.key == "refusal") && len(m.raw) > 0
	})
}

// A toolCall is one call being put together from deltas. Its texts are raw
// string content.
type toolCall struct {
	index  int64 // the upstream's; -1 when it gives none
	id     []byte
	made   bool // the id is the gateway's: the upstream gave none in time
	custom bool // a custom tool, whose input is plain text, and not a function
	name   []byte
	args   []byte      // a function's arguments, or a custom tool's input
	extra  []assembled // what upstreams add of their own
}

// callList keeps the calls of one message in the order in which they began.
type callList []*toolCall

// add takes one entry of a delta's tool_calls, the pos-th, and returns which call
// it goes on with. Upstreams differ in what they repeat and what they leave out
// (dialects E-1 to E-6). It is -1 for one too many.
func (l *callList) add(entry []byte, pos int) int {
	index := int64(-1)
	if v := member(entry, "index"); !isNull(v) {
		index = intOf(v)
	}
	id := stringContent(member(entry, "id"))
	called := member(entry, "function")
	custom := member(entry, "custom")
	if called == nil {
		called = custom
	}
	call := l.find(index, id, stringContent(member(called, "name")), pos)
	if call == nil && len(*l) == maxCalls {
		return -1
	}
	if call == nil {
		call = &toolCall{index: index, custom: isObject(custom)}
		*l = append(*l, call)
	}
	if len(call.id) == 0 {
		call.id = bytes.Clone(id)
	}
	call.addTo(called)
	for k, v := range members(entry) {
		switch string(k) {
		case "index", "id", "type", "function", "custom":
		default:
			call.extra = merge(call.extra, k, v)
		}
	}
	return slices.Index(*l, call)
}

// find is the call that an entry with these marks belongs to, nil for a new one.
func (l callList) find(index int64, id, name []byte, pos int) *toolCall {
	if len(id) > 0 {
		for _, c := range l {
			if bytes.Equal(c.id, id) && (index < 0 || c.index < 0 || c.index == index) {
				return c
			}
		}
	}
	last := l.last(index)
	switch {
	case last == nil, index < 0 && pos > 0:
		return nil
	case len(id) > 0 && len(last.id) > 0 && !last.made:
		return nil
	case len(name) > 0 && len(last.name) > 0 && (!bytes.Equal(name, last.name) || index < 0 && last.complete()):
		return nil
	}
	return last
}

// last is the newest call with the upstream's index, or simply the newest when
// it gives none.
func (l callList) last(index int64) *toolCall {
	for i := len(l) - 1; i >= 0; i-- {
		if index < 0 || l[i].index == index {
			return l[i]
		}
	}
	return nil
}

// nameAll gives the calls that came without an id one of their own, in the form
// that the strictest upstream takes back (dialects 0-11).
func (l callList) nameAll() {
	for _, c := range l {
		if len(c.id) == 0 {
			c.id = []byte(newCallID())
		}
	}
}

// addTo takes a fragment of what is called.
func (c *toolCall) addTo(called []byte) {
	for k, v := range members(called) {
		switch string(k) {
		case "name":
			if name := stringContent(v); len(name) > 0 {
				c.name = bytes.Clone(name)
			}
		case "arguments", "input":
			switch {
			case isString(v):
				c.args = append(c.args, v[1:len(v)-1]...)
			case isObject(v):
				quoted := appendQuoted(nil, string(v))
				c.args = append(c.args, quoted[1:len(quoted)-1]...)
			}
		}
	}
}

// complete says whether the arguments so far are a whole JSON value.
func (c *toolCall) complete() bool {
	return c.custom || checkJSON([]byte(unquote(c.args))) == nil
}

func (c *toolCall) append(dst []byte) []byte {
	dst = append(append(dst, `{"id":"`...), c.id...)
	if c.custom {
		dst = append(append(dst, `","type":"custom","custom":{"name":"`...), c.name...)
		dst = append(append(append(dst, `","input":"`...), c.args...), `"}`...)
	} else {
		dst = c.appendFunction(append(dst, `","type":"function","function":`...))
	}
	for i := range c.extra {
		dst = c.extra[i].append(append(dst, ','))
	}
	return append(dst, '}')
}

func (c *toolCall) appendFunction(dst []byte) []byte {
	dst = append(append(dst, `{"name":"`...), c.name...)
	return append(append(append(dst, `","arguments":"`...), c.args...), `"}`...)
}

// stringContent is what stands between the quotes of a raw string, nil for
// anything else.
func stringContent(v []byte) []byte {
	if !isString(v) {
		return nil
	}
	return v[1 : len(v)-1]
}

// splitCompletion writes a chat.completion as the stream of chunks that a
// client which asked for one expects: each choice whole in one chunk, its
// finish reason in the next, the usage if it was asked for, and the end.
func splitCompletion(completion []byte, wantsUsage bool) []byte {
	var top, usage, choices []byte
	for k, v := range members(completion) {
		switch string(k) {
		case "object":
		case "choices":
			choices = v
		case "usage":
			usage = v
		default:
			top = appendMember(top, k, v)
		}
	}
	chunk := func(dst, choice []byte) []byte {
		dst = append(dst, `data: {"object":"chat.completion.chunk",`...)
		dst = append(append(dst, top...), `"choices":[`...)
		return append(append(dst, choice...), ']')
	}
	var out []byte
	position := 0
	for c := range elements(choices) {
		first, last := splitChoice(c, position)
		out = append(chunk(out, first), "}\n\n"...)
		out = append(chunk(out, last), "}\n\n"...)
		position++
	}
	if wantsUsage && isObject(usage) {
		out = append(chunk(out, nil), `,"usage":`...)
		out = append(append(out, compactLine(usage)...), "}\n\n"...)
	}
	return append(out, "data: [DONE]\n\n"...)
}

// splitChoice is a choice as it stands in two chunks: with its message as the
// delta, and then with an empty delta and the finish reason. What upstreams
// leave out of a choice, clients of a stream still wait for.
func splitChoice(c []byte, position int) (first, last []byte) {
	index := strconv.AppendInt(nil, int64(position), 10)
	message, finish := []byte("{}"), []byte(`"stop"`)
	for range elements(member(member(c, "message"), "tool_calls")) {
		finish = []byte(`"tool_calls"`)
	}
	var other []byte
	for k, v := range members(c) {
		switch string(k) {
		case "index":
			index = v
		case "message":
			message = v
		case "finish_reason":
			if !isNull(v) {
				finish = v
			}
		default:
			other = appendMember(other, k, v)
		}
	}
	first = appendMember([]byte{'{'}, []byte("index"), index)
	last = slices.Clone(first)
	first = append(append(append(first, `"delta":`...), deltaOf(message)...), ',')
	first = append(append(first, other...), `"finish_reason":null}`...)
	last = append(append(append(last, `"delta":{},"finish_reason":`...), finish...), '}')
	return first, last
}

// deltaOf is a message as a delta, in which each tool call carries its index.
func deltaOf(message []byte) []byte {
	dst := []byte{'{'}
	for k, v := range members(message) {
		if string(k) == "tool_calls" && isArray(v) {
			v = indexedCalls(v)
		}
		dst = appendMember(dst, k, v)
	}
	return closeObject(dst)
}

func indexedCalls(list []byte) []byte {
	dst := []byte{'['}
	index := int64(0)
	for call := range elements(list) {
		if index > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(append(dst, `{"index":`...), index, 10)
		dst = append(dst, ',')
		for k, v := range members(call) {
			if string(k) != "index" {
				dst = appendMember(dst, k, v)
			}
		}
		dst = closeObject(dst)
		index++
	}
	return append(dst, ']')
}

// closeObject ends an object whose members were appended each with a comma.
func closeObject(dst []byte) []byte {
	if dst[len(dst)-1] == ',' {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

// appendMember appends a member and a comma.
func appendMember(dst, key, value []byte) []byte {
	dst = append(append(append(dst, '"'), key...), `":`...)
	return append(append(dst, compactLine(value)...), ',')
}

// compactLine is a raw value without line breaks, which can't stand in a data
// line. Inside strings there are none.
func compactLine(v []byte) []byte {
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return v
	}
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, v)
}

// dropUnfinishedCalls leaves out the calls whose arguments did not come whole.
func (c *choice) dropUnfinishedCalls() {
	c.calls = slices.DeleteFunc(c.calls, func(t *toolCall) bool {
		return len(t.name) == 0 || !t.complete()
	})
	if c.function != nil && !c.function.complete() {
		c.function = nil
	}
}

// reasoningFields hold a model's reasoning, by the names that upstreams have for
// them (dialects E-20).
var reasoningFields = []string{"reasoning_content", "reasoning", "reasoning_details"}

// recordable is an assistant's message as it can be sent upstream again: without
// what is null or empty, which strict upstreams refuse, and without reasoning,
// which they refuse too, unless the message has tool calls: then they demand it
// (dialects E-24).
func recordable(message []byte) []byte {
	hasCalls := false
	for range elements(member(message, "tool_calls")) {
		hasCalls = true
		break
	}
	dst := []byte(`{"role":"assistant",`)
	for k, v := range members(message) {
		switch key := string(k); {
		case key == "role":
			continue
		case key == "content" && isNull(v) && !hasCalls:
			v = []byte(`""`) // null goes with tool calls alone
		case key == "content":
		case isNull(v), len(v) == 2 && (v[0] == '[' || v[0] == '"'):
			continue
		case !hasCalls && slices.Contains(reasoningFields, key):
			continue
		}
		dst = append(append(append(dst, '"'), k...), `":`...)
		dst = append(append(dst, v...), ',')
	}
	return closeObject(dst)
}
