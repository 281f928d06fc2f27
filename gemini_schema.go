package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Gemini describes parameters and answers in a dialect of OpenAPI 3.0 schemas.
// This file makes JSON Schema of them (dialects B.5).

// maxSchemaDepth bounds how deep a schema is converted; what lies deeper stays
// as it is. Real ones nest a few levels.
const maxSchemaDepth = 128

// jsonSchemaOf is the JSON Schema for one of Gemini's schemas. Keys keep their
// order, and what is not known stays.
func jsonSchemaOf(raw []byte) json.RawMessage {
	return appendJSONSchema(nil, raw, maxSchemaDepth)
}

// appendJSONSchema appends the converted schema, going down depth levels.
func appendJSONSchema(dst, raw []byte, depth int) []byte {
	if !isObject(raw) || depth == 0 {
		return append(dst, compact(raw)...)
	}
	s := readSchema(raw)
	dst = append(dst, '{')
	for _, m := range s.members {
		dst = s.appendMember(dst, m, depth-1)
	}
	return append(dst, '}')
}

// A geminiSchema is one level of a schema.
type geminiSchema struct {
	members  []rawMember // under their camel-case names
	order    []byte      // propertyOrdering
	nullable bool
	examples bool // has JSON Schema's own examples
}

// readSchema reads one level of a schema. A keyword that is there in both
// spellings counts in camel case.
func readSchema(raw []byte) geminiSchema {
	var s geminiSchema
	plain := map[string]bool{} // only asked, never walked
	snakes := 0
	for k, v := range members(raw) {
		key := string(k)
		if keyword := camelKey(key); keyword != key && isSchemaKeyword(keyword) {
			snakes++
		} else {
			plain[key] = true
		}
		s.members = append(s.members, rawMember{key, v})
	}
	if snakes > 0 {
		s.members = slices.DeleteFunc(s.members, func(m rawMember) bool {
			keyword := camelKey(m.Key)
			return keyword != m.Key && plain[keyword]
		})
	}
	for i := range s.members {
		m := &s.members[i]
		if keyword := camelKey(m.Key); isSchemaKeyword(keyword) {
			m.Key = keyword
		}
		switch m.Key {
		case "nullable":
			s.nullable = string(m.Value) == "true"
		case "propertyOrdering":
			s.order = m.Value
		case "examples":
			s.examples = true
		}
	}
	return s
}

// isSchemaKeyword says whether a word of more than one part is a keyword, so
// that its snake-case spelling is one too.
func isSchemaKeyword(key string) bool {
	switch key {
	case "anyOf", "oneOf", "allOf", "prefixItems", "additionalProperties", "propertyOrdering", "maxItems", "minItems", "uniqueItems",
		"maxLength", "minLength", "maxProperties", "minProperties", "patternProperties":
		return true
	}
	return false
}

// appendMember appends a keyword of the schema, converted, and the comma before
// it.
func (s *geminiSchema) appendMember(dst []byte, m rawMember, depth int) []byte {
	var value []byte
	switch m.Key {
	case "nullable", "propertyOrdering":
		return dst
	case "type":
		if value = s.types(m.Value); value == nil {
			return dst
		}
	case "format":
		if text(m.Value) == "enum" {
			return dst
		}
		value = m.Value
	case "example":
		if s.examples {
			return dst
		}
		m.Key, value = "examples", slices.Concat([]byte("["), compact(m.Value), []byte("]"))
	case "enum":
		value = s.orNull(compact(m.Value), "null")
	case "anyOf":
		value = s.orNull(schemaList(m.Value, depth), `{"type":"null"}`)
	case "oneOf", "allOf", "prefixItems":
		value = schemaList(m.Value, depth)
	case "items", "additionalProperties", "not":
		value = appendJSONSchema(nil, m.Value, depth)
	case "properties":
		value = schemaMap(m.Value, s.order, depth)
	case "$defs", "defs", "definitions", "patternProperties":
		value = schemaMap(m.Value, nil, depth)
	case "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties":
		value = schemaInteger(m.Value)
	default:
		value = compact(m.Value)
	}
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(append(append(dst, '"'), m.Key...), `":`...)
	return append(dst, value...)
}

// types is the type in lower case, with null where it is allowed; nil when
// nothing is said.
func (s *geminiSchema) types(raw []byte) []byte {
	if isNull(raw) {
		return nil
	}
	var names []string
	if isString(raw) {
		names = []string{text(raw)}
	}
	for t := range elements(raw) {
		names = append(names, text(t))
	}
	if len(names) == 0 {
		return compact(raw)
	}
	names = slices.DeleteFunc(names, func(t string) bool { return t == "TYPE_UNSPECIFIED" || t == "" })
	if len(names) == 0 {
		return nil
	}
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	if s.nullable && !slices.Contains(names, "null") {
		names = append(names, "null")
	}
	if len(names) == 1 {
		return appendQuoted(nil, names[0])
	}
	list := []byte{'['}
	for i, name := range names {
		if i > 0 {
			list = append(list, ',')
		}
		list = appendQuoted(list, name)
	}
	return append(list, ']')
}

// orNull adds to a compact array what stands for null, if null is allowed and
// not in it.
func (s *geminiSchema) orNull(array []byte, null string) []byte {
	if !s.nullable || !isArray(array) {
		return array
	}
	for v := range elements(array) {
		if string(v) == null {
			return array
		}
	}
	array = array[:len(array)-1]
	if len(array) > 1 {
		array = append(array, ',')
	}
	return append(append(array, null...), ']')
}

func schemaList(raw []byte, depth int) []byte {
	if !isArray(raw) {
		return compact(raw)
	}
	list := []byte{'['}
	for v := range elements(raw) {
		if len(list) > 1 {
			list = append(list, ',')
		}
		list = appendJSONSchema(list, v, depth)
	}
	return append(list, ']')
}

// schemaMap converts the schemas of an object whose keys are names and no
// keywords. Those that order lists come first.
func schemaMap(raw, order []byte, depth int) []byte {
	if !isObject(raw) {
		return compact(raw)
	}
	var named []rawMember
	at := map[string]int{} // only asked, never walked
	for k, v := range members(raw) {
		at[unquote(k)] = len(named)
		named = append(named, rawMember{string(k), v})
	}
	dst := []byte{'{'}
	put := func(i int) {
		if named[i].Value == nil {
			return
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), named[i].Key...), `":`...)
		dst = appendJSONSchema(dst, named[i].Value, depth)
		named[i].Value = nil
	}
	for name := range elements(order) {
		if i, ok := at[text(name)]; ok {
			put(i)
		}
	}
	for i := range named {
		put(i)
	}
	return append(dst, '}')
}

// schemaInteger is a number that may have come as a string, as 64-bit integers
// do in Google's JSON.
func schemaInteger(raw []byte) []byte {
	if !isString(raw) {
		return compact(raw)
	}
	n, err := strconv.ParseInt(text(raw), 10, 64)
	if err != nil {
		return raw
	}
	return strconv.AppendInt(nil, n, 10)
}
