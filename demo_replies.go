package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// demoModel is one model name and how it behaves.
type demoModel struct {
	id     string
	start  int        // pauses before the first token
	reply  demoReply  // what choice number i says
	broken bool       // the connection is cut before the answer's end
	refuse *demoError // the answer to every request
}

// demoReply makes choice number i of the answer to a request.
type demoReply func(q *demoChatRequest, i int) demoChoice

var demoModels = []demoModel{
	{id: "demo", start: demoFirstToken, reply: demoChatReply},
	{id: "demo-tools", start: demoFirstToken, reply: demoToolsReply},
	{id: "demo-reasoning", start: demoFirstToken, reply: demoReasoningReply},
	{id: "demo-slow", start: demoSlowStart, reply: demoChatReply},
	{id: "demo-429", refuse: &demoError{
		Status: 429, Message: "Rate limit reached for demo-429. Please try again in 1s.",
		Type: "rate_limit_error", Code: "rate_limit_exceeded", RetryAfter: 1,
	}},
	{id: "demo-broken", start: demoFirstToken, reply: demoChatReply, broken: true},
	{id: "demo-echo", reply: demoEchoReply},
}

// demoFindModel finds a model by name, with OpenAI's errors when there is none.
func demoFindModel(id string) (*demoModel, error) {
	if id == "" {
		return nil, demoInvalid("", "", "you must provide a model parameter")
	}
	for i := range demoModels {
		if demoModels[i].id == id {
			return &demoModels[i], nil
		}
	}
	return nil, &demoError{Status: 404, Message: fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", id), Code: "model_not_found"}
}

type demoModelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (m *demoModel) info() demoModelInfo {
	return demoModelInfo{ID: m.id, Object: "model", Created: 1767225600, OwnedBy: demoOwner}
}

func demoChatReply(q *demoChatRequest, i int) demoChoice {
	return demoChoice{Tokens: demoTokens(q.text(i))}
}

func demoReasoningReply(q *demoChatRequest, i int) demoChoice {
	thought := fmt.Sprintf("The user wrote %d words. I look at the conversation of %s and answer in a few lines.", len(strings.Fields(q.lastUser())), demoCount(len(q.Messages), "message"))
	return demoChoice{Reasoning: demoTokens(thought), Tokens: demoTokens(q.text(i))}
}

// demoToolsReply calls a tool for each user message, and talks once the
// results are there.
func demoToolsReply(q *demoChatRequest, i int) demoChoice {
	tools := q.toolsToCall()
	if len(tools) == 0 {
		return demoChatReply(q, i)
	}
	var c demoChoice
	for _, t := range tools {
		call := demoCall{ID: "call_" + rand.Text()[:24], Type: "function"}
		call.Function.Name = t.Function.Name
		call.Function.Arguments = string(demoFill(t.Function.Parameters, q.lastUser()))
		c.Calls = append(c.Calls, call)
	}
	return c
}

// demoEchoReply says the request's body back, in few enough pieces that a large
// body streams in reasonable time.
func demoEchoReply(q *demoChatRequest, _ int) demoChoice {
	return demoChoice{Tokens: demoPieces(string(q.body), max(1, len(q.body)/32))}
}

// toolsToCall chooses among the tools offered.
func (q *demoChatRequest) toolsToCall() []demoTool {
	parallel := q.ParallelToolCalls == nil || *q.ParallelToolCalls
	switch {
	case q.ToolChoice.Mode == "none", len(q.Tools) == 0, q.Messages[len(q.Messages)-1].Role == "tool":
		return nil
	case q.ToolChoice.Name != "":
		return []demoTool{*q.tool(q.ToolChoice.Name)}
	case parallel && strings.Contains(strings.ToLower(q.lastUser()), "both"):
		return q.Tools[:min(2, len(q.Tools))]
	}
	return q.Tools[:1]
}

// text is what choice number i says, in the form that response_format asks for.
func (q *demoChatRequest) text(i int) string {
	f := q.ResponseFormat
	switch {
	case f != nil && f.Type == "json_schema" && f.JSONSchema != nil:
		return string(demoFill(f.JSONSchema.Schema, q.lastUser()))
	case f != nil && f.Type == "json_object":
		return string(demoJSON(map[string]string{"answer": q.prose()}))
	case i > 0:
		return fmt.Sprintf("Choice %d: %s", i+1, q.prose())
	}
	return q.prose()
}

var (
	demoTellsName = regexp.MustCompile(`(?i)(?:\bmy name is|我叫|我的名字是)\s*(\p{L}[\p{L}\p{M}'’-]*)`)
	demoAsksName  = regexp.MustCompile(`(?i)\b(what('?s| is) my name|who am i|do you (know|remember) my name)\b|我叫什么|我的名字是什么|我是谁`)
	demoCountTo   = regexp.MustCompile(`(?i)\bcount to (\d{1,4})\b`)
	demoNumber    = regexp.MustCompile(`-?\d+(\.\d+)?`)
	demoSubject   = regexp.MustCompile(`\b(?:in|for|of|at|about|near|with) (\p{Lu}[\p{L}'-]*(?: \p{Lu}[\p{L}'-]*)*)`)
)

// prose answers the conversation in words. The number of messages shows what a
// session has put in.
func (q *demoChatRequest) prose() string {
	text := q.lastUser()
	seen := "\n\nThis request held **" + demoCount(len(q.Messages), "message") + "**."
	switch {
	case q.Messages[len(q.Messages)-1].Role == "tool":
		return "The tool says:\n\n" + demoQuote(q.toolResults()) + seen
	case q.images() != "":
		return "I see " + q.images() + "." + seen
	case demoAsksName.MatchString(text):
		return q.recallName() + seen
	case demoCountTo.MatchString(text):
		return demoCounting(demoCountTo.FindStringSubmatch(text)[1])
	case demoTellsName.MatchString(text):
		return "Nice to meet you, **" + demoTellsName.FindStringSubmatch(text)[1] + "**! Ask me later: *what is my name?*" + seen
	case strings.Contains(strings.ToLower(text), "markdown"):
		return demoMarkdown + seen
	}
	return "Hello! You said:\n\n" + demoQuote(text) + "\n\nI am the demo model inside the gateway: no account, no network, the same answer every time. Try:\n\n" +
		"- `my name is Ada`, and in the next turn `what is my name?`\n- `count to 30`, to watch a stream\n- `show me markdown`" + seen
}

const demoMarkdown = "## Markdown\n\nSome **bold**, some *italic*, some `code`, and a [link](https://example.com/).\n\n" +
	"1. first\n2. second\n\n| dialect | path |\n|---|---|\n| chat | `/v1/chat/completions` |\n| models | `/v1/models` |\n\n" +
	"```go\nfmt.Println(\"hello, <world>\")\n```"

func (q *demoChatRequest) recallName() string {
	for _, m := range slices.Backward(q.Messages) {
		if m.Role != "user" {
			continue
		}
		for _, found := range slices.Backward(demoTellsName.FindAllStringSubmatch(m.Content.Text, -1)) {
			if !strings.HasPrefix(found[1], "什么") { // that one asks
				return "Your name is **" + found[1] + "**."
			}
		}
	}
	return "You have not told me your name yet. Say: *my name is …*"
}

// toolResults is the text of the tool messages at the end of the request.
func (q *demoChatRequest) toolResults() string {
	var results []string
	for _, m := range slices.Backward(q.Messages) {
		if m.Role != "tool" {
			break
		}
		results = append(results, m.Content.Text)
	}
	slices.Reverse(results)
	return strings.Join(results, "\n")
}

// images describes the pictures of the newest message, or is "".
func (q *demoChatRequest) images() string {
	images := q.Messages[len(q.Messages)-1].Content.Images
	if len(images) == 0 {
		return ""
	}
	total := 0
	for _, n := range images {
		total += n
	}
	return fmt.Sprintf("**%s** (%d bytes)", demoCount(len(images), "image"), total)
}

func demoCounting(to string) string {
	n, _ := strconv.Atoi(to)
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "%d ", i)
	}
	return strings.TrimSpace(b.String())
}

