package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"unicode/utf8"
)

// This file reads JSON (RFC 8259) without decoding it. A request body is
// checked once, by peek; everything after that walks bytes known to be sound
// with members and elements. Nothing here allocates on the way to a good answer.

// maxDepth bounds how deeply a request body may nest.
const maxDepth = 1024

// A span is a value's place in a body, b[start:end]. The zero span is absent:
// no value of an object begins at 0.
type span struct{ start, end int }

func (s span) present() bool { return s.end > 0 }

func (s span) of(b []byte) []byte { return b[s.start:s.end] }

// A field is a top-level key of a request that the gateway acts on.
type field int

const (
	fieldModel field = iota
	fieldStream
	fieldMessages
	fieldStreamOptions
	fieldInput
	fieldContents
	fieldPrompt
	numActed // the fields so far decide what is done; a second copy of one is refused

	// Only looked at to tell which dialect a body is written in.
	fieldSystem
	fieldAnthropicVersion
	fieldAnthropicBeta
	fieldStopSequences
	fieldTools
	fieldToolChoice
	numFields
)

// fieldNames are the keys' own texts, by field.
var fieldNames = [numFields]string{
	fieldModel: "model", fieldStream: "stream", fieldMessages: "messages", fieldStreamOptions: "stream_options",
	fieldInput: "input", fieldContents: "contents", fieldPrompt: "prompt",
	fieldSystem: "system", fieldAnthropicVersion: "anthropic_version", fieldAnthropicBeta: "anthropic_beta",
	fieldStopSequences: "stop_sequences", fieldTools: "tools", fieldToolChoice: "tool_choice",
}

// fieldOf finds the field of a key given as raw JSON string content. A key
// written with escapes is the same key to whoever decodes it.
func fieldOf(key []byte) (field, bool) {
	if bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(unquote(key))
	}
	switch string(key) {
	case "model":
		return fieldModel, true
	case "stream":
		return fieldStream, true
	case "messages":
		return fieldMessages, true
	case "stream_options":
		return fieldStreamOptions, true
	case "input":
		return fieldInput, true
	case "contents":
		return fieldContents, true
	case "prompt":
		return fieldPrompt, true
	case "system":
		return fieldSystem, true
	case "anthropic_version":
		return fieldAnthropicVersion, true
	case "anthropic_beta":
		return fieldAnthropicBeta, true
	case "stop_sequences":
		return fieldStopSequences, true
	case "tools":
		return fieldTools, true
	case "tool_choice":
		return fieldToolChoice, true
	}
	return 0, false
}

// A peeked is what one pass over a request body found at its top level.
type peeked struct {
	fields [numFields]span
	open   int  // offset just after the opening brace
	empty  bool // the object has no members

	// Somewhere in the body, at any depth, there is what only some dialects have.
	blocks      bool // a "type" that content blocks of Anthropic's have
	inputSchema bool // an "input_schema"
}

func (p *peeked) has(f field) bool { return p.fields[f].present() }

// value is a field's raw JSON in the body that was peeked, nil when absent.
func (p *peeked) value(body []byte, f field) []byte {
	if !p.has(f) {
		return nil
	}
	return p.fields[f].of(body)
}

// jsonError is why a body is not the one JSON object that it has to be.
type jsonError struct {
	offset int    // in bytes, from the start of the body
	what   string // what is wrong there
	param  string // the repeated key, when that is what is wrong
}

func (e *jsonError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.offset) }

var errNotObject = errors.New("the body must be a JSON object")

// peek checks that body is exactly one JSON object in UTF-8, and notes where
// the values of the known top-level keys are. A second copy of such a key is an
// error, since two readers of the body could disagree on which one counts.
func peek(body []byte) (peeked, error) {
	var p peeked
	s := scanner{b: body}
	i := skipSpace(body, 0)
	if i == len(body) {
		return p, &jsonError{offset: i, what: "the body is empty"}
	}
	if body[i] != '{' {
		if _, err := s.document(i); err != nil {
			return p, err
		}
		return p, errNotObject
	}
	p.open = i + 1
	end, err := p.scanMembers(&s)
	if err != nil {
		return p, err
	}
	if end = skipSpace(body, end); end < len(body) {
		return p, &jsonError{offset: end, what: "unexpected data after the JSON object"}
	}
	p.blocks, p.inputSchema = s.blocks, s.inputSchema
	return p, nil
}

