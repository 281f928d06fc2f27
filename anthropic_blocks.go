package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// This file converts Anthropic's messages and their content blocks (dialects
// C.3).

type anthropicMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"` // a string, or blocks
}

// anthropicBlock is a content block of any type.
type anthropicBlock struct {
	Type         string          `json:"type"`
	Text         string          `json:"text"`
	CacheControl json.RawMessage `json:"cache_control"`

	Source  json.RawMessage `json:"source"` // image, document: an object; search_result: a string
	Title   string          `json:"title"`
	Context string          `json:"context"`
	Content json.RawMessage `json:"content"` // tool_result, search_result and server tools' results

	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	IsError   bool            `json:"is_error"`
	ToolName  string          `json:"tool_name"` // tool_reference

	Thinking  string `json:"thinking"`
	Signature string `json:"signature"`

	raw  json.RawMessage
	path string // in the body
}

type anthropicSource struct {
	Type      string          `json:"type"`
	MediaType string          `json:"media_type"`
	Data      string          `json:"data"`
	URL       string          `json:"url"`
	FileID    string          `json:"file_id"`
	Content   json.RawMessage `json:"content"`
}

// message converts one message, which may become several.
func (d *anthropicDecoder) message(path string, raw json.RawMessage, q *chatRequest) error {
	if d.mixed && isChatMessage(raw) {
		q.Messages = append(q.Messages, chatMessage{Raw: raw})
		return nil
	}
	var m anthropicMessage
	if err := unmarshalAt(path, raw, &m); err != nil {
		return err
	}
	switch m.Role {
	case "system":
		content, err := d.systemText(path+".content", m.Content)
		if err == nil {
			d.addLaterSystem(q, content)
		}
		return err
	case "user", "assistant":
	default:
		return invalid(path+".role", fmt.Sprintf("%q is unknown; accepted: user, assistant, system", m.Role))
	}
	if m.Role == "assistant" && isNull(m.Content) {
		return nil
	}
	blocks, err := d.blocks(path+".content", m.Content)
	if err != nil {
		return err
	}
	if m.Role == "assistant" {
		return d.assistant(blocks, q)
	}
	return d.user(blocks, q)
}

// isChatMessage says whether a message is in OpenAI's form alone.
func isChatMessage(m []byte) bool {
	switch text(member(m, "role")) {
	case "tool", "function", "developer":
		return true
	}
	return !isNull(member(m, "tool_calls")) || !isNull(member(m, "function_call"))
}

