package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A conversation is a request's messages, looked at but not decoded.
type conversation struct {
	system    []byte // leading system and developer messages, as they stand in the array
	systemID  string // digest of their text, which names the thread; "" for none
	systemEnd int    // offset after them in the array
	list      []chatTurnMessage
	size      int         // of the array, in bytes
	managed   bool        // there is an assistant message: the client keeps the history
	marks     []chainMark // after each of the first messages, as far as they were asked for
	scratch   []byte      // for digests
}

type chatTurnMessage struct {
	raw    []byte
	role   string
	offset int    // in the array
	digest string // "" until it is asked for
}

// parseConversation looks at a messages array. Something in it that is not a
// message is refused: it could be neither recorded nor continued.
func parseConversation(array []byte) (*conversation, error) {
	c := &conversation{size: len(array), systemEnd: 1}
	leading := true
	var prompt []byte
	n := 0
	for raw := range elements(array) {
		if !isObject(raw) {
			return nil, wrongType("messages["+strconv.Itoa(n)+"]", "a message object", raw)
		}
		n++
		m := chatTurnMessage{raw: raw, role: roleOf(raw), offset: offsetIn(array, raw)}
		if leading = leading && (m.role == "system" || m.role == "developer"); leading {
			if prompt == nil {
				c.system = array[m.offset:]
			}
			c.systemEnd = m.offset + len(raw)
			prompt = append(appendContent(prompt, member(raw, "content")), 0)
			continue
		}
		c.managed = c.managed || m.role == "assistant"
		c.list = append(c.list, m)
	}
	if prompt != nil {
		c.system = c.system[:c.systemEnd-offsetIn(array, c.system)]
		sum := sha256.Sum256(prompt)
		c.systemID = hex.EncodeToString(sum[:12])
	}
	return c, nil
}

// offsetIn is where a part that was cut out of whole begins in it.
func offsetIn(whole, part []byte) int { return cap(whole) - cap(part) }

// roleOf is a message's role.
func roleOf(message []byte) string {
	role := stringContent(member(message, "role"))
	for _, known := range [...]string{"user", "assistant", "tool", "system", "developer"} {
		if string(role) == known {
			return known // and not a copy of it
		}
	}
	return unquote(role)
}

// clone is a copy that does not keep the request's body alive.
func (c *conversation) clone() *conversation {
	d := *c
	d.scratch = nil
	d.system = bytes.Clone(c.system)
	d.list = slices.Clone(c.list)
	for i := range d.list {
		d.list[i].raw = bytes.Clone(d.list[i].raw)
	}
	return &d
}

// answersCall says whether the new messages begin with the answer to a recorded
// tool call.
func (c *conversation) answersCall() bool { return len(c.list) > 0 && answersCall(c.list[0].role) }