// scanMembers walks the object whose brace opened just before p.open, and
// returns the offset after its closing brace.
func (p *peeked) scanMembers(s *scanner) (int, error) {
	i := skipSpace(s.b, p.open)
	if i < len(s.b) && s.b[i] == '}' {
		p.empty = true
		return i + 1, nil
	}
	for {
		keyStart := skipSpace(s.b, i)
		keyEnd, i2, err := s.key(keyStart)
		if err != nil {
			return 0, err
		}
		start := skipSpace(s.b, i2)
		end, err := s.value(start)
		if err != nil {
			return 0, err
		}
		if f, ok := fieldOf(s.b[keyStart+1 : keyEnd-1]); ok {
			if f < numActed && p.fields[f].present() {
				return 0, &jsonError{offset: keyStart, what: fmt.Sprintf("the key %q is there twice", fieldNames[f]), param: fieldNames[f]}
			}
			p.fields[f] = span{start, end}
		}
		i = skipSpace(s.b, end)
		switch {
		case i == len(s.b):
			return 0, s.cutOff()
		case s.b[i] == ',':
			i++
		case s.b[i] == '}':
			return i + 1, nil
		default:
			return 0, s.unexpected(i, "',' or '}'")
		}
	}
}

// checkJSON reports why b is not exactly one valid JSON value in UTF-8.
func checkJSON(b []byte) error {
	s := scanner{b: b}
	i := skipSpace(b, 0)
	if i == len(b) {
		return s.cutOff()
	}
	_, err := s.document(i)
	return err
}

// A scanner checks JSON grammar. It recurses nowhere, so that hostile nesting
// costs a bit a level and not a stack frame.
type scanner struct {
	b []byte

	blocks, inputSchema bool // see peeked
}

func (s *scanner) cutOff() error {
	return &jsonError{offset: len(s.b), what: "the JSON is cut off"}
}

func (s *scanner) unexpected(i int, want string) error {
	if i >= len(s.b) {
		return s.cutOff()
	}
	return &jsonError{offset: i, what: fmt.Sprintf("unexpected %q where %s should be", rune(s.b[i]), want)}
}

// document scans the one value at i and allows nothing but space after it.
func (s *scanner) document(i int) (int, error) {
	end, err := s.value(i)
	if err != nil {
		return 0, err
	}
	if end = skipSpace(s.b, end); end < len(s.b) {
		return 0, &jsonError{offset: end, what: "unexpected data after the JSON value"}
	}
	return end, nil
}

// value scans the value at i and returns the offset after it.
func (s *scanner) value(i int) (int, error) {
	var objects [maxDepth / 64]uint64 // a bit for each open container: is it an object?
	depth := 0
	for {
		end, opened, err := s.scalarOrOpen(i)
		if err != nil {
			return 0, err
		}
		i = end
		if opened != 0 {
			if depth == maxDepth {
				return 0, &jsonError{offset: i, what: fmt.Sprintf("the JSON nests deeper than %d levels", maxDepth)}
			}
			bit := uint64(1) << (depth % 64)
			objects[depth/64] &^= bit
			if opened == '{' {
				objects[depth/64] |= bit
			}
			depth++
		}
		// Close what ends here, up to the next value or the end of the outermost.
		for opened == 0 {
			if depth == 0 {
				return i, nil
			}
			isObject := objects[(depth-1)/64]>>((depth-1)%64)&1 == 1
			i = skipSpace(s.b, i)
			if i == len(s.b) {
				return 0, s.cutOff()
			}
			switch c := s.b[i]; {
			case c == ',' && isObject:
				if _, i, err = s.key(skipSpace(s.b, i+1)); err != nil {
					return 0, err
				}
				i = skipSpace(s.b, i)
				opened = ','
			case c == ',':
				i = skipSpace(s.b, i+1)
				opened = ','
			case c == '}' && isObject, c == ']' && !isObject:
				i++
				depth--
			case isObject:
				return 0, s.unexpected(i, "',' or '}'")
			default:
				return 0, s.unexpected(i, "',' or ']'")
			}
		}
	}
}

