package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// config is everything that can be set. It never changes after loadConfig.
type config struct {
	BaseURL    *url.URL // upstream base, ready to have "/chat/completions" appended: no trailing slash, query or user
	APIKey     secret   // upstream key; "" sends none
	ListenAddr string

	Auth       authMode
	ClientKeys []clientKey // with authKeys at least one, else none

	RedisURL         secret // "" = in-memory store
	StorePrefix      string
	MemoryStoreBytes int64
	SessionTTL       time.Duration
	SessionMaxTurns  int
	SessionHeaders   []string // canonical header names, in order
	SessionMode      sessionMode

	ModelsTTL    time.Duration
	ModelsStatic []string
	Aliases      []modelAlias

	MaskAsBrowser  bool
	MaskUserAgent  string
	MaskOrigin     string   // "" sends none
	MaskReferer    string   // "" sends none
	ForwardHeaders []string // canonical names; one that ends in "*" is a prefix

	MaxBodyBytes  int64 // 0 = no limit
	MaxConcurrent int   // 0 = no limit

	UpstreamTimeout     time.Duration // to the first response byte
	UpstreamIdleTimeout time.Duration // silence inside a stream
	StreamPing          pingInterval
	DrainTimeout        time.Duration

	LogLevel  slog.Level
	LogFormat string // "text" or "json"; "" = text on a terminal, else json
	LogBodies bool

	Quirks         []string // "name:value", each valid by quirkTable; ask with quirk
	NativeDialects []string // of "responses", "messages", "gemini"

	MetricsAddr string
	CORSOrigins []string // "*" alone means any
	TLSCertFile string   // both TLS files or neither
	TLSKeyFile  string
}

// loadConfig reads every setting out of values: the environment laid over
// .env. A setting that is empty counts as not set, so that a container file can
// pass on `NAME=${NAME:-}`. The error joins one line for every bad setting, each
// with what would be accepted; neither it nor the warnings hold a secret.
func loadConfig(values map[string]string) (*config, []string, error) {
	s := &settings{values: values}
	c := s.config()
	s.warnUnknown()
	if len(s.errs) > 0 {
		return nil, s.warnings, errors.Join(s.errs...)
	}
	return c, s.warnings, nil
}

// quirk returns the value of an upstream quirk as UPSTREAM_QUIRKS sets it, or
// the quirk's default; "" for a name that is no quirk.
func (c *config) quirk(name string) string {
	for _, q := range c.Quirks {
		if set, value, _ := strings.Cut(q, ":"); set == name {
			return value
		}
	}
	if i := slices.IndexFunc(quirkTable, func(q quirkChoice) bool { return q.name == name }); i >= 0 {
		return quirkTable[i].values[0]
	}
	return ""
}

// secret is a string that no log or error shows.
type secret string

