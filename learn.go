package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Upstreams differ in which fields they take. A request that the gateway has
// written itself may name one that this upstream refuses; then the field is
// taken out, or written the way the upstream has it, and the request is sent
// once more. What helped is remembered for a while (dialects E-30).

const learnedFor = time.Hour

// maxRemedies is how many fields one request may lose to the upstream's errors.
const maxRemedies = 3

// A remedy makes a request do without a field. apply says whether the field was
// in it.
type remedy struct {
	field string
	value *regexp.Regexp // which complaints about the value alone count too; nil for none
	apply func(q *chatRequest) bool
}

var (
	anyValue    = regexp.MustCompile(``)
	defaultOnly = regexp.MustCompile(`(?i)default`) // any other complaint is of the client's own value
)

// remedies are tried in this order; the first whose field is named applies.
var remedies = []remedy{
	{"max_completion_tokens", nil, func(q *chatRequest) bool { return move(&q.MaxCompletionTokens, &q.MaxTokens) }},
	{"max_tokens", nil, func(q *chatRequest) bool { return move(&q.MaxTokens, &q.MaxCompletionTokens) }},
	{"stream_options", nil, func(q *chatRequest) bool { return clearField(&q.StreamOptions) }},
	{"parallel_tool_calls", nil, func(q *chatRequest) bool { return clearField(&q.ParallelToolCalls) }},
	{"top_k", nil, func(q *chatRequest) bool { return clearField(&q.TopK) }},
	{"seed", nil, func(q *chatRequest) bool { return clearField(&q.Seed) }},
	{"user", nil, func(q *chatRequest) bool { return clearText(&q.User) }},
	{"verbosity", nil, func(q *chatRequest) bool { return clearText(&q.Verbosity) }},
	{"service_tier", nil, func(q *chatRequest) bool { return clearText(&q.ServiceTier) }},
	{"prompt_cache_key", nil, func(q *chatRequest) bool { return clearField(&q.PromptCacheKey) }},
	{"prompt_cache_retention", nil, func(q *chatRequest) bool { return clearField(&q.PromptCacheRetention) }},
	{"safety_identifier", nil, func(q *chatRequest) bool { return clearField(&q.SafetyIdentifier) }},
	{"reasoning_effort", anyValue, lowerEffort},
	{"temperature", defaultOnly, func(q *chatRequest) bool { return clearField(&q.Temperature) }},
	{"top_p", defaultOnly, func(q *chatRequest) bool { return clearField(&q.TopP) }},
	{"tool_choice", anyValue, freeChoice},
	{"response_format", anyValue, schemaAsText},
	{"strict", nil, clearStrict},
	{"stop", anyValue, fewerStops},
	{"reasoning_content", nil, dropReasoning},
	{"developer", anyValue, developerAsSystem},
	{"extra_content", nil, dropExtraContent},
}

func move(from, to *json.RawMessage) bool {
	if *from == nil || *to != nil {
		return false
	}
	*from, *to = nil, *from
	return true
}

func clearField(f *json.RawMessage) bool {
	had := *f != nil
	*f = nil
	return had
}

func clearText(f *string) bool {
	had := *f != ""
	*f = ""
	return had
}

// lowerEffort falls back to the nearest effort that every reasoning model knows,
// before it gives the field up.
func lowerEffort(q *chatRequest) bool {
	if q.ReasoningEffort == "minimal" {
		q.ReasoningEffort = "low"
		return true
	}
	return clearText(&q.ReasoningEffort)
}

func freeChoice(q *chatRequest) bool {
	if q.ToolChoice == nil || string(q.ToolChoice) == `"auto"` {
		return false
	}
	q.ToolChoice = json.RawMessage(`"auto"`)
	return true
}

// schemaAsText asks for plain JSON and tells the model the schema.
func schemaAsText(q *chatRequest) bool {
	f := q.ResponseFormat
	if f == nil || f.JSONSchema == nil {
		return false
	}
	note := "Answer with one JSON object that satisfies this JSON Schema:\n" + string(f.JSONSchema.Schema)
	q.ResponseFormat = &responseFormat{Type: "json_object"}
	if len(q.Messages) > 0 && q.Messages[0].Role == "system" && q.Messages[0].Raw == nil && q.Messages[0].Content.Parts == nil {
		q.Messages = slices.Clone(q.Messages)
		q.Messages[0].Content = textContent(q.Messages[0].Content.Text + "\n\n" + note)
		return true
	}
	q.Messages = slices.Insert(slices.Clone(q.Messages), 0, chatMessage{Role: "system", Content: textContent(note)})
	return true
}

func clearStrict(q *chatRequest) bool {
	had := false
	for i := range q.Tools {
		had = clearField(&q.Tools[i].Function.Strict) || had
	}
	if q.ResponseFormat != nil && q.ResponseFormat.JSONSchema != nil {
		had = clearField(&q.ResponseFormat.JSONSchema.Strict) || had
	}
	return had
}

