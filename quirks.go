package main

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
)

// Some upstreams want requests written in their own way, which UPSTREAM_QUIRKS
// says (dialects E.5, E.6). The decoders heed what concerns their own dialect;
// here is what holds for the chat request that came out, whatever it was before.
// What the client sent in OpenAI's own form goes on as it is.

// heed writes a request the way that this upstream wants it.
func (x *exchange) heed(q *chatRequest) {
	if x.quirk("single_system") == "on" {
		oneSystem(q.Messages)
	}
	if x.quirk("alternate") == "strict" {
		q.Messages = mergeUsers(q.Messages)
	}
	if x.quirk("tool_id_9") == "on" {
		for i := range q.Messages {
			shortenIDs(&q.Messages[i])
		}
	}
	if x.quirk("tools_required_with_history") == "on" && len(q.Tools) == 0 {
		declareCalled(q)
	}
	if x.quirk("schema") == "gemini" {
		for i := range q.Tools {
			q.Tools[i].Function.Parameters = schemaForGemini(q.Tools[i].Function.Parameters)
		}
		if f := q.ResponseFormat; f != nil && f.JSONSchema != nil {
			f.JSONSchema.Schema = schemaForGemini(f.JSONSchema.Schema)
		}
	}
}

// oneSystem makes user messages of the system messages after the first message,
// for templates that take only one (dialects C-12, D-42).
func oneSystem(list []chatMessage) {
	for i := range list {
		m := &list[i]
		if i == 0 || m.Role != "system" || m.Raw != nil {
			continue
		}
		said := m.Content.Text
		if m.Content.Parts != nil {
			said = textOfParts(m.Content.Parts)
		}
		*m = chatMessage{Role: "user", Content: textContent("<system>" + said + "</system>")}
	}
}

// shortenIDs writes the ids of a message's calls in nine characters (dialects
// E-18). A call and its result get the same one.
func shortenIDs(m *chatMessage) {
	if m.ToolCallID != "" {
		m.ToolCallID = nineID(m.ToolCallID)
	}
	m.ToolCalls = slices.Clone(m.ToolCalls) // the answer may be using them too
	for i := range m.ToolCalls {
		m.ToolCalls[i].ID = nineID(m.ToolCalls[i].ID)
	}
}

// nineID is an id as it is if it has nine letters and digits, else a hash of it.
func nineID(id string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	if len(id) == 9 && strings.Trim(id, alphabet) == "" {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	short := make([]byte, 9)
	for i := range short {
		short[i] = alphabet[int(sum[i])%len(alphabet)]
	}
	return string(short)
}

// declareCalled declares the functions that were called earlier in a
// conversation which comes without tools, for upstreams that refuse such calls
// otherwise, and forbids to call them now.
func declareCalled(q *chatRequest) {
	var names []string
	for i := range q.Messages {
		for _, c := range q.Messages[i].ToolCalls {
			if !slices.Contains(names, c.Function.Name) {
				names = append(names, c.Function.Name)
			}
		}
	}
	for _, name := range names {
		q.Tools = append(q.Tools, chatTool{Type: "function", Function: chatFunction{Name: name, Parameters: json.RawMessage(`{"type":"object","properties":{}}`)}})
	}
	if len(names) > 0 {
		q.ToolChoice = json.RawMessage(`"none"`)
	}
}

// schemaForGemini is a JSON Schema without the words that Gemini's compatible
// endpoint refuses (dialects E.5).
func schemaForGemini(schema json.RawMessage) json.RawMessage {
	if schema == nil {
		return nil
	}
	return appendForGemini(nil, schema)
}

func appendForGemini(dst, schema []byte) []byte {
	if !isObject(schema) {
		return append(dst, schema...)
	}
	hasEnum := member(schema, "enum") != nil
	dst = append(dst, '{')
	first := len(dst)
	for k, v := range members(schema) {
		switch string(k) {
		case "$schema", "$id", "additionalProperties":
			continue
		case "const":
			if !hasEnum {
				dst = append(append(append(comma(dst, first), `"enum":[`...), v...), ']')
			}
			continue
		}
		dst = append(append(append(comma(dst, first), '"'), k...), `":`...)
		switch string(k) {
		case "properties", "patternProperties", "$defs", "definitions", "dependentSchemas":
			dst = appendNamed(dst, v)
		case "enum", "default", "example", "examples", "required":
			dst = append(dst, v...)
		default:
			dst = appendSchemas(dst, v)
		}
	}
	return append(dst, '}')
}

// appendNamed appends an object whose members are schemas, whatever their names.
func appendNamed(dst, named []byte) []byte {
	if !isObject(named) {
		return append(dst, named...)
	}
	dst = append(dst, '{')
	first := len(dst)
	for k, v := range members(named) {
		dst = append(append(append(comma(dst, first), '"'), k...), `":`...)
		dst = appendForGemini(dst, v)
	}
	return append(dst, '}')
}

// appendSchemas appends a word's value: a schema, a list of schemas, or neither.
func appendSchemas(dst, v []byte) []byte {
	if !isArray(v) {
		return appendForGemini(dst, v)
	}
	dst = append(dst, '[')
	first := len(dst)
	for e := range elements(v) {
		dst = appendForGemini(comma(dst, first), e)
	}
	return append(dst, ']')
}

// comma appends one unless dst ends at first, where the first entry stands.
func comma(dst []byte, first int) []byte {
	if len(dst) == first {
		return dst
	}
	return append(dst, ',')
}