// scalarOrOpen scans a scalar or an empty container whole, or the opening of a
// container up to its first value; opened is then '{' or '['.
func (s *scanner) scalarOrOpen(i int) (end int, opened byte, err error) {
	if i >= len(s.b) {
		return 0, 0, s.cutOff()
	}
	switch c := s.b[i]; c {
	case '"':
		end, err = s.str(i)
		return end, 0, err
	case '{':
		i = skipSpace(s.b, i+1)
		if i < len(s.b) && s.b[i] == '}' {
			return i + 1, 0, nil
		}
		if _, i, err = s.key(i); err != nil {
			return 0, 0, err
		}
		return skipSpace(s.b, i), '{', nil
	case '[':
		i = skipSpace(s.b, i+1)
		if i < len(s.b) && s.b[i] == ']' {
			return i + 1, 0, nil
		}
		return i, '[', nil
	case 't':
		end, err = s.literal(i, "true")
	case 'f':
		end, err = s.literal(i, "false")
	case 'n':
		end, err = s.literal(i, "null")
	default:
		if c != '-' && !isDigit(c) {
			return 0, 0, s.unexpected(i, "a value")
		}
		end, err = s.number(i)
	}
	return end, 0, err
}

// key scans a member's key and colon; keyEnd is the offset after the closing
// quote, end the one after the colon.
func (s *scanner) key(i int) (keyEnd, end int, err error) {
	if i >= len(s.b) || s.b[i] != '"' {
		return 0, 0, s.unexpected(i, "a key in double quotes")
	}
	if keyEnd, err = s.str(i); err != nil {
		return 0, 0, err
	}
	end = skipSpace(s.b, keyEnd)
	if end >= len(s.b) || s.b[end] != ':' {
		return 0, 0, s.unexpected(end, "':'")
	}
	end++
	switch keyEnd - i {
	case len(`"type"`):
		if !s.blocks && string(s.b[i:keyEnd]) == `"type"` {
			s.blocks = isBlockType(s.b[skipSpace(s.b, end):])
		}
	case len(`"input_schema"`):
		s.inputSchema = s.inputSchema || string(s.b[i:keyEnd]) == `"input_schema"`
	}
	return keyEnd, end, nil
}

// isBlockType says whether a raw value may be the type of a content block that
// makes a body Anthropic's; a closer look decides.
func isBlockType(v []byte) bool {
	v = v[:min(len(v), 48)]
	if len(v) < 2 || v[0] != '"' {
		return false
	}
	end := bytes.IndexByte(v[1:], '"')
	if end < 0 {
		return false
	}
	switch t := v[1 : end+1]; string(t) {
	case "tool_use", "server_tool_use", "redacted_thinking", "search_result", "image", "document", "thinking":
		return true
	default:
		return bytes.HasSuffix(t, []byte("tool_result"))
	}
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// strangeBytes marks, by its high bit, the first byte of w that is not plain text
// of a string: a quote, a backslash, a control character, or beyond ASCII. Bytes
// after the first mark may be marked wrongly, since the subtractions borrow.
func strangeBytes(w uint64) uint64 {
	quote, slash := w^lowBits*'"', w^lowBits*'\\'
	return (w | (quote - lowBits) | (slash - lowBits) | (w - lowBits*0x20)) & highBits
}

// str scans the string whose opening quote is at i and returns the offset after
// its closing quote. Most of a request is strings, so their plain text is looked
// at eight bytes at a time, and what is common in them without a call: runs of
// short escapes, and characters of two and three bytes. That is worth a third of
// the time that a body of source code takes.
func (s *scanner) str(i int) (int, error) {
	b := s.b
	i++
	for {
		for i+8 <= len(b) {
			m := strangeBytes(binary.LittleEndian.Uint64(b[i:]))
			if m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) / 8
			start := i
			switch c := b[i]; {
			case c == '"':
				return i + 1, nil
			case c == '\\':
				for i+1 < len(b) && b[i] == '\\' && shortEscape[b[i+1]] {
					i += 2
				}
			case 0xc2 <= c && c <= 0xdf && i+1 < len(b) && continues(b[i+1]):
				i += 2
			case 0xe1 <= c && c <= 0xef && c != 0xed && i+2 < len(b) && continues(b[i+1]) && continues(b[i+2]):
				i += 3
			}
			if i == start {
				break
			}
		}
		switch {
		case i >= len(b):
			return 0, s.cutOff()
		case b[i] == '"':
			return i + 1, nil
		}
		end, err := s.char(i)
		if err != nil {
			return 0, err
		}
		i = end
	}
}

