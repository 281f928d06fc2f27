package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The checks of the upstream.

func passed(format string, args ...any) finding {
	return finding{Status: markOK, Found: fmt.Sprintf(format, args...)}
}

func skipped(why string) finding { return finding{Status: markSkip, Found: why} }

func warned(found, advice string) finding {
	return finding{Status: markWarn, Found: found, Advice: advice}
}

func failed(found, advice string) finding {
	return finding{Status: markFail, Found: found, Advice: advice}
}

// notWell is a probe of something that clients can do without.
func notWell(t *trouble) finding { return warned(t.found, t.advice) }

// Why a check is left out.
const (
	noConnection = "not asked: there is no connection"
	noChat       = "not asked: chat does not work"
)

// checkNetwork asks for the model list, and looks at the way there.
func (d *doctor) checkNetwork(ctx context.Context) finding {
	to := d.s.upstream.url("/models", "")
	req := &http.Request{URL: to}
	if proxy, err := d.s.upstream.transport.Proxy(req); err == nil && proxy != nil {
		d.trace.proxy = proxy.Host
	}
	d.list = d.send(d.trace.context(ctx), http.MethodGet, to, &openai, nil)
	t := &d.trace
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.address == "" {
		why := explainNetwork(d.list.err, d.s.cfg.BaseURL, d.patience)
		return failed(why.found, why.advice)
	}
	way := t.address
	if t.proxy != "" {
		way = "through the proxy " + t.proxy
	}
	if t.dns > 0 {
		return passed("%s, name found in %s, connected in %s", way, roughly(t.dns), roughly(t.connect))
	}
	return passed("%s, connected in %s", way, roughly(t.connect))
}

// roughly is a duration as people say it.
func roughly(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// connected says whether requests can be sent.
func (d *doctor) connected() bool {
	d.trace.mu.Lock()
	defer d.trace.mu.Unlock()
	return d.trace.address != "" && (d.trace.state != nil || d.s.cfg.BaseURL.Scheme == "http")
}

// soonExpired is the time before its end from which a certificate should have
// been renewed.
const soonExpired = 14 * 24 * time.Hour

func (d *doctor) checkTLS(context.Context) finding {
	d.trace.mu.Lock()
	reached, state, took := d.trace.address != "", d.trace.state, d.trace.tls
	d.trace.mu.Unlock()
	if !reached {
		return skipped(noConnection)
	}
	if d.s.cfg.BaseURL.Scheme != "https" {
		if d.sentKey() == "" || isNear(d.s.cfg.BaseURL.Hostname()) {
			return skipped("plain http")
		}
		return warned("plain http: key and prompts travel where others can read them", "use https:// in A4F_BASE_URL, if the upstream has it")
	}
	if state == nil {
		why := explainNetwork(d.list.err, d.s.cfg.BaseURL, d.patience)
		return failed(why.found, why.advice)
	}
	end := state.PeerCertificates[0].NotAfter
	left := time.Until(end)
	found := fmt.Sprintf("%s in %s, certificate valid until %s (%d days)", tls.VersionName(state.Version), roughly(took), end.Format(time.DateOnly), int(left.Hours()/24))
	if left < soonExpired {
		return warned(found, "have the upstream's certificate renewed: from that day on, every request fails")
	}
	return passed("%s", found)
}

// sentKey is the key that goes upstream.
func (d *doctor) sentKey() secret {
	if d.s.cfg.Auth == authPassthrough {
		return d.key
	}
	return d.s.cfg.APIKey
}

// isNear says whether a host is on this machine or in its own network, by its
// address or by a name without a domain.
func isNear(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
	}
	return !strings.Contains(host, ".") || strings.HasSuffix(host, ".internal") || strings.HasSuffix(host, ".local")
}

// checkModels looks at the list, and chooses the model to ask.
func (d *doctor) checkModels(context.Context) finding {
	if !d.connected() {
		d.chooseModel(nil)
		return skipped(noConnection)
	}
	t := d.trouble(d.list)
	var models []model
	var err error
	if t == nil {
		models, err = normaliseModels(d.list.body)
	}
	d.chooseModel(models)
	static := len(d.s.cfg.ModelsStatic)
	switch {
	case static > 0:
		return passed("%d, as MODELS_STATIC says; asking %s", static, d.model)
	case t != nil && t.refused && d.list.status != http.StatusUnauthorized && d.list.status != http.StatusForbidden, t != nil && d.list.status == http.StatusNotFound:
		return warned("the upstream has no list ("+t.found+")", "set MODELS_STATIC=NAME,NAME to the models that clients should see")
	case t != nil:
		return warned("no list: "+t.found, cmp.Or(t.advice, "set MODELS_STATIC=NAME,NAME, if the list stays away"))
	case err != nil:
		return warned("the list can't be used: "+d.said(err.Error()), "check the path of A4F_BASE_URL, or set MODELS_STATIC=NAME,NAME")
	case len(models) == 0:
		return warned("the list is empty", "load a model into the upstream, or set MODELS_STATIC=NAME,NAME")
	}
	found := fmt.Sprintf("%d in the list", len(models))
	if !isArray(member(d.list.body, "data")) {
		found += ", which is not in OpenAI's form and is converted"
	}
	if asked := d.model; !slices.ContainsFunc(models, func(m model) bool { return m.ID == asked }) {
		return warned(found+", and "+d.said(asked)+" is not among them", "check the name of the model")
	}
	return passed("%s; asking %s", found, d.model)
}