// LogValue keeps the secret out of structured logs.
func (secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// String keeps the secret out of formatted text; string(s) is the value.
func (secret) String() string { return "[secret]" }

// MarshalText keeps the secret out of JSON.
func (secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// GoString keeps the secret out of %#v.
func (secret) GoString() string { return "[secret]" }

// authMode says who may use the gateway.
type authMode string

const (
	authKeys        authMode = "keys"        // a configured client key opens
	authPassthrough authMode = "passthrough" // the client's own key goes upstream
	authOff         authMode = "off"         // anyone; one anonymous owner
)

// clientKey is one key that opens the gateway.
type clientKey struct {
	Label string // shown in logs and metrics
	Key   secret
}

// sessionMode says what a session may do to a request.
type sessionMode string

const (
	modeAuto     sessionMode = "auto"     // continue the thread of the same system prompt
	modeContinue sessionMode = "continue" // always continue the last thread
	modeRecord   sessionMode = "record"   // never touch a request
)

// modelAlias sends a model name that matches Pattern on as Model.
type modelAlias struct {
	Pattern string // may contain "*"
	Model   string
}

// pingInterval is the silence after which a stream gets a keep-alive.
type pingInterval struct {
	Translated  time.Duration // 0 = never
	PassThrough time.Duration // 0 = never
}

const (
	defaultListenAddr = ":8000"
	defaultUserAgent  = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/154.0.0.0 Safari/537.36"
	// placeholderKey is what .env.example holds in place of a key.
	placeholderKey = "put-your-key-here"
	// shortKeyBytes is the length under which a key is taken for a dummy such as
	// "none", as local servers get it.
	shortKeyBytes = 12
)

// settings reads named values and collects what is wrong with them, so that one
// start reports every mistake.
type settings struct {
	values   map[string]string
	known    []string // names that were asked for
	errs     []error
	warnings []string
}

func (s *settings) config() *config {
	c := &config{
		ListenAddr: s.addr("LISTEN_ADDR", defaultListenAddr),

		RedisURL:         s.redisURL("REDIS_URL"),
		StorePrefix:      s.storePrefix("STORE_PREFIX", "apiproxy:"),
		MemoryStoreBytes: s.size("MEMORY_STORE_MAX_BYTES", 256<<20, 1<<20),
		SessionTTL:       s.duration("SESSION_TTL", 7*24*time.Hour, time.Second),
		SessionMaxTurns:  s.count("SESSION_MAX_TURNS", 50, 1),
		SessionHeaders:   s.sessionHeaders("SESSION_HEADERS", "X-Session-Id"),
		SessionMode:      sessionMode(s.choice("SESSION_MODE", "auto", "continue", "record")),

		ModelsTTL:    s.duration("MODELS_CACHE_TTL", 5*time.Minute, 0),
		ModelsStatic: s.models("MODELS_STATIC"),
		Aliases:      s.aliases("MODEL_ALIASES"),

		MaskAsBrowser:  s.boolean("MASK_AS_BROWSER", true),
		MaskUserAgent:  s.headerValue("MASK_USER_AGENT", defaultUserAgent),
		MaskOrigin:     s.maskOrigin("MASK_ORIGIN"),
		MaskReferer:    s.maskReferer("MASK_REFERER"),
		ForwardHeaders: s.forwardHeaders("FORWARD_HEADERS"),

		MaxBodyBytes:  s.size("MAX_BODY_BYTES", 64<<20, 0),
		MaxConcurrent: s.count("MAX_CONCURRENT", 0, 0),

		UpstreamTimeout:     s.duration("UPSTREAM_TIMEOUT", 10*time.Minute, time.Millisecond),
		UpstreamIdleTimeout: s.duration("UPSTREAM_IDLE_TIMEOUT", 5*time.Minute, time.Millisecond),
		StreamPing:          s.ping("STREAM_PING"),
		DrainTimeout:        s.duration("DRAIN_TIMEOUT", 30*time.Second, 0),

		LogLevel:  s.logLevel("LOG_LEVEL"),
		LogFormat: s.choice("LOG_FORMAT", "", "text", "json"),
		LogBodies: s.boolean("LOG_BODIES", false),

		Quirks:         s.quirks("UPSTREAM_QUIRKS"),
		NativeDialects: s.nativeDialects("NATIVE_DIALECTS"),

		CORSOrigins: s.corsOrigins("CORS_ORIGINS"),
	}
	s.upstream(c)
	s.auth(c)
	s.metrics(c)
	s.tlsPair(c)
	return c
}

func (s *settings) upstream(c *config) {
	c.APIKey = secret(s.text("A4F_API_KEY"))
	if !visibleASCII(string(c.APIKey)) {
		s.fail("A4F_API_KEY", "the key holds a space, a control character or a letter beyond ASCII; accepted: visible ASCII")
	}
	if c.APIKey == placeholderKey {
		s.warn("A4F_API_KEY: still the placeholder of .env.example; put the upstream's key there")
	}
	raw := s.text("A4F_BASE_URL")
	if raw == "" {
		s.fail("A4F_BASE_URL", "not set; set it to the upstream's base address, such as https://api.example.com/v1 (or try the gateway with -demo)")
		return
	}
	var err error
	if c.BaseURL, err = joinBase(raw); err != nil {
		s.fail("A4F_BASE_URL", "%v", err)
	}
}

func (s *settings) auth(c *config) {
	c.Auth = authMode(s.choice("APIPROXY_AUTH", string(authKeys), string(authPassthrough), string(authOff)))
	keys := s.clientKeys("APIPROXY_API_KEYS")
	if c.Auth == authKeys {
		s.requireKeys(c, keys)
		return
	}
	if len(keys) > 0 {
		s.warn("APIPROXY_API_KEYS: not used, since APIPROXY_AUTH=%s", c.Auth)
	}
	if c.Auth == authPassthrough && c.APIKey != "" {
		s.warn("A4F_API_KEY: not used, since APIPROXY_AUTH=passthrough sends each client's own key upstream")
		c.APIKey = ""
	}
	if c.Auth == authOff && !loopbackAddr(c.ListenAddr) {
		s.warn("APIPROXY_AUTH=off: whoever reaches %s uses the upstream at your cost", c.ListenAddr)
	}
}

// requireKeys settles what clients present in mode keys.
func (s *settings) requireKeys(c *config, keys []clientKey) {
	c.ClientKeys = keys
	switch {
	case s.text("APIPROXY_API_KEYS") != "":
		// Either there are keys, or what is wrong with them has been reported.
	case c.APIKey == "":
		s.fail("APIPROXY_API_KEYS", "no key opens the gateway; set APIPROXY_API_KEYS to the keys that clients present "+
			"(or A4F_API_KEY, which they present otherwise), "+
			"or APIPROXY_AUTH=passthrough to send each client's own key upstream, or APIPROXY_AUTH=off to let anyone in")
	default:
		c.ClientKeys = []clientKey{{Label: "key1", Key: c.APIKey}}
		if len(c.APIKey) < shortKeyBytes {
			s.warn("A4F_API_KEY: clients present this key, and it is short enough to be guessed; set APIPROXY_API_KEYS")
		}
	}
}

func (s *settings) metrics(c *config) {
	c.MetricsAddr = s.addr("METRICS_ADDR", "")
	if c.MetricsAddr != "" && c.MetricsAddr == c.ListenAddr && !strings.HasSuffix(c.MetricsAddr, ":0") {
		s.fail("METRICS_ADDR", "%q is LISTEN_ADDR too; accepted: another address, such as 127.0.0.1:9090", c.MetricsAddr)
	}
}

func (s *settings) tlsPair(c *config) {
	c.TLSCertFile, c.TLSKeyFile = s.text("TLS_CERT_FILE"), s.text("TLS_KEY_FILE")
	switch {
	case c.TLSCertFile == "" && c.TLSKeyFile == "":
	case c.TLSKeyFile == "":
		s.fail("TLS_KEY_FILE", "not set, while TLS_CERT_FILE is; set both or neither")
	case c.TLSCertFile == "":
		s.fail("TLS_CERT_FILE", "not set, while TLS_KEY_FILE is; set both or neither")
	default:
		if _, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile); err != nil {
			s.fail("TLS_CERT_FILE", "the pair with TLS_KEY_FILE can't be used: %v; accepted: PEM files of a certificate chain and its key", err)
		}
	}
}

// clientKeys parses a list of "key" and "label:key". What stands before the
// first colon is a label if it looks like one, so a key that holds a colon
// itself needs a label. Errors count entries: an entry is never shown.
func (s *settings) clientKeys(name string) []clientKey {
	var keys []clientKey
	byKey, byLabel := map[secret]int{}, map[string]int{}
	entries := s.list(name)
	for i, entry := range entries {
		n := i + 1
		label, key := splitClientKey(entry, n)
		if key == "" || label == "" {
			s.fail(name, "entry %d: a part is missing; accepted: key or label:key", n)
			continue
		}
		if !visibleASCII(key) {
			s.fail(name, "entry %d: the key holds a space, a control character or a letter beyond ASCII; accepted: visible ASCII", n)
			continue
		}
		if first, ok := byKey[secret(key)]; ok {
			s.fail(name, "entries %d and %d: the same key; accepted: each key once", first, n)
			continue
		}
		if first, ok := byLabel[label]; ok {
			s.fail(name, "entries %d and %d: the same label; accepted: each label once (an entry without one is key1, key2, … by its place)", first, n)
			continue
		}
		byKey[secret(key)], byLabel[label] = n, n
		keys = append(keys, clientKey{Label: label, Key: secret(key)})
	}
	if s.text(name) != "" && len(entries) == 0 {
		s.fail(name, "holds no key; accepted: a comma list of key or label:key")
	}
	return keys
}

func splitClientKey(entry string, n int) (label, key string) {
	label, key, found := strings.Cut(entry, ":")
	if found && (label == "" || isLabel(label)) {
		return label, strings.TrimSpace(key)
	}
	return "key" + strconv.Itoa(n), entry
}

func (s *settings) redisURL(name string) secret {
	raw := s.text(name)
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || !validRedisURL(u) {
		s.fail(name, "not a Redis address; accepted: redis://[user:password@]host[:port][/database], rediss://… (TLS) or unix:///path/to/socket")
		return ""
	}
	return secret(raw)
}

func validRedisURL(u *url.URL) bool {
	switch u.Scheme {
	case "redis", "rediss":
		database := strings.Trim(u.Path, "/")
		_, err := strconv.ParseUint(database, 10, 16)
		return u.Opaque == "" && u.Hostname() != "" && validPort(u.Port()) && (database == "" || err == nil)
	case "unix":
		return u.Opaque == "" && strings.HasPrefix(u.Path, "/") && u.Path != "/"
	}
	return false
}

func (s *settings) storePrefix(name, def string) string {
	v := s.textOr(name, def)
	// Braces choose the shard of a key in a Redis cluster; the store puts its own.
	if !visibleASCII(v) || strings.ContainsAny(v, "{}") {
		s.fail(name, "%q is not a key prefix; accepted: visible ASCII without { and }", v)
	}
	return v
}

func (s *settings) sessionHeaders(name string, def string) []string {
	var headers []string
	for _, h := range s.listOr(name, def) {
		if !isToken(h) || strings.Contains(h, "*") {
			s.fail(name, "%q is not a header name; accepted: names such as X-Session-Id", h)
			continue
		}
		if why := refusedHeader(h); why != "" {
			s.fail(name, "%q can't carry a session id: it %s; accepted: any other header", h, why)
			continue
		}
		headers = append(headers, http.CanonicalHeaderKey(h))
	}
	return unique(headers)
}

func (s *settings) forwardHeaders(name string) []string {
	var headers []string
	for _, h := range s.list(name) {
		prefix := strings.TrimSuffix(h, "*")
		if !isToken(prefix) || strings.Contains(prefix, "*") {
			s.fail(name, "%q is not a header name; accepted: names such as X-Team, or a beginning such as x-team-*", h)
			continue
		}
		if why := refusedHeader(h); why != "" {
			s.fail(name, "%q can't be forwarded: it %s; accepted: any other header", h, why)
			continue
		}
		headers = append(headers, http.CanonicalHeaderKey(h))
	}
	return unique(headers)
}

// refusedHeaders are request headers that no setting may send on, with the
// reason. A name that ends in "*" is a beginning.
var refusedHeaders = []struct {
	why   string
	names []string
}{
	{"belongs to one connection alone", []string{"connection", "keep-alive", "proxy-connection",
		"te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings"}},
	{"is set by the gateway itself", []string{"host", "content-length", "content-encoding", "accept-encoding"}},
	{"carries a client's credentials", []string{"authorization", "proxy-authorization", "cookie", "cookie2",
		"x-api-key", "x-goog-api-key", "api-key"}},
	{"says where a request comes from, and a client could forge it", []string{"forwarded", "x-forwarded-*",
		"x-real-ip", "true-client-ip", "cf-connecting-ip"}},
}

// refusedHeader says why a header, or some header that begins as a pattern
// says, must not be sent on; "" when it may. Underscores count as hyphens, since
// many servers read them so.
func refusedHeader(pattern string) string {
	pattern = strings.ReplaceAll(strings.ToLower(pattern), "_", "-")
	for _, refused := range refusedHeaders {
		for _, name := range refused.names {
			if !overlap(pattern, name) {
				continue
			}
			if strings.HasSuffix(pattern, "*") {
				return fmt.Sprintf("covers %s, which %s", name, refused.why)
			}
			return refused.why
		}
	}
	return ""
}

// overlap reports whether some name matches both patterns.
func overlap(a, b string) bool {
	a, wildA := strings.CutSuffix(a, "*")
	b, wildB := strings.CutSuffix(b, "*")
	return a == b || wildA && strings.HasPrefix(b, a) || wildB && strings.HasPrefix(a, b)
}

func (s *settings) models(name string) []string {
	models := unique(s.list(name))
	for _, m := range models {
		if !isPrintable(m) {
			s.fail(name, "%q is not a model name; accepted: printable characters", m)
		}
	}
	return models
}

func (s *settings) aliases(name string) []modelAlias {
	var aliases []modelAlias
	for _, entry := range s.list(name) {
		pattern, model, found := strings.Cut(entry, "=")
		a := modelAlias{Pattern: strings.TrimSpace(pattern), Model: strings.TrimSpace(model)}
		same := func(b modelAlias) bool { return b.Pattern == a.Pattern }
		switch {
		case !found || a.Pattern == "" || a.Model == "" || !isPrintable(entry):
			s.fail(name, "%q is not an alias; accepted: name=model or beginning-*=model", entry)
		case strings.Contains(a.Model, "*"):
			s.fail(name, "%q: the model after = can't hold *; accepted: one model's name", entry)
		case slices.ContainsFunc(aliases, same):
			s.fail(name, "%q: %q has an alias already; accepted: each name once", entry, a.Pattern)
		default:
			aliases = append(aliases, a)
		}
	}
	return aliases
}

// headerValue reads text that goes into a header as it is.
func (s *settings) headerValue(name, def string) string {
	v := s.textOr(name, def)
	if !visibleASCII(strings.ReplaceAll(v, " ", "")) {
		s.fail(name, "%q can't be sent in a header; accepted: printable ASCII", v)
	}
	return v
}

func (s *settings) maskOrigin(name string) string {
	v := s.text(name)
	if v == "" {
		return ""
	}
	origin, ok := parseOrigin(v)
	if !ok {
		s.fail(name, "%q is not an origin; accepted: scheme://host[:port], such as https://example.com", v)
	}
	return origin
}

func (s *settings) maskReferer(name string) string {
	v := s.headerValue(name, "")
	if v == "" {
		return ""
	}
	if u, err := url.Parse(v); err != nil || !isHTTP(u.Scheme) || u.Hostname() == "" || u.User != nil {
		s.fail(name, "not a page's address; accepted: such as https://example.com/chat")
	}
	return v
}

func (s *settings) corsOrigins(name string) []string {
	var origins []string
	for _, entry := range s.list(name) {
		origin, ok := parseOrigin(entry)
		if entry != "*" && !ok {
			s.fail(name, "%q is not an origin; accepted: scheme://host[:port], such as https://example.com, or * alone", entry)
			continue
		}
		if entry == "*" {
			origin = "*"
		}
		origins = append(origins, origin)
	}
	origins = unique(origins)
	if len(origins) > 1 && slices.Contains(origins, "*") {
		s.fail(name, "* beside other origins; accepted: * alone, or a list of origins")
	}
	return origins
}

// parseOrigin returns an origin in the form in which browsers send it.
// Applications that are no web page have schemes of their own (tauri://localhost).
func parseOrigin(text string) (string, bool) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Scheme == "" || u.Hostname() == "" || !validPort(u.Port()) {
		return "", false
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.ContainsAny(text, "*#") {
		return "", false
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), true
}

// quirkChoice is one switch of UPSTREAM_QUIRKS; the first value is the default.
type quirkChoice struct {
	name   string
	values []string
}

// quirkTable is dialects.md section E.6. efforts is checked on its own: its
// value is a list.
var quirkTable = []quirkChoice{
	{"max_tokens_field", []string{"max_tokens", "max_completion_tokens"}},
	{"tool_id_9", []string{"off", "on"}},
	{"args", []string{"append", "cumulative"}},
	{"files", []string{"off", "on"}},
	{"cache_control", []string{"drop", "pass"}},
	{"prefill", []string{"as_is", "continue"}},
	{"alternate", []string{"off", "strict"}},
	{"lenient_eof", []string{"off", "on"}},
	{"tokenize", []string{"off", "on"}},
	{"learn", []string{"on", "off"}},
	{"think", []string{"auto", "prefilled", "off"}},
	{"thinking", []string{"asked", "always"}},
	{"efforts", []string{"low+medium+high"}},
	{"reasoning_replay", []string{"auto", "turn", "off"}},
	{"hosted_tools", []string{"drop", "error"}},
	{"developer_role", []string{"off", "on"}},
	{"single_system", []string{"off", "on"}},
	{"tools_required_with_history", []string{"off", "on"}},
	{"schema", []string{"plain", "gemini"}},
	{"usage_inject", []string{"off", "on"}},
}

// effortWords are what the quirk efforts may list, joined by "+".
var effortWords = []string{"none", "minimal", "low", "medium", "high", "xhigh", "max"}

func (s *settings) quirks(name string) []string {
	var quirks []string
	set := map[string]bool{}
	for _, entry := range s.list(name) {
		quirk, value, found := strings.Cut(entry, ":")
		if !found {
			value = "on"
		}
		i := slices.IndexFunc(quirkTable, func(q quirkChoice) bool { return q.name == quirk })
		switch {
		case i < 0:
			s.fail(name, "%q is not a quirk; accepted: %s", entry, quirkNames())
		case !quirkTable[i].accepts(value):
			s.fail(name, "%q: %s", entry, quirkTable[i].usage())
		case set[quirk]:
			s.fail(name, "%q: the quirk is set twice; accepted: each quirk once", entry)
		default:
			set[quirk] = true
			quirks = append(quirks, quirk+":"+value)
		}
	}
	return quirks
}

func (q quirkChoice) accepts(value string) bool {
	if q.name != "efforts" {
		return slices.Contains(q.values, value)
	}
	words := strings.Split(value, "+")
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(effortWords, w) })
}

