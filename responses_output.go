package main

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// An outputItem is one item of the answer's output.
type outputItem struct {
	kind  itemKind
	id    string
	index int    // output_index
	raw   []byte // the finished item; nil as long as it is open

	quotedText              // of reasoning, and the arguments of a function call
	parts      []outputPart // of a message
	think      reasoning    // of reasoning, without its text

	tool   emulatedTool // of a call
	callID string
	args   []byte // of a call, as far as they are not sent
}

type itemKind int

const (
	itemUnknown    itemKind = iota // a call without a name so far
	itemSuppressed                 // a call that the client does not allow
	itemReasoning
	itemMessage
	itemFunctionCall
	itemCustomCall
	itemLateCall // a call that is sent whole, at the end
)

// quotedText is text that adds up, kept as the content of a JSON string.
type quotedText struct{ text []byte }

// appendText appends a piece as a JSON string, and keeps it.
func (q *quotedText) appendText(dst []byte, t string) []byte {
	start := len(dst) + 1
	dst = appendQuoted(dst, t)
	q.text = append(q.text, dst[start:len(dst)-1]...)
	return dst
}

// appendAll appends all of the text as a JSON string.
func (q *quotedText) appendAll(dst []byte) []byte {
	return append(append(append(dst, '"'), q.text...), '"')
}

// outputPart is one part of a message.
type outputPart struct {
	quotedText
	kind        partKind
	logprobs    []byte // without brackets
	annotations []byte // without brackets
}

type partKind int

const (
	partOutputText partKind = iota
	partRefusal
)

func (p *outputPart) append(dst []byte) []byte {
	if p.kind == partRefusal {
		return append(p.appendAll(append(dst, `{"type":"refusal","refusal":`...)), '}')
	}
	dst = p.appendAll(append(dst, `{"type":"output_text","text":`...))
	dst = append(append(dst, `,"annotations":[`...), p.annotations...)
	dst = append(append(dst, `],"logprobs":[`...), p.logprobs...)
	return append(dst, "]}"...)
}

func (it *outputItem) lastPart(dst []byte) []byte { return it.parts[len(it.parts)-1].append(dst) }

func (it *outputItem) contentIndex(dst []byte) []byte {
	return strconv.AppendInt(append(dst, `,"content_index":`...), int64(len(it.parts)-1), 10)
}

func (it *outputItem) appendMessage(dst []byte, status string) []byte {
	dst = append(append(dst, `{"type":"message","id":"`...), it.id...)
	dst = append(append(dst, `","status":"`...), status...)
	dst = append(dst, `","role":"assistant","content":[`...)
	for i := range it.parts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = it.parts[i].append(dst)
	}
	return append(dst, "]}"...)
}

func (it *outputItem) appendReasoning(dst []byte, status, encrypted string) []byte {
	dst = append(append(dst, `{"type":"reasoning","id":"`...), it.id...)
	dst = append(append(dst, `","status":"`...), status...)
	dst = it.appendAll(append(dst, `","summary":[{"type":"summary_text","text":`...))
	dst = append(dst, "}]"...)
	if encrypted != "" {
		dst = appendQuoted(append(dst, `,"encrypted_content":`...), encrypted)
	}
	return append(dst, '}')
}

// payload is what a call that is sent whole holds, and how its id begins; nil if
// the arguments are not what the tool takes.
func (it *outputItem) payload() (members []byte, prefix string) {
	args := string(it.args)
	var v []byte
	switch it.tool.kind {
	case toolLocalShell:
		if v = localShellAction(args); v != nil {
			return slices.Concat([]byte(`,"action":`), v), "lsh_"
		}
	case toolShell:
		if v = shellAction(args); v != nil {
			return slices.Concat([]byte(`,"action":`), v, []byte(`,"environment":null`)), "sh_"
		}
	case toolApplyPatch:
		if v = patchOperation(args); v != nil {
			return slices.Concat([]byte(`,"operation":`), v), "apc_"
		}
	case toolSearch:
		return slices.Concat([]byte(`,"execution":"client","arguments":`), argumentsObject(args)), "tsc_"
	}
	return nil, ""
}

// callTypes are the items that calls become, by the kind of tool.
var callTypes = [...]string{
	toolFunction: "function_call", toolCustom: "custom_tool_call", toolLocalShell: "local_shell_call",
	toolShell: "shell_call", toolApplyPatch: "apply_patch_call", toolSearch: "tool_search_call",
}

// appendCall appends a call's item; payload is that of a call sent whole.
func (it *outputItem) appendCall(dst, payload []byte, status string) []byte {
	typ := callTypes[it.tool.kind]
	if payload == nil && it.kind == itemFunctionCall {
		typ = callTypes[toolFunction]
	}
	dst = append(append(append(dst, `{"type":"`...), typ...), `","id":"`...)
	dst = appendQuoted(append(append(dst, it.id...), `","call_id":`...), it.callID)
	if payload != nil {
		dst = append(dst, payload...)
	} else {
		dst = appendQuoted(append(dst, `,"name":`...), it.tool.name)
		if it.tool.namespace != "" {
			dst = appendQuoted(append(dst, `,"namespace":`...), it.tool.namespace)
		}
		field := `,"arguments":`
		if it.kind == itemCustomCall {
			field = `,"input":`
		}
		dst = it.appendAll(append(dst, field...))
	}
	return append(append(append(dst, `,"status":"`...), status...), `"}`...)
}