// otherThanChat are words in the names of models that do not chat.
var otherThanChat = regexp.MustCompile(`(?i)embed|whisper|tts|speech|audio|voice|realtime|transcri|dall-?e|image|diffusion|flux|video|sora|veo|moderation|guard|rerank|ocr|davinci|babbage|bge-|clip`)

// chooseModel settles which model to ask: the one that was named, or the first
// that looks as if it chats.
func (d *doctor) chooseModel(models []model) {
	candidates := slices.Clone(d.s.cfg.ModelsStatic)
	for _, m := range models {
		candidates = append(candidates, m.ID)
	}
	for _, a := range d.s.cfg.Aliases {
		candidates = append(candidates, a.Model)
	}
	if d.model == "" && len(candidates) > 0 {
		d.model = candidates[max(0, slices.IndexFunc(candidates, func(id string) bool { return !otherThanChat.MatchString(id) }))]
	}
	if to, ok := d.s.cfg.alias(d.model); ok {
		d.model = to
	}
}

// checkKey asks the first question: lists are often open to everyone.
func (d *doctor) checkKey(ctx context.Context) finding {
	if !d.connected() {
		return skipped(noConnection)
	}
	if d.model == "" {
		return skipped("not asked: no model is known")
	}
	d.firstSaid, d.first, d.firstWhy = d.ask(ctx, question("Reply with the single word pong."))
	key, setting := d.sentKey(), "A4F_API_KEY"
	if d.s.cfg.Auth == authPassthrough {
		setting = "A4F_API_KEY, which the doctor alone uses in mode passthrough,"
	}
	switch refused := d.first.status == http.StatusUnauthorized || d.first.status == http.StatusForbidden; {
	case refused && key == "":
		return failed("there is none, and the upstream wants one ("+d.firstWhy.found+")", "set "+setting+" to the upstream's key")
	case refused:
		return failed("refused: "+d.firstWhy.found, "set "+setting+" to a key that may use "+d.said(d.model))
	case d.first.status == 0:
		return skipped("no answer told")
	case key == "" && d.s.cfg.Auth == authPassthrough:
		return passed("none: the doctor asks without, as a client that has no key")
	case key == "":
		return passed("none, and none is wanted")
	case d.firstWhy != nil && d.list.status != http.StatusOK:
		return skipped("no answer told")
	}
	return passed("accepted")
}

func (d *doctor) checkChat(context.Context) finding {
	switch {
	case !d.connected():
		return skipped(noConnection)
	case d.model == "":
		return failed("no model is known", "name one with -model, and set MODELS_STATIC")
	case d.firstWhy != nil && (d.first.status == http.StatusUnauthorized || d.first.status == http.StatusForbidden):
		return skipped("not answered: the key is refused")
	case d.firstWhy != nil:
		return failed(d.said(d.model)+": "+d.firstWhy.found, cmp.Or(d.firstWhy.advice, "try another model with -model"))
	}
	c := d.firstSaid.Choices[0]
	found := fmt.Sprintf("answered in %s", roughly(d.first.took))
	if d.limit != d.s.cfg.quirk("max_tokens_field") {
		return finding{Status: markOK, Found: found + ", but only to " + d.limit, Advice: d.suggest("max_tokens_field:"+d.limit) + " saves a refused request now and then"}
	}
	switch {
	case isEventStream(d.first.header):
		return warned(found+", with a stream that was not asked for", "nothing to set: the gateway gathers it")
	case strings.TrimSpace(c.Text) == "" && c.Reasoning.Text == "" && len(c.Calls) == 0:
		return warned(found+", with nothing (finish_reason "+d.said(cmp.Or(c.Finish, "none"))+")", "try another model with -model")
	case !d.firstSaid.Usage.Known:
		return warned(found+", without usage", "nothing to set: logs and clients see no token counts")
	}
	return passed("%s, %d tokens in, %d out", found, d.firstSaid.Usage.Prompt, d.firstSaid.Usage.Completion)
}

