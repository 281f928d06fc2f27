package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// The parts of a Gemini request that say how it is to be answered: tools,
// toolConfig and generationConfig (dialects B.2, B.4).

// hostedTools are tools that Google's servers run; the gateway has none.
var hostedTools = []string{
	"googleSearch", "googleSearchRetrieval", "codeExecution", "urlContext", "fileSearch", "computerUse", "googleMaps", "mcpServers",
	"enterpriseWebSearch", "retrieval",
}

// tools reads the functions of all entries of tools.
func (d *geminiDecoder) tools(b *geminiBody) error {
	if b.tools != nil && !isArray(b.tools) && !isObject(b.tools) {
		return wrongType("tools", "an array of tools", b.tools)
	}
	return eachOf(b.tools, "tools", func(raw []byte, path string) error {
		if !isObject(raw) {
			return wrongType(path, "an object", raw)
		}
		var functions []byte
		var hosted string
		readGemini(raw, func(name string) *[]byte {
			if name == "functionDeclarations" {
				return &functions
			}
			return nil
		}, func(name string) {
			d.note("tools." + name)
			if slices.Contains(hostedTools, name) {
				hosted = name
			}
		})
		if hosted != "" && d.x.quirk("hosted_tools") == "error" {
			return invalid(path+"."+hosted, "this gateway has no hosted tools; send functionDeclarations")
		}
		return eachOf(functions, path+".functionDeclarations", d.declaration)
	})
}

// eachOf walks an array, or the single element that stands for one.
func eachOf(raw []byte, path string, do func(raw []byte, path string) error) error {
	switch {
	case raw == nil:
		return nil
	case isObject(raw):
		return do(raw, path)
	case !isArray(raw):
		return wrongType(path, "an array", raw)
	}
	i := 0
	for v := range elements(raw) {
		if err := do(v, elementPath(path, i)); err != nil {
			return err
		}
		i++
	}
	return nil
}

// geminiDeclaration is a FunctionDeclaration.
type geminiDeclaration struct{ name, description, parameters, jsonSchema, silent []byte }

func (f *geminiDeclaration) field(name string) *[]byte {
	switch name {
	case "name":
		return &f.name
	case "description":
		return &f.description
	case "parameters":
		return &f.parameters
	case "parametersJsonSchema":
		return &f.jsonSchema
	case "response", "responseJsonSchema", "behavior":
		return &f.silent
	}
	return nil
}

// declaration reads a function that the model may call.
func (d *geminiDecoder) declaration(raw []byte, path string) error {
	if !isObject(raw) {
		return wrongType(path, "an object", raw)
	}
	var f geminiDeclaration
	readGemini(raw, f.field, d.notes("functionDeclarations"))
	name, err := geminiText(f.name, path+".name")
	if err != nil {
		return err
	}
	if name == "" {
		return invalid(path+".name", "must name the function")
	}
	description, err := geminiText(f.description, path+".description")
	if err != nil {
		return err
	}
	t := chatTool{Type: "function", Function: chatFunction{Name: d.x.safeToolName(name), Description: description}}
	switch {
	case f.jsonSchema != nil:
		if !isObject(f.jsonSchema) {
			return wrongType(path+".parametersJsonSchema", "an object", f.jsonSchema)
		}
		t.Function.Parameters = f.jsonSchema
	case f.parameters != nil:
		if !isObject(f.parameters) {
			return wrongType(path+".parameters", "an object", f.parameters)
		}
		t.Function.Parameters = jsonSchemaOf(f.parameters)
	default:
		t.Function.Parameters = json.RawMessage(`{"type":"object","properties":{}}`)
	}
	d.q.Tools = append(d.q.Tools, t)
	return nil
}