// continues says whether c can only be a later byte of a character in UTF-8.
func continues(c byte) bool { return c&0xc0 == 0x80 }

// shortEscape says which bytes make a whole escape with the backslash before them.
var shortEscape = [256]bool{'"': true, '\\': true, '/': true, 'b': true, 'f': true, 'n': true, 'r': true, 't': true}

// char scans the one character of a string at i, and the others beyond ASCII
// right behind it.
func (s *scanner) char(i int) (int, error) {
	switch c := s.b[i]; {
	case c == '\\':
		return s.escape(i)
	case c < 0x20:
		return 0, &jsonError{offset: i, what: fmt.Sprintf("unescaped control character %q in a string", rune(c))}
	case c < utf8.RuneSelf:
		return i + 1, nil
	}
	for i < len(s.b) && s.b[i] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(s.b[i:])
		if r == utf8.RuneError && n == 1 {
			return 0, &jsonError{offset: i, what: "the body is not valid UTF-8"}
		}
		i += n
	}
	return i, nil
}

// escape scans the escape sequence whose backslash is at i.
func (s *scanner) escape(i int) (int, error) {
	switch {
	case i+1 >= len(s.b):
		return 0, s.cutOff()
	case shortEscape[s.b[i+1]]:
		return i + 2, nil
	case s.b[i+1] != 'u':
		return 0, &jsonError{offset: i, what: fmt.Sprintf("unknown escape \\%c in a string", s.b[i+1])}
	case i+6 > len(s.b):
		return 0, s.cutOff()
	}
	for _, c := range s.b[i+2 : i+6] {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return 0, &jsonError{offset: i, what: "\\u without four hex digits in a string"}
		}
	}
	return i + 6, nil
}

func (s *scanner) literal(i int, want string) (int, error) {
	if len(s.b)-i < len(want) {
		return 0, s.cutOff()
	}
	if string(s.b[i:i+len(want)]) != want {
		return 0, s.unexpected(i, "a value")
	}
	return i + len(want), nil
}

func (s *scanner) number(i int) (int, error) {
	b := s.b
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && isDigit(b[i]):
		i = skipDigits(b, i)
	default:
		return 0, s.unexpected(i, "a digit")
	}
	if i < len(b) && b[i] == '.' {
		if i++; i >= len(b) || !isDigit(b[i]) {
			return 0, s.unexpected(i, "a digit")
		}
		i = skipDigits(b, i)
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if i >= len(b) || !isDigit(b[i]) {
			return 0, s.unexpected(i, "a digit")
		}
		i = skipDigits(b, i)
	}
	return i, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func skipDigits(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// members walks an object: each key as the raw text between its quotes, each
// value as its raw JSON. On anything but a valid object it ends early; it never
// reads out of bounds.
func members(obj []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) { walkMembers(obj, yield) }
}