func (q quirkChoice) usage() string {
	if q.name == "efforts" {
		return "accepted: efforts: and words of " + strings.Join(effortWords, ", ") + ", joined by +"
	}
	return "accepted: " + q.name + ":" + strings.Join(q.values, ", "+q.name+":")
}

func quirkNames() string {
	var names []string
	for _, q := range quirkTable {
		names = append(names, q.name)
	}
	return strings.Join(names, ", ")
}

func (s *settings) nativeDialects(name string) []string {
	known := []string{"responses", "messages", "gemini"}
	dialects := unique(s.list(name))
	for _, d := range dialects {
		if !slices.Contains(known, d) {
			s.fail(name, "%q is not a dialect that passes through; accepted: %s", d, strings.Join(known, ", "))
		}
	}
	return dialects
}

func (s *settings) logLevel(name string) slog.Level {
	level := s.choice(name, "info", "debug", "warn", "error")
	return map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[level]
}

// ping reads STREAM_PING: unset it holds for translated streams alone, set for
// all of them.
func (s *settings) ping(name string) pingInterval {
	every := s.duration(name, 10*time.Second, 0)
	if s.text(name) == "" {
		return pingInterval{Translated: every}
	}
	return pingInterval{Translated: every, PassThrough: every}
}

func (s *settings) addr(name, def string) string {
	v := s.textOr(name, def)
	if v == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(v)
	if err != nil || port == "" || !validPort(port) {
		s.fail(name, "%q is not an address to listen on; accepted: host:port or :port, such as 127.0.0.1:8000 or :8000", v)
	}
	return v
}