func demoQuote(text string) string { return "> " + strings.ReplaceAll(text, "\n", "\n> ") }

func demoCount(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// demoTokens cuts text before each word, and long words into pieces. The pieces
// joined are the text.
func demoTokens(text string) []string {
	var tokens []string
	for text != "" {
		end := len(text)
		inWord := false
		for i, r := range text {
			if inWord && unicode.IsSpace(r) {
				end = i
				break
			}
			inWord = inWord || !unicode.IsSpace(r)
		}
		tokens = append(tokens, demoPieces(text[:end], 16)...)
		text = text[end:]
	}
	return tokens
}

// demoPieces cuts text into pieces of about size bytes, never inside a
// character.
func demoPieces(text string, size int) []string {
	var pieces []string
	for len(text) > size {
		end := size
		for end < len(text) && !utf8.RuneStart(text[end]) {
			end++
		}
		pieces = append(pieces, text[:end])
		text = text[end:]
	}
	if text != "" {
		pieces = append(pieces, text)
	}
	return pieces
}

// demoSchema is the part of JSON Schema that demoFill understands.
type demoSchema struct {
	Ref         string                 `json:"$ref"`
	Defs        map[string]*demoSchema `json:"$defs"`
	Definitions map[string]*demoSchema `json:"definitions"`
	Type        demoStrings            `json:"type"`
	Const       json.RawMessage        `json:"const"`
	Enum        []json.RawMessage      `json:"enum"`
	AnyOf       []*demoSchema          `json:"anyOf"`
	OneOf       []*demoSchema          `json:"oneOf"`
	AllOf       []*demoSchema          `json:"allOf"`
	Properties  map[string]*demoSchema `json:"properties"`
	Required    []string               `json:"required"`
	Items       *demoSchema            `json:"items"`
	MinItems    int                    `json:"minItems"`
	Minimum     *float64               `json:"minimum"`
	Maximum     *float64               `json:"maximum"`
	MinLength   int                    `json:"minLength"`
	Format      string                 `json:"format"`
}

// UnmarshalJSON also takes the schemas true and false, as "anything".
func (s *demoSchema) UnmarshalJSON(b []byte) error {
	if b[0] == 't' || b[0] == 'f' {
		return nil
	}
	type plain demoSchema
	return json.Unmarshal(b, (*plain)(s))
}

// demoFill makes a JSON value that satisfies a simple schema, with numbers and
// names out of the text where they fit. Objects get their required properties,
// or all when none is required.
func demoFill(schema *demoSchema, text string) []byte {
	if schema == nil {
		return []byte("{}")
	}
	f := &demoFiller{root: schema, text: text, left: 5000}
	return f.append(nil, "", schema, 0)
}

type demoFiller struct {
	root *demoSchema
	text string
	left int // values that may still be made; recursive schemas end here at the latest
}

func (s *demoSchema) kind() string {
	switch {
	case len(s.Type) > 0:
		return s.Type[0]
	case s.Properties != nil:
		return "object"
	case s.Items != nil:
		return "array"
	}
	return ""
}

// append adds a value for the property of that name. Deep down, recursive
// schemas are ended: the last alternative is taken, and lists stay empty.
func (f *demoFiller) append(dst []byte, name string, s *demoSchema, depth int) []byte {
	f.left--
	if s == nil || f.left < 0 || depth > 32 {
		return append(dst, "null"...)
	}
	deep := depth > 6
	for _, alternatives := range [][]*demoSchema{s.AnyOf, s.OneOf, s.AllOf} {
		if len(alternatives) > 0 && deep {
			return f.append(dst, name, alternatives[len(alternatives)-1], depth+1)
		}
		if len(alternatives) > 0 {
			return f.append(dst, name, alternatives[0], depth+1)
		}
	}
	switch {
	case s.Ref != "":
		return f.append(dst, name, f.resolve(s.Ref), depth+1)
	case s.Const != nil:
		return append(dst, s.Const...)
	case len(s.Enum) > 0:
		return append(dst, s.Enum[0]...)
	}
	switch s.kind() {
	case "object":
		return f.appendObject(dst, s, depth)
	case "array":
		return f.appendArray(dst, name, s, depth, deep)
	case "integer", "number":
		return append(dst, f.number(s)...)
	case "boolean":
		return append(dst, "true"...)
	case "null":
		return append(dst, "null"...)
	case "":
		if name == "" { // a whole schema that says nothing
			return append(dst, "{}"...)
		}
	}
	return append(dst, demoJSON(f.word(name, s))...)
}

func (f *demoFiller) resolve(ref string) *demoSchema {
	for prefix, defs := range map[string]map[string]*demoSchema{"#/$defs/": f.root.Defs, "#/definitions/": f.root.Definitions} {
		if name, ok := strings.CutPrefix(ref, prefix); ok {
			return defs[name]
		}
	}
	if ref == "#" {
		return f.root
	}
	return nil
}

func (f *demoFiller) appendObject(dst []byte, s *demoSchema, depth int) []byte {
	names := s.Required
	if len(names) == 0 {
		for name := range s.Properties {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, demoJSON(name)...), ':')
		dst = f.append(dst, name, s.Properties[name], depth+1)
	}
	return append(dst, '}')
}