func walkMembers(b []byte, yield func(key, value []byte) bool) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return
	}
	for i++; ; i++ {
		i = skipSpace(b, i)
		if i >= len(b) || b[i] != '"' {
			return
		}
		keyEnd := skipString(b, i)
		colon := skipSpace(b, keyEnd)
		if colon >= len(b) || b[colon] != ':' {
			return
		}
		start := skipSpace(b, colon+1)
		end := skipValue(b, start)
		if end <= start || !yield(b[i+1:keyEnd-1], b[start:end]) {
			return
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ',' {
			return
		}
	}
}

// elements walks an array: each element as its raw JSON. On anything but a
// valid array it ends early; it never reads out of bounds.
func elements(arr []byte) iter.Seq[[]byte] {
	return func(yield func(value []byte) bool) { walkElements(arr, yield) }
}

func walkElements(b []byte, yield func(value []byte) bool) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '[' {
		return
	}
	for i++; ; i++ {
		start := skipSpace(b, i)
		end := skipValue(b, start)
		if end <= start || !yield(b[start:end]) {
			return
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ',' {
			return
		}
	}
}

// member is the raw value of the first member of obj with that key, or nil.
func member(obj []byte, key string) []byte {
	for k, v := range members(obj) {
		if string(k) == key {
			return v
		}
	}
	return nil
}

// skipValue is the offset after the value at i of sound JSON; i itself, or the
// end of b, when there is none.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return len(b)
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipContainer(b, i)
	}
	for i < len(b) {
		switch b[i] {
		case ',', ']', '}', ':', '"', '{', '[', ' ', '\n', '\r', '\t':
			return i
		}
		i++
	}
	return i
}

func skipContainer(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		c := b[i]
		if c == '"' {
			i = skipString(b, i)
			continue
		}
		i++
		if n := nesting[c]; n != 0 {
			if depth += int(n); depth == 0 {
				return i
			}
		}
	}
	return i
}

// nesting is by how much a byte outside strings changes the depth.
var nesting = [256]int8{'{': 1, '[': 1, '}': -1, ']': -1}

// stringStops marks, by the high bit of its byte, the first byte of w that is a
// quote or a backslash. Bytes after the first mark may be marked wrongly.
func stringStops(w uint64) uint64 {
	quote := w ^ lowBits*'"'
	slash := w ^ lowBits*'\\'
	return ((quote-lowBits)&^quote | (slash-lowBits)&^slash) & highBits
}

// skipString is the offset after the string whose opening quote is at i; the
// end of b when it does not close.
func skipString(b []byte, i int) int {
	for i++; ; {
		for ; i+8 <= len(b); i += 8 {
			if m := stringStops(binary.LittleEndian.Uint64(b[i:])); m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
		}
		switch {
		case i >= len(b):
			return len(b)
		case b[i] == '"':
			return i + 1
		case b[i] == '\\':
			i += 2
		default:
			i++
		}
	}
}

// isNull says whether a raw value is absent or null; an optional field that is
// null means the same as none (dialects 0-4).
func isNull(v []byte) bool { return len(v) == 0 || string(v) == "null" }

// isString says whether a raw value is a string.
func isString(v []byte) bool { return len(v) >= 2 && v[0] == '"' }

// isArray says whether a raw value is an array.
func isArray(v []byte) bool { return len(v) >= 2 && v[0] == '[' }

// isObject says whether a raw value is an object.
func isObject(v []byte) bool { return len(v) >= 2 && v[0] == '{' }

// text is the decoded text of a raw value if it is a string, else "".
func text(v []byte) string {
	if !isString(v) {
		return ""
	}
	return unquote(v[1 : len(v)-1])
}

// unquote decodes the content of a JSON string, given without its quotes.
func unquote(content []byte) string {
	if bytes.IndexByte(content, '\\') < 0 {
		return string(content)
	}
	quoted := make([]byte, 0, len(content)+2)
	quoted = append(append(append(quoted, '"'), content...), '"')
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return string(content)
	}
	return s
}

// appendQuoted appends s as a JSON string, without HTML escaping.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}

// compact is a raw value without the space between its tokens.
func compact(v []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return v
	}
	return b.Bytes()
}