func (s *settings) boolean(name string, def bool) bool {
	v := s.text(name)
	switch strings.ToLower(v) {
	case "":
		return def
	case "true", "1", "yes":
		return true
	case "false", "0", "no":
		return false
	}
	s.fail(name, "%q is not a yes or no; accepted: true, false, 1, 0, yes, no", v)
	return def
}

// choice reads one of a few words; the first is the default.
func (s *settings) choice(name string, accepted ...string) string {
	v := strings.ToLower(s.text(name))
	switch {
	case v == "":
		return accepted[0]
	case slices.Contains(accepted, v):
		return v
	}
	s.fail(name, "%q is not known; accepted: %s", v, strings.Trim(strings.Join(accepted, ", "), ", "))
	return accepted[0]
}

func (s *settings) count(name string, def, least int) int {
	v := s.text(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > math.MaxInt32 {
		s.fail(name, "%q is not accepted; accepted: a whole number of %d or more", v, least)
		return def
	}
	return n
}

func (s *settings) size(name string, def, least int64) int64 {
	v := s.text(name)
	if v == "" {
		return def
	}
	n, ok := parseSize(v)
	if !ok || n < least {
		s.fail(name, "%q is not accepted; accepted: bytes, or a number with KiB, MiB or GiB (64MiB), of %d bytes or more", v, least)
		return def
	}
	return n
}

func parseSize(text string) (int64, bool) {
	digits := strings.TrimRightFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	unit, known := map[string]int64{"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || !known || n > uint64(math.MaxInt64/unit) {
		return 0, false
	}
	return int64(n) * unit, true
}

func (s *settings) duration(name string, def, least time.Duration) time.Duration {
	v := s.text(name)
	if v == "" {
		return def
	}
	d, err := parseDuration(v)
	if err != nil || d < least {
		s.fail(name, "%q is not accepted; accepted: seconds (300) or a Go duration (8s, 5m), of %v or more", v, least)
		return def
	}
	return d
}

func parseDuration(text string) (time.Duration, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.ParseDuration(text)
	}
	if seconds < 0 || seconds > int64(math.MaxInt64/time.Second) {
		return 0, errors.New("out of range")
	}
	return time.Duration(seconds) * time.Second, nil
}