// tokens are a chunk's log probabilities as the dialect has them, without
// brackets; none if the client has not asked for them.
func (s *responsesStream) tokens(raw json.RawMessage) []byte {
	if !s.r.Logprobs || raw == nil {
		return nil
	}
	var out []byte
	for token := range elements(member(raw, "content")) {
		out = joinRaw(out, appendLogprob(nil, token, true))
	}
	return out
}

// appendLogprob appends one token's entry; a token of its alternatives has none
// itself.
func appendLogprob(dst, token []byte, whole bool) []byte {
	dst = append(append(dst, `{"token":`...), orDefault(member(token, "token"), `""`)...)
	dst = append(append(dst, `,"logprob":`...), orDefault(member(token, "logprob"), "0")...)
	dst = append(append(dst, `,"bytes":`...), compact(orDefault(member(token, "bytes"), "[]"))...)
	if whole {
		var top []byte
		for t := range elements(member(token, "top_logprobs")) {
			top = joinRaw(top, appendLogprob(nil, t, false))
		}
		dst = append(append(append(dst, `,"top_logprobs":[`...), top...), ']')
	}
	return append(dst, '}')
}

// joinRaw joins two lists of raw values without their brackets.
func joinRaw(a, b []byte) []byte {
	if len(a) > 0 && len(b) > 0 {
		a = append(a, ',')
	}
	return append(a, b...)
}

// flatAnnotations are chat's url citations as the dialect has them, without
// brackets.
func flatAnnotations(raw json.RawMessage) []byte {
	var out []byte
	for a := range elements(raw) {
		cite := member(a, "url_citation")
		if !isObject(cite) {
			continue
		}
		one := []byte(`{"type":"url_citation"`)
		for _, key := range [...][2]string{{"start_index", "0"}, {"end_index", "0"}, {"url", `""`}, {"title", `""`}} {
			one = append(append(one, `,"`+key[0]+`":`...), orDefault(member(cite, key[0]), key[1])...)
		}
		out = joinRaw(out, append(one, '}'))
	}
	return out
}

// objectState is what changes in a response object from one state to the next.
type objectState struct {
	status      string
	reason      string    // of incomplete
	err         *apiError // of failed
	completedAt int64     // 0 for null
	output      [][]byte
	usage       bool // say what it cost
	stored      bool
}

// appendObject appends the response object. Each of its members is always
// there (dialects D.5).
func (s *responsesStream) appendObject(dst []byte, o objectState) []byte {
	dst = append(append(dst, `{"id":"`...), s.id...)
	dst = strconv.AppendInt(append(dst, `","object":"response","created_at":`...), s.createdAt, 10)
	dst = append(dst, `,"completed_at":`...)
	if o.completedAt == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, o.completedAt, 10)
	}
	dst = append(append(append(dst, `,"status":"`...), o.status...), `","incomplete_details":`...)
	if o.reason == "" {
		dst = append(dst, "null"...)
	} else {
		dst = append(append(append(dst, `{"reason":"`...), o.reason...), `"}`...)
	}
	dst = append(dst, `,"error":`...)
	if o.err == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendQuoted(append(dst, `{"code":`...), responseErrorCode(o.err))
		dst = append(appendQuoted(append(dst, `,"message":`...), o.err.Message), '}')
	}
	dst = append(append(dst, s.r.echo.model...), `,"output":[`...)
	for i, item := range o.output {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, item...)
	}
	dst = append(append(append(dst, ']'), s.r.echo.settings...), `,"usage":`...)
	dst = s.appendUsage(dst, o)
	dst = append(append(dst, s.r.echo.limits...), `,"store":`...)
	dst = append(strconv.AppendBool(dst, o.stored), `,"background":false,"service_tier":`...)
	tier := s.tier
	if tier == "" {
		tier = "default"
	}
	return append(append(appendQuoted(dst, tier), s.r.echo.labels...), '}')
}

// appendUsage appends what the answer cost: as the upstream told, else
// estimated. A failed answer has only what the upstream told.
func (s *responsesStream) appendUsage(dst []byte, o objectState) []byte {
	u := s.usage
	if !o.usage || o.err != nil && !u.Known {
		return append(dst, "null"...)
	}
	if u.Prompt == 0 {
		u.Prompt = s.x.estimate
	}
	if !u.Known {
		u.Completion = s.estimate()
	}
	dst = strconv.AppendInt(append(dst, `{"input_tokens":`...), u.Prompt, 10)
	dst = strconv.AppendInt(append(dst, `,"input_tokens_details":{"cached_tokens":`...), u.Cached, 10)
	dst = strconv.AppendInt(append(dst, `,"cache_write_tokens":`...), u.CacheWrite, 10)
	dst = strconv.AppendInt(append(dst, `},"output_tokens":`...), u.Completion, 10)
	dst = strconv.AppendInt(append(dst, `,"output_tokens_details":{"reasoning_tokens":`...), u.Reasoning, 10)
	dst = strconv.AppendInt(append(dst, `},"total_tokens":`...), u.Prompt+u.Completion, 10)
	return append(dst, '}')
}

// estimate guesses the tokens of the answer.
func (s *responsesStream) estimate() int64 {
	var n float64
	for _, it := range s.items {
		n += textTokens(string(it.text)) + textTokens(string(it.args))
		for i := range it.parts {
			n += textTokens(string(it.parts[i].text))
		}
	}
	return int64(math.Ceil(n))
}
