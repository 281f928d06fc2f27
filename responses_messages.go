package main

import "slices"

// unanswered stands for the result of a call that never got one: upstreams refuse
// a call without a result, and agents leave them behind when they are
// interrupted.
const unanswered = "[no output]"

// A turnBuilder makes chat messages of entries. Everything that the assistant
// does in a row is one message. The results of its calls follow that message
// directly, whatever the client has put between them.
type turnBuilder struct {
	x        *exchange
	entries  []entry
	answers  []int  // of a call: the entry with its result, -1 for none
	segments []int  // of an entry: how many inputs came before it
	taken    []bool // results that are already among the messages

	messages []chatMessage
	open     int       // the assistant's message being built, -1 for none
	calls    []int     // the entries with its calls
	think    reasoning // waits for the assistant's next message
	media    []chatPart
}

// messages builds the messages; system is what comes before everything else.
func (in *inputReader) messages(system []chatPart) []chatMessage {
	b := &turnBuilder{x: in.x, entries: in.entries, open: -1}
	b.match()
	lead, rest := b.leading()
	if content := joinParts(append(system, lead...)); content.Text != "" || len(content.Parts) > 0 {
		b.messages = append(b.messages, chatMessage{Role: "system", Content: content})
	}
	for i := range b.entries {
		if !slices.Contains(rest, i) {
			b.add(i)
		}
	}
	b.endTurn()
	return b.messages
}

// leading are the parts of the system messages that come before any other item,
// and their entries. They become one message with the instructions (dialects
// D-41).
func (b *turnBuilder) leading() (parts []chatPart, entries []int) {
	for i := range b.entries {
		e := &b.entries[i]
		if e.kind != entryInput || e.role == "user" {
			break
		}
		if e.role == "developer" && b.x.quirk("developer_role") == "on" {
			continue
		}
		parts = append(parts, e.parts...)
		entries = append(entries, i)
	}
	return parts, entries
}

// match finds each call's result: the first with its id that comes after it, and
// before another call of the same id, since some models number their calls anew
// in every turn.
func (b *turnBuilder) match() {
	b.answers, b.segments, b.taken = make([]int, len(b.entries)), make([]int, len(b.entries)), make([]bool, len(b.entries))
	waiting := map[string]int{}
	segment := 0
	for i := range b.entries {
		b.answers[i] = -1
		switch e := &b.entries[i]; e.kind {
		case entryInput, entryTurns:
			segment++
		case entryCall:
			waiting[e.call.ID] = i
		case entryResult:
			if call, ok := waiting[e.callID]; ok {
				b.answers[call] = i
				delete(waiting, e.callID)
			}
		}
		b.segments[i] = segment
	}
}

func (b *turnBuilder) add(i int) {
	switch e := &b.entries[i]; e.kind {
	case entryInput:
		b.endTurn()
		b.input(e)
	case entryTurns:
		b.endTurn()
		b.messages = append(b.messages, e.turns...)
	case entryThought:
		b.think = b.think.join(e.think)
	case entryAnswer:
		b.assistant(i).Content.Text += e.text
	case entryCall:
		m := b.assistant(i)
		m.ToolCalls = append(m.ToolCalls, e.call)
		b.calls = append(b.calls, i)
	case entryResult:
		if !b.taken[i] {
			b.result(i)
		}
	}
}

// join adds reasoning that comes after.
func (r reasoning) join(next reasoning) reasoning {
	if r.Field != next.Field {
		return next
	}
	r.Text += next.Text
	if len(r.Details) > 0 && len(next.Details) > 0 {
		r.Details = slices.Concat(r.Details, []byte(","), next.Details)
	} else if len(next.Details) > 0 {
		r.Details = next.Details
	}
	return r
}

// input adds what a user, the system or the developer says.
func (b *turnBuilder) input(e *entry) {
	m := chatMessage{Role: e.role, Content: joinParts(e.parts)}
	switch {
	case e.role == "user", e.role == "developer" && b.x.quirk("developer_role") == "on":
	case b.x.quirk("single_system") == "on" && len(b.messages) > 0:
		m = chatMessage{Role: "user", Content: textContent("<system>" + textOfParts(e.parts) + "</system>")}
	default:
		m.Role = "system"
	}
	b.messages = append(b.messages, m)
}

// textOfParts is the text of a content, without the rest.
func textOfParts(parts []chatPart) string {
	return joinParts(slices.DeleteFunc(slices.Clone(parts), func(p chatPart) bool { return p.Text == nil })).Text
}

// assistant is the message that the assistant's entry i goes into. An entry that
// stands between a call and its result joins the message that holds the call.
func (b *turnBuilder) assistant(i int) *chatMessage {
	if b.open >= 0 && b.open < len(b.messages)-1 && !b.awaited(i) {
		b.endTurn()
	}
	if b.open < 0 {
		b.open = len(b.messages)
		b.messages = append(b.messages, chatMessage{Role: "assistant"})
	}
	m := &b.messages[b.open]
	if b.think.Field != 0 {
		b.held().join(b.think).putBack(m)
		b.think = reasoning{}
	}
	return m
}

// held is the reasoning that the open message has already.
func (b *turnBuilder) held() reasoning {
	m := &b.messages[b.open]
	switch {
	case m.ReasoningContent != "":
		return reasoning{Field: reasoningContent, Text: m.ReasoningContent}
	case m.Reasoning != "":
		return reasoning{Field: reasoningPlain, Text: m.Reasoning}
	case m.ReasoningDetails != nil:
		return reasoning{Field: reasoningList, Details: inner(m.ReasoningDetails)}
	}
	return reasoning{}
}

// awaited says whether a call of the open message gets its result after entry i
// and before the next input.
func (b *turnBuilder) awaited(i int) bool {
	return slices.ContainsFunc(b.calls, func(call int) bool {
		at := b.answers[call]
		return at > i && b.segments[at] == b.segments[i]
	})
}

// result adds what a call has given. One whose call is not in the request goes
// on as it is: a session may hold the call.
func (b *turnBuilder) result(i int) {
	e := &b.entries[i]
	b.taken[i] = true
	b.messages = append(b.messages, chatMessage{Role: "tool", ToolCallID: e.callID, Content: textContent(e.text)})
	for _, p := range e.parts {
		b.media = append(b.media, partText("Attachment of tool call "+e.callID+":"), p)
	}
}

// endTurn closes the assistant's message and the block of results after it.
func (b *turnBuilder) endTurn() {
	for _, call := range b.calls {
		at := b.answers[call]
		switch {
		case at < 0:
			b.messages = append(b.messages, chatMessage{Role: "tool", ToolCallID: b.entries[call].call.ID, Content: textContent(unanswered)})
		case !b.taken[at]:
			b.result(at)
		}
	}
	if b.open >= 0 {
		m := &b.messages[b.open]
		m.Content.Null = m.Content.Text == "" && len(m.ToolCalls) > 0
	}
	if len(b.media) > 0 {
		b.messages = append(b.messages, chatMessage{Role: "user", Content: joinParts(b.media)})
	}
	b.open, b.calls, b.media, b.think = -1, nil, nil, reasoning{}
}