// toolConfig decides which functions the model may or must call. Without any,
// nothing is said: upstreams refuse tool_choice alone.
func (d *geminiDecoder) toolConfig(b *geminiBody) error {
	if b.toolConfig == nil {
		return nil
	}
	if !isObject(b.toolConfig) {
		return wrongType("toolConfig", "an object", b.toolConfig)
	}
	var calling, silent []byte
	readGemini(b.toolConfig, func(name string) *[]byte {
		switch name {
		case "functionCallingConfig":
			return &calling
		case "retrievalConfig", "includeServerSideToolInvocations":
			return &silent
		}
		return nil
	}, d.notes("toolConfig"))
	const path = "toolConfig.functionCallingConfig"
	if calling == nil {
		return nil
	}
	if !isObject(calling) {
		return wrongType(path, "an object", calling)
	}
	var rawMode, rawNames []byte
	readGemini(calling, func(name string) *[]byte {
		switch name {
		case "mode":
			return &rawMode
		case "allowedFunctionNames":
			return &rawNames
		}
		return nil
	}, d.notes("functionCallingConfig"))
	mode, err := geminiText(rawMode, path+".mode")
	if err != nil {
		return err
	}
	var names []string
	err = eachString(rawNames, path+".allowedFunctionNames", func(name string) {
		names = append(names, d.x.safeToolName(name))
	})
	if err != nil || len(d.q.Tools) == 0 {
		return err
	}
	return d.chooseTool(strings.ToUpper(mode), names)
}

func (d *geminiDecoder) chooseTool(mode string, names []string) error {
	const path = "toolConfig.functionCallingConfig"
	switch mode {
	case "NONE":
		d.q.ToolChoice = json.RawMessage(`"none"`)
		return nil
	case "ANY":
		if len(names) == 1 {
			d.q.ToolChoice = functionChoice(names[0])
			return nil
		}
		d.q.ToolChoice = json.RawMessage(`"required"`)
	case "", "AUTO", "MODE_UNSPECIFIED", "VALIDATED":
	default:
		return invalid(path+".mode", strconv.Quote(shortened(mode, 32))+" is no mode; it must be AUTO, ANY, NONE or VALIDATED")
	}
	if len(names) == 0 {
		return nil
	}
	d.q.Tools = slices.DeleteFunc(d.q.Tools, func(t chatTool) bool { return !slices.Contains(names, t.Function.Name) })
	if len(d.q.Tools) == 0 {
		return invalid(path+".allowedFunctionNames", "names none of the functions that tools declares")
	}
	return nil
}

// eachString walks an array of strings.
func eachString(raw []byte, path string, do func(s string)) error {
	if raw != nil && !isArray(raw) {
		return wrongType(path, "an array of strings", raw)
	}
	i := 0
	for v := range elements(raw) {
		if !isString(v) {
			return wrongType(elementPath(path, i), "a string", v)
		}
		do(text(v))
		i++
	}
	return nil
}

// geminiGeneration is a GenerationConfig.
type geminiGeneration struct {
	temperature, topP, seed, presencePenalty, frequencyPenalty  []byte
	topK, candidateCount, maxOutputTokens                       []byte
	stopSequences, responseLogprobs, logprobs, modalities       []byte
	mimeType, schema, jsonSchema, oldJSONSchema, responseFormat []byte
	thinking, thinkingLevel                                     []byte
}

func (g *geminiGeneration) field(name string) *[]byte {
	switch name {
	case "temperature":
		return &g.temperature
	case "topP":
		return &g.topP
	case "seed":
		return &g.seed
	case "presencePenalty":
		return &g.presencePenalty
	case "frequencyPenalty":
		return &g.frequencyPenalty
	case "topK":
		return &g.topK
	case "candidateCount":
		return &g.candidateCount
	case "maxOutputTokens":
		return &g.maxOutputTokens
	case "stopSequences":
		return &g.stopSequences
	case "responseLogprobs":
		return &g.responseLogprobs
	case "logprobs":
		return &g.logprobs
	case "responseModalities":
		return &g.modalities
	case "responseMimeType":
		return &g.mimeType
	case "responseSchema":
		return &g.schema
	case "responseJsonSchema":
		return &g.jsonSchema
	case "_responseJsonSchema":
		return &g.oldJSONSchema
	case "responseFormat":
		return &g.responseFormat
	case "thinkingConfig":
		return &g.thinking
	case "thinkingLevel": // where Gemini's Interactions have it
		return &g.thinkingLevel
	}
	return nil
}

// generation reads generationConfig.
func (d *geminiDecoder) generation(b *geminiBody) error {
	if b.generationConfig == nil {
		return nil
	}
	if !isObject(b.generationConfig) {
		return wrongType("generationConfig", "an object", b.generationConfig)
	}
	var g geminiGeneration
	readGemini(b.generationConfig, g.field, d.notes("generationConfig"))
	for _, step := range []func(*geminiGeneration) error{d.sampling, d.limits, d.logprobs, d.modalities, d.format, d.thinking} {
		if err := step(&g); err != nil {
			return err
		}
	}
	return nil
}

