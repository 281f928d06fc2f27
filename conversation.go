package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// A conversation is a request's messages, looked at but not decoded.
type conversation struct {
	system    turnMessages // leading system and developer messages
	systemID  string       // digest of their text, which names the thread; "" for none
	systemEnd int          // offset after them in the array
	list      []chatTurnMessage
	size      int         // of the array, in bytes
	managed   bool        // there is an assistant message: the client keeps the history
	marks     []chainMark // after each of the first messages, as far as they were asked for
}

type chatTurnMessage struct {
	raw    []byte
	role   string
	offset int    // in the array
	digest string // "" until it is asked for
}

// parseConversation looks at a messages array; ok is false when it holds
// something that is not a message.
func parseConversation(array []byte) (c *conversation, ok bool) {
	c = &conversation{size: len(array), systemEnd: 1}
	leading := true
	var prompt []byte
	for raw := range elements(array) {
		if !isObject(raw) {
			return nil, false
		}
		m := chatTurnMessage{raw: raw, role: text(member(raw, "role")), offset: offsetIn(array, raw)}
		if leading = leading && (m.role == "system" || m.role == "developer"); leading {
			c.system.add(raw, "")
			c.systemEnd = m.offset + len(raw)
			prompt = append(appendContent(prompt, member(raw, "content")), 0)
			continue
		}
		c.managed = c.managed || m.role == "assistant"
		c.list = append(c.list, m)
	}
	if prompt != nil {
		sum := sha256.Sum256(prompt)
		c.systemID = hex.EncodeToString(sum[:12])
	}
	return c, true
}

// offsetIn is where a part that was cut out of whole begins in it.
func offsetIn(whole, part []byte) int { return cap(whole) - cap(part) }

// clone is a copy that does not keep the request's body alive.
func (c *conversation) clone() *conversation {
	d := *c
	d.system.raw = bytes.Clone(c.system.raw)
	d.list = slices.Clone(c.list)
	for i := range d.list {
		d.list[i].raw = bytes.Clone(d.list[i].raw)
	}
	return &d
}

func (c *conversation) digest(i int) string {
	if c.list[i].digest == "" {
		c.list[i].digest = messageDigest(c.list[i].raw)
	}
	return c.list[i].digest
}

// startsWith says whether the conversation begins with the messages that were
// recorded up to the mark.
func (c *conversation) startsWith(m chainMark) bool {
	if m.Messages > len(c.list) {
		return false
	}
	for i := len(c.marks); i < m.Messages; i++ {
		before := chainMark{}
		if i > 0 {
			before = c.marks[i-1]
		}
		c.marks = append(c.marks, before.next(c.digest(i)))
	}
	return m.Messages == 0 || c.marks[m.Messages-1].Hash == m.Hash
}

// from are the messages from the i-th on, copied.
func (c *conversation) from(i int) turnMessages {
	var m turnMessages
	for ; i < len(c.list); i++ {
		m.add(c.list[i].raw, c.digest(i))
	}
	return m
}

// turns cuts the conversation before each message that follows an answer; the
// last turn is the one still to be answered.
func (c *conversation) turns() []turnMessages {
	list := []turnMessages{{}}
	for i, m := range c.list {
		if i > 0 && c.list[i-1].role == "assistant" && m.role != "tool" && m.role != "assistant" {
			list = append(list, turnMessages{})
		}
		list[len(list)-1].add(m.raw, c.digest(i))
	}
	return list
}

// insert is the edit that puts joined messages after the leading system
// messages of the array, which begins at offset at of the body.
func (c *conversation) insert(at int, joined []byte) edit {
	switch {
	case len(c.list) > 0:
		at += c.list[0].offset
		joined = append(joined, ',')
	case len(c.system.raw) > 0:
		at += c.systemEnd
		joined = slices.Concat([]byte(","), joined)
	default:
		at++
	}
	return edit{span{at, at}, joined}
}

// messageDigest is the same for two messages that say the same, however they
// are written: clients send back what they were sent in JSON of their own.
func messageDigest(raw []byte) string {
	var role, content, calls, callID []byte
	for k, v := range members(raw) {
		switch string(k) {
		case "role":
			role = stringContent(v)
		case "content":
			content = v
		case "tool_calls":
			calls = v
		case "tool_call_id":
			callID = stringContent(v)
		}
	}
	b := append(make([]byte, 0, len(raw)), role...)
	b = append(append(b, 0), callID...)
	b = append(b, 0)
	start := len(b)
	b = appendContent(b, content)
	b = append(b[:start], bytes.TrimSpace(b[start:])...)
	for call := range elements(calls) {
		function := member(call, "function")
		for _, part := range []string{text(member(call, "id")), text(member(function, "name")), text(member(function, "arguments"))} {
			b = append(append(b, 0), part...)
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// appendContent appends the text of a message's content, a string or parts. A
// part that is no text counts with its whole JSON, spaces apart.
func appendContent(dst, content []byte) []byte {
	if isString(content) {
		return append(dst, text(content)...)
	}
	for part := range elements(content) {
		if t := member(part, "text"); isString(t) {
			dst = append(dst, text(t)...)
			continue
		}
		dst = append(append(dst, 1), compact(part)...)
	}
	return dst
}