// question is a chat request with one user message.
func question(text string) *chatRequest {
	return &chatRequest{Messages: []chatMessage{{Role: "user", Content: textContent(text)}}}
}

// checkErrors asks for a model that does not exist.
func (d *doctor) checkErrors(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	q := question("Hello")
	q.Model = "apiproxy-doctor-no-such-model"
	r := d.postChat(ctx, q)
	report, ok := parseUpstreamError(r.body)
	switch {
	case r.err != nil:
		return notWell(d.trouble(r))
	case r.status < 300:
		return warned("any model name is answered", "nothing to set: a wrong name goes unnoticed by clients")
	case r.status == http.StatusTooManyRequests:
		return notWell(d.trouble(r))
	case ok && report.openai && r.status < 500:
		return passed("an unknown model is HTTP %d, in OpenAI's form", r.status)
	case ok && r.status < 500:
		return warned(fmt.Sprintf("an unknown model is HTTP %d, not in OpenAI's form", r.status), "nothing to set: the gateway converts it")
	}
	return warned(fmt.Sprintf("an unknown model is HTTP %d: %s", r.status, d.said(plainMessage(r.status, r.body))), "nothing to set: clients get it in their own form, but can't tell what is wrong")
}

// checkStreaming looks whether pieces come as they are made.
func (d *doctor) checkStreaming(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	q := question("Count from 1 to 40, with spaces in between, and say nothing else.")
	q.Stream = true
	s, t := d.stream(ctx, q)
	if t != nil && t.limited {
		return notWell(t)
	}
	if t != nil {
		return failed(t.found, cmp.Or(t.advice, "clients that stream get this error"))
	}
	d.unasked = s.answer.Usage.Known
	switch {
	case s.whole:
		return warned("one JSON answer in place of a stream", "nothing to set: the gateway makes chunks of it, but they come all at once")
	case s.finish() == "" && !s.done && d.s.cfg.quirk("lenient_eof") == "off":
		return failed("it ends without a finish_reason and without [DONE], which clients get as an error",
			"look at the upstream's own log; if all its streams end so, "+d.suggest("lenient_eof:on")+" lets converted ones pass")
	case s.texts == 0:
		return warned("a stream without any text", "try another model with -model")
	case s.together():
		return warned(fmt.Sprintf("%d pieces, but all at once after %s", s.texts, roughly(s.arrivals[0])),
			"something in front of the model collects answers; turn buffering off there (nginx: proxy_buffering off)")
	case s.finish() == "":
		return warned("it ends without a finish_reason", "nothing to set: clients that wait for one may take the answer for cut off")
	case !s.done:
		return warned("it ends without [DONE]", "nothing to set: the finish_reason is taken for the end")
	}
	return passed("%d pieces, the first after %s, then about every %s, longest gap %s", s.texts, roughly(s.arrivals[0]), roughly(s.usualGap()), roughly(s.longestGap()))
}

// stream sends a request for a stream and reads what comes.
func (d *doctor) stream(ctx context.Context, q *chatRequest) (timedStream, *trouble) {
	res, r, t := d.ask(ctx, q)
	if t != nil {
		return timedStream{}, t
	}
	if !isEventStream(r.header) {
		return timedStream{answer: res, whole: true}, nil
	}
	return d.readStream(r), nil
}

func (s *timedStream) finish() string {
	for _, c := range s.answer.Choices {
		if c.Finish != "" {
			return c.Finish
		}
	}
	return ""
}

// together says whether the pieces came in one burst: in a twentieth of the time
// that the first took.
func (s *timedStream) together() bool {
	first, last := s.arrivals[0], s.arrivals[len(s.arrivals)-1]
	return len(s.arrivals) == 1 || (last-first)*20 < first
}

func (s *timedStream) gaps() []time.Duration {
	var gaps []time.Duration
	for i := 1; i < len(s.arrivals); i++ {
		gaps = append(gaps, s.arrivals[i]-s.arrivals[i-1])
	}
	slices.Sort(gaps)
	return gaps
}

func (s *timedStream) usualGap() time.Duration   { return s.gaps()[(len(s.arrivals)-1)/2] }
func (s *timedStream) longestGap() time.Duration { return s.gaps()[len(s.arrivals)-2] }