func (f *demoFiller) appendArray(dst []byte, name string, s *demoSchema, depth int, short bool) []byte {
	n := min(s.MinItems, 100)
	if !short {
		n = max(n, 1)
	}
	dst = append(dst, '[')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.append(dst, name, s.Items, depth+1)
	}
	return append(dst, ']')
}

func (f *demoFiller) number(s *demoSchema) string {
	x := 1.0
	if found := demoNumber.FindString(f.text); found != "" {
		x, _ = strconv.ParseFloat(found, 64)
	}
	if s.Minimum != nil {
		x = max(x, *s.Minimum)
	}
	if s.Maximum != nil {
		x = min(x, *s.Maximum)
	}
	if s.kind() == "integer" {
		x = math.Trunc(x)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

var demoFormats = map[string]string{
	"date": "2026-01-15", "time": "10:00:00Z", "date-time": "2026-01-15T10:00:00Z",
	"email": "demo@example.com", "uri": "https://example.com/", "uuid": "123e4567-e89b-42d3-a456-426614174000",
}

// word is a string for the property: the place or person that the text names,
// else the property's own name.
func (f *demoFiller) word(name string, s *demoSchema) string {
	if sample, ok := demoFormats[s.Format]; ok {
		return sample
	}
	word := name
	if found := demoSubject.FindStringSubmatch(f.text); found != nil {
		word = found[1]
	}
	if missing := s.MinLength - utf8.RuneCountInString(word); missing > 0 && missing < 10_000 {
		word += strings.Repeat(".", missing)
	}
	return word
}