func (d *geminiDecoder) sampling(g *geminiGeneration) error {
	for _, f := range []struct {
		name string
		from []byte
		to   *json.RawMessage
	}{
		{"temperature", g.temperature, &d.q.Temperature}, {"topP", g.topP, &d.q.TopP}, {"seed", g.seed, &d.q.Seed},
		{"presencePenalty", g.presencePenalty, &d.q.PresencePenalty}, {"frequencyPenalty", g.frequencyPenalty, &d.q.FrequencyPenalty},
	} {
		if f.from != nil && !isNumber(f.from) {
			return wrongType("generationConfig."+f.name, "a number", f.from)
		}
		if f.from != nil {
			*f.to = f.from
		}
	}
	return nil
}

func (d *geminiDecoder) limits(g *geminiGeneration) error {
	topK, err := geminiInteger(g.topK, "generationConfig.topK")
	if err != nil {
		return err
	}
	d.q.TopK = topK
	n, err := geminiInteger(g.candidateCount, "generationConfig.candidateCount")
	if err != nil {
		return err
	}
	if intOf(n) > 1 {
		d.q.N = n
	}
	most, err := geminiInteger(g.maxOutputTokens, "generationConfig.maxOutputTokens")
	if err != nil {
		return err
	}
	d.q.setMaxTokens(most, d.x.quirk("max_tokens_field"))
	stops := 0
	err = eachString(g.stopSequences, "generationConfig.stopSequences", func(string) { stops++ })
	if stops > 0 {
		d.q.Stop = g.stopSequences
	}
	return err
}