// checkStreamUsage asks for a stream with include_usage, as converted requests do.
func (d *doctor) checkStreamUsage(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	if d.unasked {
		return passed("every stream tells its usage")
	}
	q := question("Count from 1 to 3.")
	q.askForStream()
	s, t := d.stream(ctx, q)
	switch {
	case t != nil && t.refused:
		return warned("stream_options is refused: "+t.found, "nothing to set: converted requests go on without it, and logs have no token counts of streams")
	case t != nil:
		return notWell(t)
	case !s.answer.Usage.Known:
		return warned("no usage in streams, even when it is asked for", "nothing to set: logs have no token counts of streams")
	case d.s.cfg.quirk("usage_inject") == "on":
		return passed("told when asked for, which usage_inject:on does")
	}
	return finding{Status: markOK, Found: "told when asked for", Advice: d.suggest("usage_inject:on") + " has it for streams whose clients do not ask"}
}

// weatherTools are two tools for one place.
func weatherTools() []chatTool {
	schema := json.RawMessage(`{"type":"object","properties":{"city":{"type":"string","description":"name of the city"}},"required":["city"]}`)
	return []chatTool{
		{Type: "function", Function: chatFunction{Name: "get_weather", Description: "Tells the weather in a city", Parameters: schema}},
		{Type: "function", Function: chatFunction{Name: "get_time", Description: "Tells the local time in a city", Parameters: schema}},
	}
}

const serverTools = "if the model can call tools, start its server with a parser for them (vLLM: --enable-auto-tool-choice --tool-call-parser NAME; llama.cpp: --jinja)"

func (d *doctor) checkTools(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	q := question("What is the weather in Paris? Use the tool get_weather.")
	q.Tools = weatherTools()[:1]
	res, _, t := d.ask(ctx, q)
	if t != nil {
		return warned("refused: "+t.found, cmp.Or(t.advice, serverTools))
	}
	c := res.Choices[0]
	if len(c.Calls) == 0 {
		if strings.Contains(c.Text, "get_weather") && strings.Contains(c.Text, "city") {
			return warned("the call came as text", serverTools)
		}
		return warned("the model answered without the tool", "try another model with -model; "+serverTools)
	}
	call := c.Calls[0].Function
	switch args := []byte(call.Arguments); {
	case call.Name != "get_weather":
		return warned("a call of "+d.said(call.Name)+", which does not exist", "try another model with -model")
	case checkJSON(args) != nil || !isString(member(args, "city")):
		return warned("a call whose arguments do not fit: "+d.said(call.Arguments), "try another model with -model")
	}
	return passed("called with valid arguments")
}

func (d *doctor) checkParallelTools(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	q := question("Tell me both the weather and the local time in Paris. Call both tools, get_weather and get_time, in one turn.")
	q.Tools = weatherTools()
	res, _, t := d.ask(ctx, q)
	if t != nil {
		return warned("refused: "+t.found, t.advice)
	}
	switch calls := len(res.Choices[0].Calls); calls {
	case 0:
		return skipped("no call came")
	case 1:
		return skipped("one call at a time")
	default:
		return passed("%d calls in one turn", calls)
	}
}

func (d *doctor) checkJSONSchema(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	q := question("Which city is the capital of France, and is it in Europe?")
	q.ResponseFormat = &responseFormat{Type: "json_schema", JSONSchema: &jsonSchema{Name: "capital", Strict: json.RawMessage("true"),
		Schema: json.RawMessage(`{"type":"object","properties":{"capital_city":{"type":"string"},"in_europe":{"type":"boolean"}},"required":["capital_city","in_europe"],"additionalProperties":false}`)}}
	res, _, t := d.ask(ctx, q)
	if t != nil {
		return warned("refused: "+t.found, cmp.Or(t.advice, "nothing to set: for converted requests the gateway writes the schema into the prompt"))
	}
	answer := bytes.TrimSpace([]byte(res.Choices[0].Text))
	if checkJSON(answer) != nil || !isString(member(answer, "capital_city")) || !isBool(member(answer, "in_europe")) || countMembers(answer) != 2 {
		return warned("not obeyed: "+d.said(string(answer)), "clients that rely on schemas need another model or server")
	}
	return passed("obeyed")
}

func isBool(v []byte) bool { return string(v) == "true" || string(v) == "false" }

func countMembers(obj []byte) int {
	n := 0
	for range members(obj) {
		n++
	}
	return n
}

// checkReasoning looks at the answers so far.
func (d *doctor) checkReasoning(context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	if d.orphanTag && d.s.cfg.quirk("think") == "auto" {
		return warned("thoughts come as text that ends with "+thinkClose, d.suggest("think:prefilled")+" takes them out of the answer for converted dialects")
	}
	where := map[reasoningField]string{
		reasoningContent: "in reasoning_content", reasoningPlain: "in reasoning", reasoningList: "in reasoning_details",
		reasoningInText: "in <think> tags, which are taken out for converted dialects",
	}
	if found, ok := where[d.reasoning]; ok {
		return passed("%s", found)
	}
	return skipped("none from this model")
}

