package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// What the decoders and encoders of all dialects share.

// quirk is the upstream's setting of a named peculiarity (dialects E.6).
func (x *exchange) quirk(name string) string { return x.cfg.quirk(name) }

// droppedCall notes a call, or a part of one, that the model has made and the
// client was not given.
const droppedCall = "output.tool_call"

// Bounds of the list of fields in a header.
const (
	maxDropped     = 64
	maxDroppedName = 64 // bytes
)

// drop notes a field of the request that has no counterpart in chat and is left
// out, for the header X-APIProxy-Dropped and the log.
func (x *exchange) drop(field string) {
	field = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == ',' {
			return '_'
		}
		return r
	}, field[:min(len(field), maxDroppedName)])
	if len(x.dropped) < maxDropped && !slices.Contains(x.dropped, field) {
		x.dropped = append(x.dropped, field)
	}
}

// safeToolName is the name under which a tool goes upstream: the client's own,
// or, where upstreams would refuse that, a shorter one that is mapped back in
// the answer (dialects C-74).
func (x *exchange) safeToolName(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '-':
			return r
		}
		return -1
	}, name)
	if clean == name && len(name) <= 64 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	short := clean[:min(len(clean), 55)] + "_" + hex.EncodeToString(sum[:4])
	if x.toolNames == nil {
		x.toolNames = map[string]string{}
	}
	x.toolNames[short] = name
	return short
}

// clientToolName is the client's name of a tool that the upstream calls.
func (x *exchange) clientToolName(name string) string {
	if to, ok := x.toolNames[name]; ok {
		return to
	}
	return name
}

// restoreNames puts the client's names of its tools back into a chat answer that
// is otherwise passed on as it is (dialects A-40).
func (x *exchange) restoreNames(b []byte) []byte {
	for sent, name := range x.toolNames {
		b = bytes.ReplaceAll(b, appendQuoted(nil, sent), appendQuoted(nil, name))
	}
	return b
}

// argumentsObject is a call's arguments as the object that some dialects want,
// whatever the upstream sent for one (dialects E-8).
func argumentsObject(args string) json.RawMessage {
	raw := []byte(strings.TrimSpace(args))
	if len(raw) == 0 || string(raw) == "null" {
		return json.RawMessage("{}")
	}
	if checkJSON(raw) == nil {
		if isString(raw) {
			raw = []byte(text(raw))
		}
		if isObject(raw) && checkJSON(raw) == nil {
			return compact(raw)
		}
	}
	return append(appendQuoted([]byte(`{"_raw_arguments":`), args), '}')
}

// stampPrefix begins every signature of the gateway's own.
const stampPrefix = "apx1."

// stamp is the signature under which a client keeps reasoning: it says in which
// field of the wire the reasoning has to go back, and, when the client does not
// keep the text itself, holds the text (dialects E-24). "" when there is nothing
// to send back.
func (r reasoning) stamp(withText bool) string {
	var payload []byte
	switch r.Field {
	case 0, reasoningInText:
		return ""
	case reasoningList:
		payload = slices.Concat([]byte("["), r.Details, []byte("]"))
	default:
		if withText {
			payload = []byte(r.Text)
		}
	}
	return stampPrefix + string(r.Field) + "." + base64.RawURLEncoding.EncodeToString(payload)
}

// unstamp reads a signature back; shown is the text that came with it. ok is
// false for a signature that is not the gateway's.
func unstamp(signature, shown string) (r reasoning, ok bool) {
	rest, ok := strings.CutPrefix(signature, stampPrefix)
	if !ok || len(rest) < 2 || rest[1] != '.' {
		return r, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(rest[2:])
	if err != nil {
		return r, false
	}
	r = reasoning{Text: shown, Field: reasoningField(rest[0])}
	switch r.Field {
	case reasoningContent, reasoningPlain:
		if len(payload) > 0 {
			r.Text = string(payload)
		}
	case reasoningList:
		if checkJSON(payload) != nil || !isArray(payload) {
			return r, false
		}
		r.Details = payload[1 : len(payload)-1]
	default:
		return r, false
	}
	return r, true
}

// putBack puts reasoning into the field of an assistant message that it came
// from.
func (r reasoning) putBack(m *chatMessage) {
	switch r.Field {
	case reasoningContent:
		m.ReasoningContent = r.Text
	case reasoningPlain:
		m.Reasoning = r.Text
	case reasoningList:
		m.ReasoningDetails = slices.Concat([]byte("["), r.Details, []byte("]"))
	}
}

// invalid is the 400 for a field of the request, with what it must be.
func invalid(param, want string) *apiError {
	return badRequest(param, param+": "+want)
}

// typeError is the 400 for a field of the wrong type, which the standard
// library's decoder found.
func typeError(err error) *apiError {
	var t *json.UnmarshalTypeError
	if !errors.As(err, &t) {
		return badJSON(err)
	}
	e := badRequest(t.Field, "Invalid type for '"+t.Field+"': "+t.Value+" is not what it takes.")
	e.Code = "invalid_type"
	return e
}