// list splits a comma list; empty entries don't count.
func (s *settings) list(name string) []string { return s.listOr(name, "") }

func (s *settings) listOr(name, def string) []string {
	var entries []string
	for entry := range strings.SplitSeq(s.textOr(name, def), ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			entries = append(entries, entry)
		}
	}
	return entries
}

func (s *settings) textOr(name, def string) string {
	if v := s.text(name); v != "" {
		return v
	}
	return def
}

// text returns a setting without surrounding space: a secret that is mounted
// from a file often ends in a line break.
func (s *settings) text(name string) string {
	if !slices.Contains(s.known, name) {
		s.known = append(s.known, name)
	}
	return strings.TrimSpace(s.values[name])
}

func (s *settings) fail(name, format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(name+": "+format, args...))
}

func (s *settings) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

const ownPrefix = "APIPROXY_"

// warnUnknown warns of names with our prefix that nothing has read.
func (s *settings) warnUnknown() {
	var unknown []string
	for name, value := range s.values {
		if strings.HasPrefix(name, ownPrefix) && !slices.Contains(s.known, name) && !isServiceLink(name, value) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		if bare := strings.TrimPrefix(name, ownPrefix); slices.Contains(s.known, bare) {
			s.warn("%s: not a setting; did you mean %s?", name, bare)
			continue
		}
		s.warn("%s: not a setting; those with this prefix are APIPROXY_API_KEYS and APIPROXY_AUTH", name)
	}
}