// checkImages shows the model a red square.
func (d *doctor) checkImages(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	words := "Which colour has this image? Reply with one word."
	q := &chatRequest{Messages: []chatMessage{{Role: "user", Content: chatContent{Parts: []chatPart{partText(words), partImage(redSquare, "")}}}}}
	res, _, t := d.ask(ctx, q)
	switch {
	case t != nil && t.refused:
		return skipped("not taken by this model: " + t.found)
	case t != nil:
		return notWell(t)
	case !strings.Contains(strings.ToLower(res.Choices[0].Text), "red"):
		return warned("taken, but a red square was answered with: "+d.said(res.Choices[0].Text), "if the model sees images, try again; else clients that send some are misled")
	}
	return passed("seen")
}

// redSquare is a PNG of 64 by 64 red dots, large enough for models that cut images
// into patches.
const redSquare = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42uzPQQkAAAgAsetfWiP4FgYrsKbfBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAROGwAA//+p3PDiikux3gAAAABJRU5ErkJggg=="

// nativeProbes are the smallest requests of each dialect, and the member that
// only its answers have.
var nativeProbes = []struct {
	set    string // in NATIVE_DIALECTS
	from   *dialect
	body   string // NAME stands for the quoted model
	speaks func(answer []byte) bool
}{
	{"responses", &responses, `{"model":NAME,"input":"Reply with the single word pong.","max_output_tokens":512,"store":false}`,
		func(b []byte) bool { return text(member(b, "object")) == "response" }},
	{"messages", &anthropic, `{"model":NAME,"max_tokens":512,"messages":[{"role":"user","content":"Reply with the single word pong."}]}`,
		func(b []byte) bool { return text(member(b, "type")) == "message" }},
	{"gemini", &gemini, `{"contents":[{"role":"user","parts":[{"text":"Reply with the single word pong."}]}],"generationConfig":{"maxOutputTokens":512}}`,
		func(b []byte) bool { return isArray(member(b, "candidates")) }},
}

func (d *doctor) nativeURL(set string) *url.URL {
	if set == "gemini" {
		return d.s.upstream.beside("/v1beta/models/" + d.model + ":generateContent")
	}
	return d.s.upstream.url("/"+set, "")
}

func (d *doctor) checkNativeDialects(ctx context.Context) finding {
	if d.firstSaid == nil {
		return skipped(noChat)
	}
	var spoken, wrong, why []string
	for _, probe := range nativeProbes {
		body := strings.Replace(probe.body, "NAME", string(appendQuoted(nil, d.model)), 1)
		r := d.post(ctx, d.nativeURL(probe.set), probe.from, []byte(body))
		t := d.trouble(r)
		set := d.s.native(probe.set)
		switch {
		case t == nil && probe.speaks(bytes.TrimSpace(r.body)):
			spoken = append(spoken, probe.set)
		case set && (r.status == 0 || r.status >= 500 || t != nil && t.limited):
			return warned(probe.set+" is in NATIVE_DIALECTS, and is not answered now: "+t.found, t.advice)
		case set && t != nil:
			wrong, why = append(wrong, probe.set), append(why, t.found)
		case set:
			wrong, why = append(wrong, probe.set), append(why, "an answer in another form")
		}
	}
	return d.compareNative(spoken, wrong, why)
}

// compareNative holds what the upstream speaks against NATIVE_DIALECTS.
func (d *doctor) compareNative(spoken, wrong, why []string) finding {
	set := slices.Sorted(slices.Values(d.s.cfg.NativeDialects))
	found := cmp.Or(strings.Join(spoken, ", "), "none")
	line := "NATIVE_DIALECTS=" + strings.Join(spoken, ",")
	switch {
	case len(wrong) > 0:
		d.Settings = append(d.Settings, line)
		return failed("spoken by the upstream itself: "+found+"; NATIVE_DIALECTS names "+strings.Join(wrong, ", ")+" too ("+strings.Join(why, "; ")+")", "set "+line)
	case !slices.Equal(set, slices.Sorted(slices.Values(spoken))):
		d.Settings = append(d.Settings, line)
		return finding{Status: markOK, Found: "spoken by the upstream itself: " + found, Advice: line + " passes them through unconverted, and without sessions"}
	case len(spoken) == 0:
		return skipped("none: Responses, Messages and Gemini are converted")
	}
	return passed("%s, as NATIVE_DIALECTS says", found)
}