// blocks reads content, which may be a string for one text block.
func (d *anthropicDecoder) blocks(path string, content json.RawMessage) ([]anthropicBlock, error) {
	if isString(content) {
		return []anthropicBlock{{Type: "text", Text: text(content), path: path}}, nil
	}
	if !isArray(content) {
		return nil, invalid(path, "must be a string or an array of content blocks")
	}
	var list []anthropicBlock
	for raw := range elements(content) {
		b, err := d.block(path+"["+strconv.Itoa(len(list))+"]", raw)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func (d *anthropicDecoder) block(path string, raw json.RawMessage) (anthropicBlock, error) {
	b := anthropicBlock{raw: raw, path: path}
	if d.mixed && isChatPart(raw) {
		return b, nil
	}
	if err := unmarshalAt(path, raw, &b); err != nil {
		return b, err
	}
	if b.Type == "" {
		return b, invalid(path+".type", "must be the type of a content block, such as text")
	}
	if !d.passCache || isNull(b.CacheControl) {
		b.CacheControl = nil
	}
	return b, nil
}

// isChatPart says whether a part of content is none of Anthropic's blocks.
func isChatPart(raw []byte) bool {
	switch t := text(member(raw, "type")); t {
	case "text", "tool_use", "tool_result", "server_tool_use", "mcp_tool_use", "redacted_thinking", "search_result", "container_upload":
		return false
	case "image", "document":
		return !isObject(member(raw, "source"))
	case "thinking":
		return !isString(member(raw, "thinking"))
	default:
		return !strings.HasSuffix(t, "_tool_result")
	}
}

// billingLine begins a line that some clients put first into their system
// prompt. It differs on each request, which would void every prompt cache.
const billingLine = "x-anthropic-billing-header:"

// systemText converts a system prompt: a string, or text blocks (dialects C-10,
// C-11).
func (d *anthropicDecoder) systemText(path string, raw json.RawMessage) (chatContent, error) {
	blocks, err := d.blocks(path, raw)
	if err != nil {
		return chatContent{}, err
	}
	var parts []chatPart
	for i := range blocks {
		b := &blocks[i]
		switch {
		case b.Type == "":
			parts = append(parts, chatPart{Raw: b.raw})
			continue
		case b.isToolChange():
			d.toolChange(b)
			continue
		case b.Type != "text":
			return chatContent{}, invalid(b.path+".type", fmt.Sprintf("%q can't be in a system prompt; accepted: text", b.Type))
		}
		if strings.HasPrefix(b.Text, billingLine) {
			_, b.Text, _ = strings.Cut(b.Text, "\n")
		}
		parts = append(parts, b.textPart())
	}
	return joinParts(parts), nil
}

func (b *anthropicBlock) textPart() chatPart {
	p := partText(b.Text)
	p.CacheControl = b.CacheControl
	return p
}

func isEmpty(c chatContent) bool { return c.Parts == nil && c.Text == "" }

func addSystem(q *chatRequest, c chatContent) {
	if !isEmpty(c) {
		q.Messages = append(q.Messages, chatMessage{Role: "system", Content: c})
	}
}

// addLaterSystem puts a system message where it stands, since moving it would
// change what upstreams have cached (dialects C-12).
func (d *anthropicDecoder) addLaterSystem(q *chatRequest, c chatContent) {
	if len(q.Messages) > 0 && c.Parts == nil && c.Text != "" && d.x.quirk("single_system") == "on" {
		q.Messages = append(q.Messages, chatMessage{Role: "user", Content: textContent("<system>" + c.Text + "</system>")})
		return
	}
	addSystem(q, c)
}

// user converts a user message: its tool results first, since nothing may stand
// between calls and their results, then one message with all else.
func (d *anthropicDecoder) user(blocks []anthropicBlock, q *chatRequest) error {
	var media, rest []chatPart
	results := false
	for i := range blocks {
		b := &blocks[i]
		switch {
		case b.Type == "tool_result":
			results = true
			m, lifted, err := d.toolResult(b)
			if err != nil {
				return err
			}
			addResult(q, m)
			media = append(media, lifted...)
		case b.Type == "container_upload", b.isServerTool():
			d.x.drop(b.Type)
		case b.isToolChange():
			d.toolChange(b)
		default:
			parts, err := d.parts(b)
			if err != nil {
				return err
			}
			rest = append(rest, parts...)
		}
	}
	content := joinParts(append(media, rest...))
	if !results || !isEmpty(content) {
		q.Messages = append(q.Messages, chatMessage{Role: "user", Content: content})
	}
	return nil
}

// addResult puts a tool's result behind its call and the other results of that
// message, even if the client has sent something in between: upstreams refuse a
// call that is not answered at once.
func addResult(q *chatRequest, m chatMessage) {
	at := len(q.Messages)
	for i := at - 1; i >= 0; i-- {
		called := q.Messages[i].ToolCalls
		if q.Messages[i].Role != "assistant" {
			continue
		}
		if slices.ContainsFunc(called, func(c chatToolCall) bool { return c.ID == m.ToolCallID }) {
			for at = i + 1; at < len(q.Messages) && q.Messages[at].Role == "tool"; at++ {
			}
		}
		break
	}
	q.Messages = slices.Insert(q.Messages, at, m)
}

// isToolChange says whether a block offers or withdraws a tool in the middle of
// the conversation.
func (b *anthropicBlock) isToolChange() bool {
	return b.Type == "tool_addition" || b.Type == "tool_removal"
}

// toolChange notes that chat offers the same tools from beginning to end. One
// that is only defined here is offered with the others.
func (d *anthropicDecoder) toolChange(b *anthropicBlock) {
	definition := member(member(b.raw, "tool"), "definition")
	if b.Type == "tool_addition" && isObject(definition) {
		d.added = append(d.added, addedTool{b.path + ".tool.definition", definition})
		return
	}
	d.x.drop(b.Type)
}

// addedTool is a tool that is defined among the messages.
type addedTool struct {
	path string
	raw  json.RawMessage
}

// isServerTool says whether a block is a call, or the result of one, that the
// server executed.
func (b *anthropicBlock) isServerTool() bool {
	return b.Type == "server_tool_use" || b.Type == "mcp_tool_use" || strings.HasSuffix(b.Type, "_tool_result")
}

// parts converts a block of a user message or of a tool's result.
func (d *anthropicDecoder) parts(b *anthropicBlock) ([]chatPart, error) {
	switch b.Type {
	case "":
		return []chatPart{{Raw: b.raw}}, nil
	case "text":
		return []chatPart{b.textPart()}, nil
	case "image":
		return d.image(b)
	case "document":
		return d.document(b)
	case "search_result":
		return d.searchResult(b)
	}
	return nil, invalid(b.path+".type", fmt.Sprintf("%q can't be here; accepted: text, image, document, search_result, tool_result", b.Type))
}

func (b *anthropicBlock) source() (anthropicSource, error) {
	var s anthropicSource
	if !isObject(b.Source) {
		return s, invalid(b.path+".source", "must be an object")
	}
	return s, unmarshalAt(b.path+".source", b.Source, &s)
}

func (d *anthropicDecoder) image(b *anthropicBlock) ([]chatPart, error) {
	s, err := b.source()
	if err != nil {
		return nil, err
	}
	switch s.Type {
	case "base64":
		if s.MediaType == "" || s.Data == "" {
			return nil, invalid(b.path+".source", "must have media_type, such as image/png, and data")
		}
		return []chatPart{partImage(dataURL(s.MediaType, s.Data), "")}, nil
	case "url":
		if s.URL == "" {
			return nil, invalid(b.path+".source.url", "must be the image's address")
		}
		return []chatPart{partImage(s.URL, "")}, nil
	case "file":
		return d.file(b, &s)
	}
	return nil, invalid(b.path+".source.type", fmt.Sprintf("%q is unknown; accepted: base64, url", s.Type))
}

func dataURL(mediaType, data string) string { return "data:" + mediaType + ";base64," + data }

// file refers to a file that was uploaded; only some upstreams hold such
// (dialects C-33).
func (d *anthropicDecoder) file(b *anthropicBlock, s *anthropicSource) ([]chatPart, error) {
	if !d.files {
		return nil, invalid(b.path+".source.type", `"file" can't be sent, since files are not uploaded to this upstream; send the content itself, as base64`)
	}
	return []chatPart{{Type: "file", File: &chatFile{FileID: s.FileID}}}, nil
}

func (d *anthropicDecoder) document(b *anthropicBlock) ([]chatPart, error) {
	s, err := b.source()
	if err != nil {
		return nil, err
	}
	const pdf = "application/pdf"
	name := b.Title
	if name == "" {
		name = "document.pdf"
	}
	switch s.Type {
	case "base64":
		if s.Data == "" || s.MediaType != "" && s.MediaType != pdf {
			return nil, invalid(b.path+".source", "must have data of media_type "+pdf+"; send plain text with type text")
		}
		return append(b.lines(b.Context), partFile(name, dataURL(pdf, s.Data))), nil
	case "text":
		return b.lines(b.Title, b.Context, s.Data), nil
	case "content":
		inner, err := d.inlined(b.path+".source.content", s.Content)
		return append(b.lines(b.Title, b.Context), inner...), err
	case "file":
		return d.file(b, &s)
	case "url":
		if !d.files {
			return nil, invalid(b.path+".source.type", `"url" can't be sent, since this upstream loads no documents; send the content itself, as base64`)
		}
		return append(b.lines(b.Context), partFile(name, s.URL)), nil
	}
	return nil, invalid(b.path+".source.type", fmt.Sprintf("%q is unknown; accepted: base64, text, content", s.Type))
}

// inlined are the blocks of a document that is given as content.
func (d *anthropicDecoder) inlined(path string, content json.RawMessage) ([]chatPart, error) {
	blocks, err := d.blocks(path, content)
	if err != nil {
		return nil, err
	}
	var all []chatPart
	for i := range blocks {
		b := &blocks[i]
		if b.Type != "text" && b.Type != "image" {
			return nil, invalid(b.path+".type", fmt.Sprintf("%q can't be in a document; accepted: text, image", b.Type))
		}
		parts, err := d.parts(b)
		if err != nil {
			return nil, err
		}
		all = append(all, parts...)
	}
	return all, nil
}

func (d *anthropicDecoder) searchResult(b *anthropicBlock) ([]chatPart, error) {
	lines := []string{b.Title, text(b.Source)}
	if !isNull(b.Content) {
		blocks, err := d.blocks(b.path+".content", b.Content)
		if err != nil {
			return nil, err
		}
		for i := range blocks {
			lines = append(lines, blocks[i].Text)
		}
	}
	return b.lines(lines...), nil
}

// lines is one text part with those lines that are not empty.
func (b *anthropicBlock) lines(lines ...string) []chatPart {
	joined := joinLines(lines...)
	if joined == "" {
		return nil
	}
	p := partText(joined)
	p.CacheControl = b.CacheControl
	return []chatPart{p}
}

func joinLines(lines ...string) string {
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" }), "\n")
}

// toolResult converts a tool's result. A tool message takes text alone, so media
// are lifted out of it, for the user message after it (dialects C-39 to C-44).
func (d *anthropicDecoder) toolResult(b *anthropicBlock) (m chatMessage, media []chatPart, err error) {
	if b.ToolUseID == "" {
		return m, nil, invalid(b.path+".tool_use_id", "must be the id of the tool_use block that this is the result of")
	}
	var inner []anthropicBlock
	if !isNull(b.Content) {
		if inner, err = d.blocks(b.path+".content", b.Content); err != nil {
			return m, nil, err
		}
	}
	var texts, places []chatPart
	for i := range inner {
		parts, err := d.resultParts(&inner[i])
		if err != nil {
			return m, nil, err
		}
		for _, p := range parts {
			if p.Raw == nil && p.Type == "text" {
				texts = append(texts, p)
				continue
			}
			media = append(media, partText("Attachment of tool call "+b.ToolUseID+":"), p)
			places = append(places, partText("["+inner[i].kind()+"]"))
		}
	}
	content := joinParts(texts)
	if isEmpty(content) {
		content = joinParts(places)
	}
	if b.IsError {
		content.markError()
	}
	return chatMessage{Role: "tool", ToolCallID: b.ToolUseID, Content: content}, media, nil
}

func (d *anthropicDecoder) resultParts(b *anthropicBlock) ([]chatPart, error) {
	switch b.Type {
	case "", "text", "image", "document", "search_result":
		return d.parts(b)
	case "tool_reference":
		return []chatPart{partText("tool: " + b.ToolName)}, nil
	}
	return []chatPart{partText(string(compact(b.raw)))}, nil
}

// kind is what a tool message calls a medium that was lifted out of it.
func (b *anthropicBlock) kind() string {
	if b.Type == "document" {
		return "document"
	}
	return "image"
}

// markError says in words what chat has no flag for: that the tool failed.
func (c *chatContent) markError() {
	first := &c.Text
	if c.Parts != nil {
		first = c.Parts[0].Text
	}
	if !strings.HasPrefix(*first, "Error") && !strings.HasPrefix(*first, "<error") {
		*first = "Error: " + *first
	}
}

// assistant converts an assistant message, to one message whatever the order of
// text and calls was (dialects C-50 to C-57).
func (d *anthropicDecoder) assistant(blocks []anthropicBlock, q *chatRequest) error {
	m := chatMessage{Role: "assistant"}
	var parts []chatPart
	var thoughts []reasoning
	for i := range blocks {
		b := &blocks[i]
		switch {
		case b.Type == "text":
			if b.Text != "" {
				parts = append(parts, b.textPart())
			}
		case b.Type == "":
			parts = append(parts, chatPart{Raw: b.raw})
		case b.Type == "tool_use":
			call, err := d.call(b)
			if err != nil {
				return err
			}
			m.ToolCalls = append(m.ToolCalls, call)
		case b.Type == "thinking":
			if r, ok := unstamp(b.Signature, b.Thinking); ok { // other vendors' thoughts mean nothing to the upstream
				thoughts = append(thoughts, r)
			}
		case b.Type == "redacted_thinking":
		case b.isServerTool():
			parts = append(parts, b.serverTool(parts))
		case b.Type == "compaction": // stands for the messages before it, which the client may have left out
			if summary := text(b.Content); summary != "" {
				parts = append(parts, partText(summary+"\n"))
			}
		case b.Type == "tool_result":
			return invalid(b.path+".type", `"tool_result" can't be in an assistant message; it belongs into the user message after it`)
		default:
			d.x.drop(b.Type)
		}
	}
	m.Content = replyContent(parts)
	if m.Content.Null && len(m.ToolCalls) == 0 {
		return nil
	}
	joinThoughts(thoughts).putBack(&m)
	q.Messages = append(q.Messages, m)
	return nil
}

// call converts a tool_use block.
func (d *anthropicDecoder) call(b *anthropicBlock) (chatToolCall, error) {
	switch {
	case b.ID == "":
		return chatToolCall{}, invalid(b.path+".id", "must be the call's id")
	case b.Name == "":
		return chatToolCall{}, invalid(b.path+".name", "must be the tool's name")
	}
	arguments := "{}"
	if !isNull(b.Input) {
		arguments = string(compact(b.Input))
	}
	return functionCall(b.ID, d.x.safeToolName(b.Name), arguments), nil
}

// joinThoughts is the reasoning of several thinking blocks as one. Text adds up;
// a list of details is whole in the last of them.
func joinThoughts(list []reasoning) reasoning {
	if len(list) == 0 {
		return reasoning{}
	}
	last := list[len(list)-1]
	if last.Field == reasoningList {
		return last
	}
	var joined strings.Builder
	for _, r := range list {
		if r.Field == last.Field {
			joined.WriteString(r.Text)
		}
	}
	last.Text = joined.String()
	return last
}

// replyContent is an assistant's content: its texts as one, null without any.
func replyContent(parts []chatPart) chatContent {
	var joined strings.Builder
	for _, p := range parts {
		if p.Raw != nil || p.CacheControl != nil {
			return chatContent{Parts: parts}
		}
		joined.WriteString(*p.Text)
	}
	return chatContent{Text: joined.String(), Null: joined.Len() == 0}
}

// serverTool tells in words what the server's tool was asked, or answered. As a
// tool call it would want an answer from the client (dialects C-54). It gets
// lines of its own among the texts before and after it.
func (b *anthropicBlock) serverTool(before []chatPart) chatPart {
	said := ""
	if strings.HasSuffix(b.Type, "_tool_result") {
		said = resultText(b.Content, resultDepth)
	} else {
		input := []byte("{}")
		if !isNull(b.Input) {
			input = compact(b.Input)
		}
		said = "[" + b.Name + "] " + string(input)
	}
	if n := len(before); n > 0 && before[n-1].Text != nil && !strings.HasSuffix(*before[n-1].Text, "\n") {
		said = "\n" + said
	}
	return partText(said + "\n")
}

// resultDepth is how deep the text of a server tool's result is looked for; what
// is nested deeper is given as JSON.
const resultDepth = 4

// resultText is what there is to read in the result of a server's tool.
func resultText(v []byte, depth int) string {
	var lines []string
	switch {
	case isNull(v):
		return ""
	case isString(v):
		return text(v)
	case isArray(v) && depth > 0:
		for e := range elements(v) {
			lines = append(lines, resultText(e, depth-1))
		}
		return joinLines(lines...)
	case isObject(v) && depth > 0:
		for _, key := range []string{"title", "url", "text", "stdout", "stderr", "error_code"} {
			lines = append(lines, text(member(v, key)))
		}
		if said := joinLines(append(lines, resultText(member(v, "content"), depth-1))...); said != "" {
			return said
		}
	}
	return string(compact(v))
}