// isServiceLink reports whether Kubernetes has put a variable there: it does so
// for every service, and this one may well be called apiproxy.
func isServiceLink(name, value string) bool {
	return strings.HasPrefix(name, ownPrefix+"SERVICE_") || strings.HasPrefix(name, ownPrefix+"PORT_") ||
		name == ownPrefix+"PORT" && strings.Contains(value, "://")
}

// chatPath ends the full address that some vendors print in place of a base.
const chatPath = "/chat/completions"

// versionSegment matches a path segment that names an API version.
var versionSegment = regexp.MustCompile(`(?i)^v[0-9]+([.p][0-9]+)*((alpha|beta|preview|rc)[0-9]*)?$`)

// joinBase turns an upstream's address, in any of the forms in which vendors and
// users write it, into the base to which "/chat/completions" is appended. A
// path with a version segment is kept and any other gets "/v1", unless the
// address is a full one, or ends in "#": then the path is right as it stands.
// Errors never show what may be a password or a key.
func joinBase(raw string) (*url.URL, error) {
	const accepted = "accepted: such as https://api.example.com/v1"
	address, exact := strings.CutSuffix(strings.TrimSpace(raw), "#")
	if strings.ContainsAny(address, "?#") {
		return nil, errors.New("the address holds a query or fragment; " + accepted + ", with # at most as its last character")
	}
	u, err := url.Parse(address)
	switch {
	case err == nil && u.User != nil || err != nil && strings.Contains(address, "@"):
		return nil, errors.New("the address holds a user name or password; put the key into A4F_API_KEY; " + accepted)
	case err != nil || !isHTTP(u.Scheme) || u.Hostname() == "" || !validPort(u.Port()):
		return nil, fmt.Errorf("%q is not an http:// or https:// address; %s", raw, accepted)
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	path, full := strings.CutSuffix(path, chatPath)
	path = strings.TrimRight(path, "/")
	if !exact && !full && !slices.ContainsFunc(strings.Split(path, "/"), versionSegment.MatchString) {
		path += "/v1"
	}
	base := &url.URL{Scheme: u.Scheme, Host: u.Host}
	if base.Path, err = url.PathUnescape(path); err != nil {
		return nil, fmt.Errorf("%q: the path can't be decoded; %s", raw, accepted)
	}
	if base.EscapedPath() != path {
		base.RawPath = path
	}
	return base, nil
}

// readDotEnv reads NAME=value lines. Lines may begin with export; blank lines and
// lines that begin with # don't count. An unquoted value ends at a # that follows
// a space. In '…' everything stands for itself; in "…" \n, \r, \t, \", \\ and \$
// are escapes and any other backslash stands for itself. Nothing is expanded, and
// a name that comes twice keeps its last value. Errors name the line and show
// nothing of it.
func readDotEnv(data []byte) (map[string]string, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, errors.New("line 1: the file is UTF-16; accepted: UTF-8")
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	values := map[string]string{}
	var errs []error
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, err := readDotEnvLine(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		values[name] = value
	}
	return values, errors.Join(errs...)
}

func readDotEnvLine(line string) (name, value string, err error) {
	name, rest, found := strings.Cut(line, "=")
	if after, ok := strings.CutPrefix(name, "export"); ok && after != strings.TrimLeft(after, " \t") {
		name = after
	}
	name = strings.TrimSpace(name)
	if !found || !isEnvName(name) {
		return "", "", errors.New("not a setting; accepted: NAME=value")
	}
	if strings.ContainsRune(rest, 0) || !utf8.ValidString(rest) {
		return "", "", fmt.Errorf("%s: the value is not text; accepted: UTF-8", name)
	}
	value, err = readDotEnvValue(rest)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", name, err)
	}
	return name, value, nil
}