func (c *conversation) digest(i int) string {
	if c.list[i].digest == "" {
		c.scratch = appendSense(c.scratch[:0], c.list[i].raw)
		c.list[i].digest = digestOf(c.scratch)
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
func (c *conversation) from(i int) turnMessages { return c.part(i, len(c.list)) }

// part are the messages from the i-th up to the end-th, copied, with room for an
// answer's digest.
func (c *conversation) part(i, end int) turnMessages {
	size := 0
	for _, m := range c.list[i:end] {
		size += len(m.raw) + len(",")
	}
	m := turnMessages{make([]byte, 0, size), make([]string, 0, end-i+1)}
	for ; i < end; i++ {
		m.add(c.list[i].raw, c.digest(i))
	}
	return m
}

// turns cuts the conversation before each message that follows an answer; the
// last turn is the one still to be answered.
func (c *conversation) turns() []turnMessages {
	var list []turnMessages
	begin := 0
	for i, m := range c.list {
		if i > 0 && c.list[i-1].role == "assistant" && m.role != "tool" && m.role != "assistant" {
			list = append(list, c.part(begin, i))
			begin = i
		}
	}
	return append(list, c.part(begin, len(c.list)))
}

// answered is the index of the first message after the last answer.
func (c *conversation) answered() int {
	i := len(c.list)
	for i > 0 && c.list[i-1].role != "assistant" {
		i--
	}
	return i
}

// insert is the edit that puts joined messages after the leading system
// messages of the array, which begins at offset at of the body.
func (c *conversation) insert(at int, joined []byte) edit {
	switch {
	case len(c.list) > 0:
		at += c.list[0].offset
		joined = append(joined, ',')
	case len(c.system) > 0:
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
	return digestOf(appendSense(make([]byte, 0, len(raw)), raw))
}

func digestOf(sense []byte) string {
	sum := sha256.Sum256(sense)
	return hex.EncodeToString(sum[:16])
}

// appendSense appends what a message says: its role, the call that it answers,
// its content and its calls. All else, such as reasoning and what is null, comes
// and goes between a client's messages and ours.
func appendSense(dst, raw []byte) []byte {
	var role, content, calls, callID, function []byte
	for k, v := range members(raw) {
		switch string(k) {
		case "role":
			role = v
		case "content":
			content = v
		case "tool_calls":
			calls = v
		case "tool_call_id":
			callID = v
		case "function_call": // the older form of a single call
			function = v
		}
	}
	dst = append(appendText(dst, role), 0)
	dst = append(appendText(dst, callID), 0)
	start := len(dst)
	dst = appendContent(dst, content)
	dst = append(dst[:start], bytes.TrimSpace(dst[start:])...)
	for call := range elements(calls) {
		dst = appendText(append(dst, 0), member(call, "id"))
		dst = appendFunction(dst, member(call, "function"))
	}
	if isObject(function) {
		dst = appendFunction(dst, function)
	}
	return dst
}

func appendFunction(dst, function []byte) []byte {
	dst = appendText(append(dst, 0), member(function, "name"))
	return appendText(append(dst, 0), member(function, "arguments"))
}

// appendContent appends the text of a message's content, a string or parts. A
// part that is no text counts with all that it holds.
func appendContent(dst, content []byte) []byte {
	if isString(content) {
		return appendText(dst, content)
	}
	for part := range elements(content) {
		if t := member(part, "text"); isString(t) {
			dst = appendText(dst, t)
			continue
		}
		dst = appendCanonical(append(dst, 1), part, partDepth)
	}
	return dst
}

// partDepth is how deeply a content part is looked into. Each level is one more
// walk over what it holds.
const partDepth = 4

// appendCanonical appends a value in a form that does not depend on how it is
// written: the order of keys, spaces, escapes and members that are null.
func appendCanonical(dst, v []byte, depth int) []byte {
	switch {
	case isString(v):
		return append(appendText(append(dst, '"'), v), 0)
	case depth == 0:
		return append(dst, compact(v)...)
	case isArray(v):
		dst = append(dst, '[')
		for e := range elements(v) {
			dst = append(appendCanonical(dst, e, depth-1), ',')
		}
		return append(dst, ']')
	case isObject(v):
		type pair struct {
			key   string
			value []byte
		}
		var list []pair
		for k, m := range members(v) {
			if !isNull(m) {
				list = append(list, pair{unquote(k), m})
			}
		}
		slices.SortFunc(list, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
		dst = append(dst, '{')
		for _, p := range list {
			dst = append(append(dst, p.key...), 0)
			dst = append(appendCanonical(dst, p.value, depth-1), ',')
		}
		return append(dst, '}')
	}
	return append(dst, v...)
}

// appendText appends the decoded text of a raw string, nothing for any other
// value. A lone surrogate becomes U+FFFD, as in encoding/json.
func appendText(dst, v []byte) []byte {
	rest := stringContent(v)
	for {
		i := bytes.IndexByte(rest, '\\')
		if i < 0 {
			return append(dst, rest...)
		}
		dst = append(dst, rest[:i]...)
		dst, rest = appendEscape(dst, rest[i:])
	}
}

// appendEscape appends what the escape at the beginning of s stands for, and
// returns what comes after it. What is no escape is left out: upstreams' streams
// have not been checked.
func appendEscape(dst, s []byte) (text, rest []byte) {
	if len(s) < 2 {
		return dst, nil
	}
	if s[1] != 'u' {
		c := s[1]
		if i := strings.IndexByte("bfnrt", c); i >= 0 {
			c = "\b\f\n\r\t"[i]
		}
		return append(dst, c), s[2:]
	}
	r, ok := hexRune(s)
	if !ok {
		return dst, s[2:]
	}
	rest = s[6:]
	if low, ok := hexRune(rest); ok && utf16.IsSurrogate(r) {
		if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
			return utf8.AppendRune(dst, both), rest[6:]
		}
	}
	return utf8.AppendRune(dst, r), rest // a lone surrogate becomes U+FFFD
}

// hexRune reads the \u escape at the beginning of s.
func hexRune(s []byte) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(n), err == nil
}