// geminiInteger is an integer field in integer form: 40.0 is 40.
func geminiInteger(raw []byte, path string) (json.RawMessage, error) {
	if raw == nil {
		return nil, nil
	}
	if !isNumber(raw) {
		return nil, wrongType(path, "an integer", raw)
	}
	if !bytes.ContainsAny(raw, ".eE") {
		return raw, nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if n := int64(f); err == nil && f == float64(n) && n > -1<<53 && n < 1<<53 {
		return number(n), nil
	}
	return nil, invalid(path, shortened(string(raw), 32)+" is no integer")
}

func (d *geminiDecoder) logprobs(g *geminiGeneration) error {
	asked, err := geminiBool(g.responseLogprobs, "generationConfig.responseLogprobs")
	if err != nil {
		return err
	}
	n, err := geminiInteger(g.logprobs, "generationConfig.logprobs")
	if asked && err == nil {
		d.q.Logprobs, d.q.TopLogprobs = json.RawMessage("true"), n
	}
	return err
}

// modalities refuses answers that are no text: upstreams have no field for them
// in chat, and an answer in the wrong form would be worse than none.
func (d *geminiDecoder) modalities(g *geminiGeneration) error {
	const path = "generationConfig.responseModalities"
	refused := ""
	err := eachString(g.modalities, path, func(s string) {
		switch strings.ToUpper(s) {
		case "TEXT", "MODALITY_UNSPECIFIED", "":
		default:
			refused = s
		}
	})
	if refused != "" {
		return invalid(path, strconv.Quote(shortened(refused, 32))+" can't be answered; only TEXT can")
	}
	return err
}

// format reads the form that the answer is to have. Of several schemas the
// one in JSON Schema counts.
func (d *geminiDecoder) format(g *geminiGeneration) error {
	const path = "generationConfig."
	formatMime, formatSchema, err := d.formatText(g)
	if err != nil {
		return err
	}
	mime, err := geminiText(g.mimeType, path+"responseMimeType")
	if err != nil {
		return err
	}
	if mime == "" {
		mime = formatMime
	}
	mime, _, _ = strings.Cut(strings.ToLower(mime), ";")
	var schema json.RawMessage
	for _, s := range []struct {
		name string
		raw  []byte
	}{
		{"responseJsonSchema", g.jsonSchema}, {"_responseJsonSchema", g.oldJSONSchema},
		{"responseFormat.text.schema", formatSchema}, {"responseSchema", g.schema},
	} {
		switch {
		case s.raw == nil || schema != nil:
			continue
		case !isObject(s.raw):
			return wrongType(path+s.name, "an object", s.raw)
		}
		if schema = s.raw; s.name == "responseSchema" {
			schema = jsonSchemaOf(s.raw)
		}
	}
	d.setFormat(strings.TrimSpace(mime), schema)
	return nil
}

func (d *geminiDecoder) setFormat(mime string, schema json.RawMessage) {
	switch mime {
	case "application/json", "text/json", "":
	case "text/x.enum":
		d.g.Enum = schema != nil
	case "text/plain":
		if schema != nil {
			d.note("generationConfig.responseSchema")
		}
		return
	default:
		d.note("generationConfig.responseMimeType")
		return
	}
	switch {
	case schema != nil:
		d.q.ResponseFormat = &responseFormat{Type: "json_schema", JSONSchema: &jsonSchema{Name: "response", Schema: schema}}
	case strings.HasSuffix(mime, "json"):
		d.q.ResponseFormat = &responseFormat{Type: "json_object"}
	}
}

// formatText reads the newer responseFormat, of which the text part counts.
func (d *geminiDecoder) formatText(g *geminiGeneration) (mime string, schema []byte, err error) {
	const path = "generationConfig.responseFormat"
	if g.responseFormat == nil {
		return "", nil, nil
	}
	if !isObject(g.responseFormat) {
		return "", nil, wrongType(path, "an object", g.responseFormat)
	}
	var inner, rawMime []byte
	readGemini(g.responseFormat, func(name string) *[]byte {
		if name == "text" {
			return &inner
		}
		return nil
	}, d.notes("responseFormat"))
	if inner != nil && !isObject(inner) {
		return "", nil, wrongType(path+".text", "an object", inner)
	}
	readGemini(inner, func(name string) *[]byte {
		switch name {
		case "mimeType":
			return &rawMime
		case "schema":
			return &schema
		}
		return nil
	}, d.notes("responseFormat.text"))
	mime, err = geminiText(rawMime, path+".text.mimeType")
	return geminiMime(mime), schema, err
}

// geminiMime is a media type for what responseFormat may have as an enum's name.
func geminiMime(name string) string {
	switch name {
	case "APPLICATION_JSON":
		return "application/json"
	case "TEXT_PLAIN":
		return "text/plain"
	case "MIME_TYPE_UNSPECIFIED":
		return ""
	}
	return name
}

// thinking reads how hard the model should think, and whether the client wants
// to see it.
func (d *geminiDecoder) thinking(g *geminiGeneration) error {
	const path = "generationConfig.thinkingConfig"
	if g.thinking == nil {
		return d.effort(g.thinkingLevel, nil, "generationConfig")
	}
	if !isObject(g.thinking) {
		return wrongType(path, "an object", g.thinking)
	}
	var include, rawBudget, rawLevel []byte
	readGemini(g.thinking, func(name string) *[]byte {
		switch name {
		case "includeThoughts":
			return &include
		case "thinkingBudget":
			return &rawBudget
		case "thinkingLevel":
			return &rawLevel
		}
		return nil
	}, d.notes("thinkingConfig"))
	var err error
	if d.g.IncludeThoughts, err = geminiBool(include, path+".includeThoughts"); err != nil {
		return err
	}
	budget, err := geminiInteger(rawBudget, path+".thinkingBudget")
	if err != nil {
		return err
	}
	return d.effort(rawLevel, budget, path)
}

// effort takes a level of thinking, or else a budget for it.
func (d *geminiDecoder) effort(rawLevel, budget []byte, path string) error {
	level, err := geminiText(rawLevel, path+".thinkingLevel")
	if err != nil {
		return err
	}
	switch level = strings.ToLower(level); level {
	case "", "thinking_level_unspecified":
		d.q.ReasoningEffort = orElse(geminiEffort(budget), d.q.ReasoningEffort)
	case "minimal", "low", "medium", "high":
		d.q.ReasoningEffort = level
	default:
		return invalid(path+".thinkingLevel", strconv.Quote(shortened(level, 32))+" is no level; it must be MINIMAL, LOW, MEDIUM or HIGH")
	}
	return nil
}

// geminiEffort is the reasoning effort for a budget of tokens; "" leaves it to the
// model.
func geminiEffort(budget []byte) string {
	n := intOf(budget)
	switch {
	case budget == nil || budget[0] == '-':
		return ""
	case n == 0:
		return "none"
	case n <= 2048:
		return "low"
	case n <= 16384:
		return "medium"
	}
	return "high"
}