func readDotEnvValue(rest string) (string, error) {
	quoted := strings.TrimLeft(rest, " \t")
	switch {
	case strings.HasPrefix(quoted, "'"):
		value, after, closed := strings.Cut(quoted[1:], "'")
		return value, checkQuoteEnd(after, closed)
	case strings.HasPrefix(quoted, `"`):
		value, after, closed := unescapeQuoted(quoted[1:])
		return value, checkQuoteEnd(after, closed)
	}
	for i := 1; i < len(rest); i++ {
		if rest[i] == '#' && (rest[i-1] == ' ' || rest[i-1] == '\t') {
			rest = rest[:i]
			break
		}
	}
	return strings.TrimSpace(rest), nil
}

// unescapeQuoted reads up to the closing double quote.
func unescapeQuoted(text string) (value, after string, closed bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteString(unescape(text[i]))
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func unescape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 't':
		return "\t"
	case '"', '\\', '$':
		return string(c)
	}
	// Byte by byte, so that a character of several bytes stays whole.
	return string([]byte{'\\', c})
}

func checkQuoteEnd(after string, closed bool) error {
	if !closed {
		return errors.New("the quote is not closed on its line; write a line break as \\n in double quotes")
	}
	if after = strings.TrimSpace(after); after != "" && after[0] != '#' {
		return errors.New("text follows the closing quote; accepted: a # comment")
	}
	return nil
}

func isEnvName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// isLabel reports whether s may name a key in logs and metrics.
func isLabel(s string) bool {
	other := func(r rune) bool {
		return r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_.-", r)
	}
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, other)
}

// isToken reports whether s is a header field name (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	other := func(r rune) bool {
		return r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}
	return s != "" && !strings.ContainsFunc(s, other)
}

func visibleASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func isHTTP(scheme string) bool { return scheme == "http" || scheme == "https" }

// validPort reports whether a port is absent or a number that TCP knows.
func validPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil
}

// loopbackAddr reports whether only this machine reaches an address to listen on.
func loopbackAddr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// unique drops repeated entries, keeping the first of each.
func unique(list []string) []string {
	var out []string
	for _, entry := range list {
		if !slices.Contains(out, entry) {
			out = append(out, entry)
		}
	}
	return out
}