func fewerStops(q *chatRequest) bool {
	stops := slices.Collect(elements(q.Stop))
	if len(stops) <= 4 {
		return false
	}
	q.Stop = slices.Concat([]byte("["), bytes.Join(stops[:4], []byte(",")), []byte("]"))
	return true
}

func dropReasoning(q *chatRequest) bool {
	had := false
	for i := range q.Messages {
		m := &q.Messages[i]
		had = had || m.ReasoningContent != "" || m.Reasoning != "" || m.ReasoningDetails != nil
		m.ReasoningContent, m.Reasoning, m.ReasoningDetails = "", "", nil
	}
	return had
}

func developerAsSystem(q *chatRequest) bool {
	had := false
	for i := range q.Messages {
		if q.Messages[i].Role == "developer" {
			q.Messages[i].Role, had = "system", true
		}
	}
	return had
}

func dropExtraContent(q *chatRequest) bool {
	had := false
	for i := range q.Messages {
		for j := range q.Messages[i].ToolCalls {
			had = clearField(&q.Messages[i].ToolCalls[j].ExtraContent) || had
		}
	}
	return had
}

var (
	refusesField = regexp.MustCompile(`(?i)unsupported|unrecognized|unknown|not (permitted|supported|allowed|accepted)|does not support|extra|unexpected|invalid|no such|forbidden`)
	refusesName  = regexp.MustCompile(`(?i)extra_forbidden|extra inputs|unrecognized|unknown (name|field|parameter|argument)|unsupported parameter`)
	refusesValue = regexp.MustCompile(`(?i)\bvalue\b|must be|should be|greater than|less than|between|out of range|at (most|least)|maximum|minimum|\btype\b|only the default`)
)

// remedyFor finds what an upstream's error asks for, and applies it to the
// request; "" when it asks for nothing that can be done.
func remedyFor(e upstreamReport, q *chatRequest) string {
	if !refusesField.MatchString(e.message) && !strings.Contains(e.code, "unsupported") && !strings.Contains(e.code, "unknown") {
		return ""
	}
	aboutValue := refusesValue.MatchString(e.message) && !refusesName.MatchString(e.message)
	for _, r := range remedies {
		if aboutValue && (r.value == nil || !r.value.MatchString(e.message)) || !e.names(r.field) {
			continue
		}
		if r.apply(q) {
			return r.field
		}
	}
	return ""
}

// names says whether the error is about the field: its param, or the text, where
// the name stands by itself.
func (e upstreamReport) names(field string) bool {
	if e.param != "" {
		last := e.param[strings.LastIndexAny(e.param, ".[]")+1:]
		if last == field || e.param == field {
			return true
		}
	}
	rest := e.message
	for {
		i := strings.Index(rest, field)
		if i < 0 {
			return false
		}
		before, after := rest[:i], rest[i+len(field):]
		if !endsInWord(before) && !beginsWithWord(after) {
			return true
		}
		rest = after
	}
}

func endsInWord(s string) bool     { return s != "" && isWordByte(s[len(s)-1]) }
func beginsWithWord(s string) bool { return s != "" && isWordByte(s[0]) }
func isWordByte(c byte) bool       { return c == '_' || isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' }

// learned remembers, for each model, which remedies have helped.
type learned struct {
	mu     sync.Mutex
	models map[string]map[string]time.Time // model -> field -> until when
}

func (l *learned) remember(model, field string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.models == nil || len(l.models) > 1000 {
		l.models = map[string]map[string]time.Time{}
	}
	if l.models[model] == nil {
		l.models[model] = map[string]time.Time{}
	}
	l.models[model][field] = time.Now().Add(learnedFor)
}

// apply does to a request what has helped others for the same model, and
// returns the fields that it changed.
func (l *learned) apply(model string, q *chatRequest) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var changed []string
	for _, r := range remedies {
		if until, ok := l.models[model][r.field]; ok && time.Now().Before(until) && r.apply(q) {
			changed = append(changed, r.field)
		}
	}
	return changed
}

// negotiate looks at an upstream's refusal of a converted request, and says
// whether the request, changed, is worth sending again. The answer can still be
// read afterwards.
func (x *exchange) negotiate(res *http.Response) (field string) {
	if x.request == nil || x.quirk("learn") == "off" || res.StatusCode != 400 && res.StatusCode != 422 {
		return ""
	}
	if decompress(res) != nil {
		return ""
	}
	src := res.Body
	defer time.AfterFunc(maxErrorWait, func() { src.Close() }).Stop()
	body, err := io.ReadAll(io.LimitReader(src, maxErrorBytes))
	res.Body = readCloser{io.MultiReader(bytes.NewReader(body), src), src}
	if err != nil {
		return ""
	}
	e, ok := parseUpstreamError(body)
	if !ok {
		return ""
	}
	return remedyFor(e, x.request)
}
