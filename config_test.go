package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// base is the least that serves.
func baseSettings(extra ...string) map[string]string {
	values := map[string]string{
		"A4F_BASE_URL": "https://api.example.com/v1",
		"A4F_API_KEY":  "upstream-key-0123456789",
	}
	for i := 0; i < len(extra); i += 2 {
		values[extra[i]] = extra[i+1]
	}
	return values
}

// mustLoad loads settings that are good and warn of nothing.
func mustLoad(t *testing.T, values map[string]string) *config {
	t.Helper()
	c, warnings, err := loadConfig(values)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("loadConfig(%q): warnings %q, error %v", values, warnings, err)
	}
	return c
}

func TestLoadConfigDefaults(t *testing.T) {
	want := &config{
		BaseURL:             &url.URL{Scheme: "https", Host: "api.example.com", Path: "/v1"},
		APIKey:              "upstream-key-0123456789",
		ListenAddr:          ":8000",
		Auth:                authKeys,
		ClientKeys:          []clientKey{{"key1", "upstream-key-0123456789"}},
		StorePrefix:         "apiproxy:",
		MemoryStoreBytes:    256 << 20,
		SessionTTL:          604800 * time.Second,
		SessionMaxTurns:     50,
		SessionHeaders:      []string{"X-Session-Id"},
		SessionMode:         modeAuto,
		ModelsTTL:           300 * time.Second,
		MaskAsBrowser:       true,
		MaskUserAgent:       defaultUserAgent,
		MaxBodyBytes:        64 << 20,
		UpstreamTimeout:     600 * time.Second,
		UpstreamIdleTimeout: 300 * time.Second,
		StreamPing:          pingInterval{Translated: 10 * time.Second},
		DrainTimeout:        30 * time.Second,
		LogLevel:            slog.LevelInfo,
	}
	if got := mustLoad(t, baseSettings()); !reflect.DeepEqual(got, want) {
		t.Errorf("defaults:\n got %#v\nwant %#v", got, want)
	}
	if !strings.Contains(defaultUserAgent, "Mozilla/5.0") || !strings.Contains(defaultUserAgent, "Chrome/") {
		t.Errorf("defaultUserAgent = %q is no browser's", defaultUserAgent)
	}
}

// TestLoadConfigEmpty: a container file passes variables on that are not set.
func TestLoadConfigEmpty(t *testing.T) {
	values := baseSettings()
	for _, name := range settingNames() {
		if _, ok := values[name]; !ok {
			values[name] = " "
		}
	}
	if got, want := mustLoad(t, values), mustLoad(t, baseSettings()); !reflect.DeepEqual(got, want) {
		t.Errorf("with empty settings:\n got %#v\nwant %#v", got, want)
	}
}

// settingNames lists what loadConfig reads.
func settingNames() []string {
	s := &settings{}
	s.config()
	return s.known
}

var goodSettings = []struct {
	name, value string
	got         func(*config) any
	want        any
}{
	{"A4F_BASE_URL", "http://127.0.0.1:11434", func(c *config) any { return c.BaseURL.String() }, "http://127.0.0.1:11434/v1"},
	{"A4F_API_KEY", " sk-with-a-line-break\n", func(c *config) any { return c.APIKey }, secret("sk-with-a-line-break")},
	{"LISTEN_ADDR", "[::1]:9000", func(c *config) any { return c.ListenAddr }, "[::1]:9000"},
	{"LISTEN_ADDR", "localhost:0", func(c *config) any { return c.ListenAddr }, "localhost:0"},
	{"APIPROXY_API_KEYS", "k-one, bob:k:two ,k-three,", func(c *config) any { return c.ClientKeys },
		[]clientKey{{"key1", "k-one"}, {"bob", "k:two"}, {"key3", "k-three"}}},
	{"APIPROXY_API_KEYS", "ab/c:d", func(c *config) any { return c.ClientKeys }, []clientKey{{"key1", "ab/c:d"}}},
	{"APIPROXY_AUTH", "KEYS", func(c *config) any { return c.Auth }, authKeys},
	{"REDIS_URL", "redis://user:p%40ss@redis:6379/3", func(c *config) any { return c.RedisURL }, secret("redis://user:p%40ss@redis:6379/3")},
	{"REDIS_URL", "rediss://redis", func(c *config) any { return c.RedisURL }, secret("rediss://redis")},
	{"REDIS_URL", "unix:///run/redis.sock?db=1", func(c *config) any { return c.RedisURL }, secret("unix:///run/redis.sock?db=1")},
	{"REDIS_URL", "unix://user:pass@/run/redis.sock", func(c *config) any { return c.RedisURL }, secret("unix://user:pass@/run/redis.sock")},
	{"STORE_PREFIX", "team-a:", func(c *config) any { return c.StorePrefix }, "team-a:"},
	{"MEMORY_STORE_MAX_BYTES", "1GiB", func(c *config) any { return c.MemoryStoreBytes }, int64(1 << 30)},
	{"SESSION_TTL", "24h", func(c *config) any { return c.SessionTTL }, 24 * time.Hour},
	{"SESSION_MAX_TURNS", "7", func(c *config) any { return c.SessionMaxTurns }, 7},
	{"SESSION_HEADERS", "x-session-id,session_id,X-Session-ID", func(c *config) any { return c.SessionHeaders }, []string{"X-Session-Id", "Session_id"}},
	{"SESSION_MODE", "record", func(c *config) any { return c.SessionMode }, modeRecord},
	{"SESSION_MODE", "continue", func(c *config) any { return c.SessionMode }, modeContinue},
	{"MODELS_CACHE_TTL", "0", func(c *config) any { return c.ModelsTTL }, time.Duration(0)},
	{"MODELS_STATIC", "a, b/c:free ,a", func(c *config) any { return c.ModelsStatic }, []string{"a", "b/c:free"}},
	{"MODEL_ALIASES", "claude-*=qwen3-coder, gpt-4o = provider-3/gpt-4o", func(c *config) any { return c.Aliases },
		[]modelAlias{{"claude-*", "qwen3-coder"}, {"gpt-4o", "provider-3/gpt-4o"}}},
	{"MASK_AS_BROWSER", "No", func(c *config) any { return c.MaskAsBrowser }, false},
	{"MASK_USER_AGENT", "curl/8.5.0 (me)", func(c *config) any { return c.MaskUserAgent }, "curl/8.5.0 (me)"},
	{"MASK_ORIGIN", "https://Chat.example.com/", func(c *config) any { return c.MaskOrigin }, "https://chat.example.com"},
	{"MASK_REFERER", "https://chat.example.com/c/1?x=2", func(c *config) any { return c.MaskReferer }, "https://chat.example.com/c/1?x=2"},
	{"FORWARD_HEADERS", "x-team,X-Trace-*,x-team", func(c *config) any { return c.ForwardHeaders }, []string{"X-Team", "X-Trace-*"}},
	{"MAX_BODY_BYTES", "1000", func(c *config) any { return c.MaxBodyBytes }, int64(1000)},
	{"MAX_BODY_BYTES", "0", func(c *config) any { return c.MaxBodyBytes }, int64(0)},
	{"MAX_CONCURRENT", "32", func(c *config) any { return c.MaxConcurrent }, 32},
	{"UPSTREAM_TIMEOUT", "90s", func(c *config) any { return c.UpstreamTimeout }, 90 * time.Second},
	{"UPSTREAM_IDLE_TIMEOUT", "45", func(c *config) any { return c.UpstreamIdleTimeout }, 45 * time.Second},
	{"STREAM_PING", "15", func(c *config) any { return c.StreamPing }, pingInterval{15 * time.Second, 15 * time.Second}},
	{"STREAM_PING", "0", func(c *config) any { return c.StreamPing }, pingInterval{}},
	{"DRAIN_TIMEOUT", "8s", func(c *config) any { return c.DrainTimeout }, 8 * time.Second},
	{"LOG_LEVEL", "DEBUG", func(c *config) any { return c.LogLevel }, slog.LevelDebug},
	{"LOG_LEVEL", "warn", func(c *config) any { return c.LogLevel }, slog.LevelWarn},
	{"LOG_LEVEL", "error", func(c *config) any { return c.LogLevel }, slog.LevelError},
	{"LOG_FORMAT", "json", func(c *config) any { return c.LogFormat }, "json"},
	{"LOG_BODIES", "1", func(c *config) any { return c.LogBodies }, true},
	{"UPSTREAM_QUIRKS", "think:prefilled,files:on,tool_id_9,efforts:low+max", func(c *config) any { return c.Quirks },
		[]string{"think:prefilled", "files:on", "tool_id_9:on", "efforts:low+max"}},
	{"NATIVE_DIALECTS", "messages,gemini,messages", func(c *config) any { return c.NativeDialects }, []string{"messages", "gemini"}},
	{"METRICS_ADDR", "127.0.0.1:9090", func(c *config) any { return c.MetricsAddr }, "127.0.0.1:9090"},
	{"CORS_ORIGINS", "https://a.example:8443, tauri://localhost/", func(c *config) any { return c.CORSOrigins }, []string{"https://a.example:8443", "tauri://localhost"}},
	{"CORS_ORIGINS", "*", func(c *config) any { return c.CORSOrigins }, []string{"*"}},
}

func TestLoadConfigGood(t *testing.T) {
	for _, tt := range goodSettings {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			c := mustLoad(t, baseSettings(tt.name, tt.value))
			if got := tt.got(c); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
}

var badSettings = []struct {
	name, value, want string // want is in the error beside the name
}{
	{"A4F_BASE_URL", "", "set it to the upstream's base address"},
	{"A4F_BASE_URL", "api.example.com", "not an http:// or https:// address"},
	{"A4F_API_KEY", "two words", "visible ASCII"},
	{"A4F_API_KEY", "ключ", "visible ASCII"},
	{"LISTEN_ADDR", "8000", "accepted: host:port or :port"},
	{"LISTEN_ADDR", ":http", "accepted: host:port or :port"},
	{"LISTEN_ADDR", "localhost:", "accepted: host:port or :port"},
	{"LISTEN_ADDR", ":65536", "accepted: host:port or :port"},
	{"APIPROXY_API_KEYS", "a:k1,b:k 2", "entry 2: the key holds a space"},
	{"APIPROXY_API_KEYS", "a:k1,b:", "entry 2: a part is missing"},
	{"APIPROXY_API_KEYS", ":k1", "entry 1: a part is missing"},
	{"APIPROXY_API_KEYS", "k1,b:k2,c:k1", "entries 1 and 3: the same key"},
	{"APIPROXY_API_KEYS", "a:k1,a:k2", "entries 1 and 2: the same label"},
	{"APIPROXY_API_KEYS", "key2:k1,k2", "entries 1 and 2: the same label"},
	{"APIPROXY_API_KEYS", ",", "holds no key"},
	{"APIPROXY_AUTH", "none", "accepted: keys, passthrough, off"},
	{"REDIS_URL", "localhost:6379", "accepted: redis://"},
	{"REDIS_URL", "http://localhost", "accepted: redis://"},
	{"REDIS_URL", "redis://", "accepted: redis://"},
	{"REDIS_URL", "redis://host/db", "accepted: redis://"},
	{"REDIS_URL", "redis://host:99999", "accepted: redis://"},
	{"REDIS_URL", "unix://socket", "accepted: redis://"},
	{"STORE_PREFIX", "my prefix", "accepted: visible ASCII"},
	{"STORE_PREFIX", "{a}", "accepted: visible ASCII"},
	{"MEMORY_STORE_MAX_BYTES", "256", "of 1048576 bytes or more"},
	{"SESSION_TTL", "0", "of 1s or more"},
	{"SESSION_TTL", "a week", "accepted: seconds (300) or a Go duration"},
	{"SESSION_MAX_TURNS", "0", "a whole number of 1 or more"},
	{"SESSION_HEADERS", "X Session", "not a header name"},
	{"SESSION_HEADERS", "X-*", "not a header name"},
	{"SESSION_HEADERS", "Authorization", "carries a client's credentials"},
	{"SESSION_MODE", "on", "accepted: auto, continue, record"},
	{"MODELS_CACHE_TTL", "-1", "of 0s or more"},
	{"MODELS_STATIC", "a\tb", "not a model name"},
	{"MODEL_ALIASES", "gpt-4o", "accepted: name=model"},
	{"MODEL_ALIASES", "gpt-4o=", "accepted: name=model"},
	{"MODEL_ALIASES", "=m", "accepted: name=model"},
	{"MODEL_ALIASES", "a=b*", "can't hold *"},
	{"MODEL_ALIASES", "a=b,a=c", "has an alias already"},
	{"MASK_AS_BROWSER", "on", "accepted: true, false, 1, 0, yes, no"},
	{"MASK_USER_AGENT", "a\r\nX: y", "accepted: printable ASCII"},
	{"MASK_ORIGIN", "https://example.com/page", "not an origin"},
	{"MASK_REFERER", "example.com", "not a page's address"},
	{"FORWARD_HEADERS", "X Team", "not a header name"},
	{"FORWARD_HEADERS", "*", "not a header name"},
	{"FORWARD_HEADERS", "x-*-y", "not a header name"},
	{"FORWARD_HEADERS", "authorization", "carries a client's credentials"},
	{"FORWARD_HEADERS", "X_Api_Key", "carries a client's credentials"},
	{"FORWARD_HEADERS", "Cookie", "carries a client's credentials"},
	{"FORWARD_HEADERS", "x-*", "covers x-api-key, which carries a client's credentials"},
	{"FORWARD_HEADERS", "Host", "is set by the gateway itself"},
	{"FORWARD_HEADERS", "content-length", "is set by the gateway itself"},
	{"FORWARD_HEADERS", "Transfer-Encoding", "belongs to one connection alone"},
	{"FORWARD_HEADERS", "X-Forwarded-Foo", "a client could forge it"},
	{"FORWARD_HEADERS", "x-forw*", "a client could forge it"},
	{"MAX_BODY_BYTES", "64MB", "a number with KiB, MiB or GiB"},
	{"MAX_BODY_BYTES", "-1", "of 0 bytes or more"},
	{"MAX_BODY_BYTES", "9000000000GiB", "a number with KiB, MiB or GiB"},
	{"MAX_CONCURRENT", "many", "a whole number of 0 or more"},
	{"UPSTREAM_TIMEOUT", "0", "of 1ms or more"},
	{"UPSTREAM_TIMEOUT", "1.5", "accepted: seconds (300) or a Go duration"},
	{"UPSTREAM_TIMEOUT", "99999999999", "accepted: seconds (300) or a Go duration"},
	{"UPSTREAM_IDLE_TIMEOUT", "5 minutes", "accepted: seconds (300) or a Go duration"},
	{"STREAM_PING", "never", "accepted: seconds (300) or a Go duration"},
	{"DRAIN_TIMEOUT", "-8s", "of 0s or more"},
	{"LOG_LEVEL", "verbose", "accepted: info, debug, warn, error"},
	{"LOG_FORMAT", "xml", "accepted: text, json"},
	{"LOG_BODIES", "2", "accepted: true, false, 1, 0, yes, no"},
	{"UPSTREAM_QUIRKS", "thinking_cap", "not a quirk; accepted: max_tokens_field, "},
	{"UPSTREAM_QUIRKS", "think:maybe", "accepted: think:auto, think:prefilled, think:off"},
	{"UPSTREAM_QUIRKS", "think", "accepted: think:auto, think:prefilled, think:off"},
	{"UPSTREAM_QUIRKS", "efforts:low+huge", "minimal, low, medium, high, xhigh, max"},
	{"UPSTREAM_QUIRKS", "files:on,files:off", "set twice"},
	{"NATIVE_DIALECTS", "openai", "accepted: responses, messages, gemini"},
	{"METRICS_ADDR", "9090", "accepted: host:port or :port"},
	{"METRICS_ADDR", ":8000", "is LISTEN_ADDR too"},
	{"CORS_ORIGINS", "example.com", "not an origin"},
	{"CORS_ORIGINS", "https://*.example.com", "not an origin"},
	{"CORS_ORIGINS", "https://example.com/app", "not an origin"},
	{"CORS_ORIGINS", "https://example.com,*", "* alone"},
	{"TLS_CERT_FILE", "cert.pem", "TLS_KEY_FILE: not set, while TLS_CERT_FILE is"},
	{"TLS_KEY_FILE", "key.pem", "TLS_CERT_FILE: not set, while TLS_KEY_FILE is"},
}

func TestLoadConfigBad(t *testing.T) {
	for _, tt := range badSettings {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			c, _, err := loadConfig(baseSettings(tt.name, tt.value))
			if err == nil || !strings.Contains(err.Error(), tt.name) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one that names %s and says %q", err, tt.name, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("one bad setting gave several lines:\n%v", err)
			}
			if c != nil {
				t.Error("a configuration came with the error")
			}
		})
	}
}

func TestLoadConfigTLSFiles(t *testing.T) {
	cert, key := writeCertificate(t, t.TempDir(), 1)
	c := mustLoad(t, baseSettings("TLS_CERT_FILE", cert, "TLS_KEY_FILE", key))
	if c.TLSCertFile != cert || c.TLSKeyFile != key {
		t.Errorf("pair = %q, %q, want %q, %q", c.TLSCertFile, c.TLSKeyFile, cert, key)
	}
	for _, pair := range [][2]string{{cert, cert}, {cert + ".none", key}} {
		_, _, err := loadConfig(baseSettings("TLS_CERT_FILE", pair[0], "TLS_KEY_FILE", pair[1]))
		if err == nil || !strings.Contains(err.Error(), "TLS_CERT_FILE: the pair with TLS_KEY_FILE can't be used") {
			t.Errorf("pair %q: error %v", pair, err)
		}
	}
}

// TestSettingTablesComplete: no setting goes without a good and a bad value.
func TestSettingTablesComplete(t *testing.T) {
	good := map[string]bool{"TLS_CERT_FILE": true, "TLS_KEY_FILE": true} // TestLoadConfigTLSFiles
	for _, tt := range goodSettings {
		good[tt.name] = true
	}
	bad := map[string]bool{}
	for _, tt := range badSettings {
		bad[tt.name] = true
	}
	for _, name := range settingNames() {
		if !good[name] || !bad[name] {
			t.Errorf("%s: tested with a good value: %v, with a bad one: %v", name, good[name], bad[name])
		}
	}
}

// TestLoadConfigAllErrors: one start tells everything, and nothing that is secret.
func TestLoadConfigAllErrors(t *testing.T) {
	const canary = "CANARY"
	_, warnings, err := loadConfig(map[string]string{
		"A4F_BASE_URL":      "https://me:" + canary + "@api.example.com/v1",
		"A4F_API_KEY":       canary + " with a space",
		"APIPROXY_API_KEYS": canary + "1 x,a:" + canary + "2,b:" + canary + "2,:" + canary,
		"APIPROXY_KEY":      canary,
		"REDIS_URL":         "redis://:" + canary + "@host:port/0",
		"LISTEN_ADDR":       "nowhere",
		"LOG_LEVEL":         "loud",
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"A4F_BASE_URL", "A4F_API_KEY", "entry 1", "entries 2 and 3", "entry 4", "REDIS_URL", "LISTEN_ADDR", "LOG_LEVEL"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not tell of %s:\n%v", name, err)
		}
	}
	if all := err.Error() + fmt.Sprint(warnings); strings.Contains(all, canary) {
		t.Errorf("a secret shows:\n%s", all)
	}
}

func TestLoadConfigAuth(t *testing.T) {
	const key = "upstream-key-0123456789"
	for _, tt := range []struct {
		name   string
		values map[string]string // besides A4F_BASE_URL
		mode   authMode
		keys   []clientKey
		apiKey secret
		warns  []string
		err    string
	}{
		{"upstream key opens", map[string]string{"A4F_API_KEY": key}, authKeys, []clientKey{{"key1", key}}, key, nil, ""},
		{"own keys", map[string]string{"A4F_API_KEY": key, "APIPROXY_API_KEYS": "a:b"}, authKeys, []clientKey{{"a", "b"}}, key, nil, ""},
		{"own keys, upstream without", map[string]string{"APIPROXY_API_KEYS": "a:b"}, authKeys, []clientKey{{"a", "b"}}, "", nil, ""},
		{"no key", nil, "", nil, "", nil, "set APIPROXY_API_KEYS"},
		{"dummy key", map[string]string{"A4F_API_KEY": "none"}, authKeys, []clientKey{{"key1", "none"}}, "none", []string{"short enough to be guessed"}, ""},
		{"placeholder", map[string]string{"A4F_API_KEY": placeholderKey}, authKeys, []clientKey{{"key1", placeholderKey}}, placeholderKey, []string{"placeholder"}, ""},
		{"passthrough", map[string]string{"APIPROXY_AUTH": "passthrough"}, authPassthrough, nil, "", nil, ""},
		{"passthrough with keys", map[string]string{"APIPROXY_AUTH": "passthrough", "A4F_API_KEY": key, "APIPROXY_API_KEYS": "a:b"},
			authPassthrough, nil, "", []string{"APIPROXY_API_KEYS: not used", "A4F_API_KEY: not used"}, ""},
		{"off", map[string]string{"APIPROXY_AUTH": "off", "LISTEN_ADDR": "127.0.0.1:8000", "A4F_API_KEY": key}, authOff, nil, key, nil, ""},
		{"off, open to others", map[string]string{"APIPROXY_AUTH": "off"}, authOff, nil, "", []string{"whoever reaches :8000"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			values := map[string]string{"A4F_BASE_URL": "https://api.example.com"}
			maps.Copy(values, tt.values)
			c, warnings, err := loadConfig(values)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Auth != tt.mode || !slices.Equal(c.ClientKeys, tt.keys) || c.APIKey != tt.apiKey {
				t.Errorf("got %s, client keys %q, upstream key %q", c.Auth, c.ClientKeys, string(c.APIKey))
			}
			if len(warnings) != len(tt.warns) {
				t.Fatalf("warnings %q, want %q", warnings, tt.warns)
			}
			for i, w := range tt.warns {
				if !strings.Contains(warnings[i], w) {
					t.Errorf("warning %q, want %q", warnings[i], w)
				}
			}
		})
	}
}

func TestLoadConfigUnknownNames(t *testing.T) {
	_, warnings, err := loadConfig(baseSettings(
		"APIPROXY_API_KEY", "v1",
		"APIPROXY_LISTEN_ADDR", "v2",
		"APIPROXY_PORT", "9000",
		// What Kubernetes sets for a service called apiproxy.
		"APIPROXY_SERVICE_HOST", "10.0.0.1",
		"APIPROXY_PORT_8000_TCP_ADDR", "10.0.0.1",
		"SOMETHING_ELSE", "v3",
	))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"APIPROXY_API_KEY: not a setting; those with this prefix are APIPROXY_API_KEYS and APIPROXY_AUTH",
		"APIPROXY_LISTEN_ADDR: not a setting; did you mean LISTEN_ADDR?",
		"APIPROXY_PORT: not a setting; those with this prefix are APIPROXY_API_KEYS and APIPROXY_AUTH",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings:\n got %q\nwant %q", warnings, want)
	}
	mustLoad(t, baseSettings("APIPROXY_PORT", "tcp://10.0.0.1:8000"))
}

func TestJoinBase(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{in: "https://api.example.com", want: "https://api.example.com/v1"},
		{in: "https://api.example.com/", want: "https://api.example.com/v1"},
		{in: "https://api.example.com/v1", want: "https://api.example.com/v1"},
		{in: "https://api.example.com/v1//", want: "https://api.example.com/v1"},
		{in: " http://localhost:11434 ", want: "http://localhost:11434/v1"},
		{in: "http://[::1]:8080/v1", want: "http://[::1]:8080/v1"},
		{in: "HTTPS://api.example.com/V1", want: "https://api.example.com/V1"},
		{in: "https://api.example.com/openai", want: "https://api.example.com/openai/v1"},
		{in: "https://api.example.com/openai/v1/", want: "https://api.example.com/openai/v1"},
		{in: "https://api.example.com/v2beta", want: "https://api.example.com/v2beta"},
		{in: "https://api.example.com/api/paas/v4", want: "https://api.example.com/api/paas/v4"},
		{in: "https://api.example.com/v1beta/openai/", want: "https://api.example.com/v1beta/openai"},
		{in: "https://api.example.com/v1beta1/projects/p", want: "https://api.example.com/v1beta1/projects/p"},
		{in: "https://api.example.com/vendor/version1", want: "https://api.example.com/vendor/version1/v1"},
		{in: "https://api.example.com/v2ray", want: "https://api.example.com/v2ray/v1"},
		{in: "https://api.example.com/a%2Fb", want: "https://api.example.com/a%2Fb/v1"},
		{in: "https://api.example.com/@team/x", want: "https://api.example.com/@team/x/v1"},

		// A full address is right as it stands: some vendors have no /v1.
		{in: "https://api.example.com/v1/chat/completions", want: "https://api.example.com/v1"},
		{in: "https://api.example.com/v1/chat/completions/", want: "https://api.example.com/v1"},
		{in: "https://api.example.com/inference/chat/completions", want: "https://api.example.com/inference"},
		{in: "https://api.example.com/chat/completions", want: "https://api.example.com"},

		{in: "https://api.example.com#", want: "https://api.example.com"},
		{in: "https://api.example.com/openai/#", want: "https://api.example.com/openai"},
		{in: "https://api.example.com/openai/chat/completions#", want: "https://api.example.com/openai"},
		{in: "https://api.example.com/v1#", want: "https://api.example.com/v1"},

		{in: "api.example.com/v1", err: `"api.example.com/v1" is not an http`},
		{in: "localhost:11434", err: "not an http"},
		{in: "ftp://api.example.com", err: "not an http"},
		{in: "https://", err: "not an http"},
		{in: "https:///v1", err: "not an http"},
		{in: "https://:8080/v1", err: "not an http"},
		{in: "https://api.example.com:99999", err: "not an http"},
		{in: "https://api.example.com:port", err: "not an http"},
		{in: "https://api.exa mple.com", err: "not an http"},
		{in: "https://api.example.com/%zz", err: "not an http"},
		{in: "https://api.example.com/v1?key=hidden", err: "query or fragment"},
		{in: "https://api.example.com/v1?", err: "query or fragment"},
		{in: "https://api.example.com/v1#hidden", err: "query or fragment"},
		{in: "https://api.example.com/v1##", err: "query or fragment"},
		{in: "https://hidden@api.example.com/v1", err: "put the key into A4F_API_KEY"},
		{in: "https://u:hidden@api.example.com/v1", err: "put the key into A4F_API_KEY"},
		{in: "https://u:hidden%zz@api.example.com/v1", err: "put the key into A4F_API_KEY"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := joinBase(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hidden") {
					t.Fatalf("joinBase(%q) = %v, error %v, want %q", tt.in, got, err, tt.err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("joinBase(%q) = %v, %v, want %s", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestConfigQuirk(t *testing.T) {
	c := mustLoad(t, baseSettings("UPSTREAM_QUIRKS", "think:off,lenient_eof"))
	for name, want := range map[string]string{
		"think": "off", "lenient_eof": "on", // set
		"max_tokens_field": "max_tokens", "learn": "on", "files": "off", "efforts": "low+medium+high", // defaults
		"unknown": "",
	} {
		if got := c.quirk(name); got != want {
			t.Errorf("quirk(%q) = %q, want %q", name, got, want)
		}
	}
}

// TestSecretDoesNotShow: in no way in which Go prints values.
func TestSecretDoesNotShow(t *testing.T) {
	c := mustLoad(t, baseSettings("APIPROXY_API_KEYS", "a:CANARY-1", "A4F_API_KEY", "CANARY-2", "REDIS_URL", "redis://:CANARY-3@h"))
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "config", c, "value", *c, "key", c.APIKey, "keys", c.ClientKeys)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(asJSON)
	fmt.Fprintf(&out, "%v %+v %#v %s %q %v %v", c, *c, *c, c.APIKey, c.RedisURL, c.ClientKeys, fmt.Errorf("%w", fmt.Errorf("%v", c.APIKey)))
	if strings.Contains(out.String(), "CANARY") {
		t.Errorf("a secret shows:\n%s", out.String())
	}
	if string(c.APIKey) != "CANARY-2" {
		t.Errorf("string(APIKey) = %q, want the key", string(c.APIKey))
	}
}

func TestReadDotEnv(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     map[string]string
	}{
		{"plain", "A=1\nB_2=two words\n", map[string]string{"A": "1", "B_2": "two words"}},
		{"nothing", "", map[string]string{}},
		{"comments and blanks", "# c\n\n  # c2\n\t\nA=1\n", map[string]string{"A": "1"}},
		{"inline comment", "A=1 # one\nB=2\t# two\nC= # none\n", map[string]string{"A": "1", "B": "2", "C": ""}},
		{"no comment without a space", "A=https://h/v1#\nB=#x\n", map[string]string{"A": "https://h/v1#", "B": "#x"}},
		{"spaces", "  A = 1 \n", map[string]string{"A": "1"}},
		{"export", "export A=1\nexport\tB=2\nexportC=3\nexport=4\n", map[string]string{"A": "1", "B": "2", "exportC": "3", "export": "4"}},
		{"equals in value", "A=b=c==\n", map[string]string{"A": "b=c=="}},
		{"single quotes", `A='x # "y" \n $z' # c`, map[string]string{"A": `x # "y" \n $z`}},
		{"double quotes", `A="x # 'y' \"q\" \\ \$z $w \d é" # c`, map[string]string{"A": `x # 'y' "q" \ $z $w \d é`}},
		{"escapes", `A="1\n2\t3\r4"`, map[string]string{"A": "1\n2\t3\r4"}},
		{"backslash before a wide character", `A="\é"`, map[string]string{"A": `\é`}},
		{"quotes with space around", `A=  "  x  "  `, map[string]string{"A": "  x  "}},
		{"empty quotes", "A=''\nB=\"\"\n", map[string]string{"A": "", "B": ""}},
		{"quote inside", `A=it's "so"`, map[string]string{"A": `it's "so"`}},
		{"empty", "A=\nB=1", map[string]string{"A": "", "B": "1"}},
		{"windows", "\ufeffA=1\r\n# c\r\nB=\"2\"\r\n", map[string]string{"A": "1", "B": "2"}},
		{"last wins", "A=1\nA=2\n", map[string]string{"A": "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readDotEnv([]byte(tt.in))
			if err != nil || !maps.Equal(got, tt.want) {
				t.Errorf("readDotEnv(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestReadDotEnvErrors(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"no equals", "A=1\n\nhidden\n", "line 3: not a setting; accepted: NAME=value"},
		{"bad name", "A-B=hidden", "line 1: not a setting"},
		{"name begins with a digit", "1A=hidden", "line 1: not a setting"},
		{"no name", "=hidden", "line 1: not a setting"},
		{"two words", "A B=hidden", "line 1: not a setting"},
		{"open single quote", "A='hidden\nB=1'", "line 1: A: the quote is not closed"},
		{"open double quote", `A="hidden\"`, "line 1: A: the quote is not closed"},
		{"double quote ends in a backslash", `A="hidden\`, "line 1: A: the quote is not closed"},
		{"text after quote", `A="x" hidden`, "line 1: A: text follows the closing quote"},
		{"not UTF-8", "A=hidden\xff", "line 1: A: the value is not text"},
		{"NUL", "A=hidden\x00", "line 1: A: the value is not text"},
		{"UTF-16", "\xff\xfeA\x00=\x001\x00", "UTF-16"},
		{"all at once", "hidden\nA=1\nB='", "line 1: not a setting; accepted: NAME=value\nline 3: B: the quote"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readDotEnv([]byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("the error shows the value: %v", err)
			}
		})
	}
}

// quoteDotEnv writes a value so that it reads back.
func quoteDotEnv(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "$", `\$`).Replace(value) + `"`
}

// FuzzReadDotEnv: any file gives values or an error that names a line, and what is
// quoted reads back whatever stands around it.
func FuzzReadDotEnv(f *testing.F) {
	for _, seed := range []string{"A=1\n", "export A='x' # c\r\n", `A="\n\"\\"`, "\ufeffA=", "A='", "=\x00", "\xff\xfe", "a#b\\c'd\"e\nf\r$g é\u0085"} {
		f.Add([]byte(seed), seed)
	}
	f.Fuzz(func(t *testing.T, file []byte, value string) {
		if _, err := readDotEnv(file); err != nil && !strings.Contains(err.Error(), "line ") {
			t.Errorf("readDotEnv(%q): the error names no line: %v", file, err)
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return
		}
		got, err := readDotEnv([]byte("# before\nexport A=" + quoteDotEnv(value) + " # after\r\nB=1\n"))
		if err != nil || got["A"] != value || got["B"] != "1" || len(got) != 2 {
			t.Errorf("%q reads back as %q, %v", value, got, err)
		}
		if strings.ContainsAny(value, "'\n") {
			return
		}
		if got, err := readDotEnv([]byte("A='" + value + "'")); err != nil || got["A"] != value {
			t.Errorf("%q in single quotes reads back as %q, %v", value, got, err)
		}
	})
}

var (
	settingLine   = regexp.MustCompile(`(?m)^(# )?([A-Z0-9_]+=)`)
	exampleValues = []string{ // not the default, since that is empty or has no text
		"APIPROXY_API_KEYS", "CORS_ORIGINS", "TLS_CERT_FILE", "TLS_KEY_FILE", "STREAM_PING", "REDIS_URL", "MODELS_STATIC",
		"MODEL_ALIASES", "MASK_ORIGIN", "MASK_REFERER", "FORWARD_HEADERS", "UPSTREAM_QUIRKS", "NATIVE_DIALECTS", "LOG_FORMAT", "METRICS_ADDR",
	}
)

func TestEnvExample(t *testing.T) {
	file, err := os.ReadFile(".env.example")
	if err != nil {
		t.Fatal(err)
	}
	asIs, err := readDotEnv(file)
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(asIs)); !slices.Equal(names, []string{"A4F_API_KEY", "A4F_BASE_URL"}) {
		t.Errorf("in force are %q, want the two required ones alone", names)
	}
	defaults, warnings, err := loadConfig(asIs)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "placeholder") {
		t.Fatalf("as it is: warnings %q, error %v", warnings, err)
	}
	all, err := readDotEnv(settingLine.ReplaceAll(file, []byte("$2")))
	if err != nil {
		t.Fatal(err)
	}
	known := settingNames()
	for _, name := range known {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is not in .env.example", name)
		}
	}
	for name := range all {
		if !slices.Contains(known, name) {
			t.Errorf("%s is in .env.example and no setting", name)
		}
		if _, ok := asIs[name]; ok || slices.Contains(exampleValues, name) {
			continue
		}
		one := maps.Clone(asIs)
		one[name] = all[name]
		if c, _, err := loadConfig(one); err != nil || !reflect.DeepEqual(c, defaults) {
			t.Errorf("%s=%s is not the default (error %v)", name, all[name], err)
		}
	}
	delete(all, "TLS_CERT_FILE")
	delete(all, "TLS_KEY_FILE")
	if _, _, err := loadConfig(all); err != nil {
		t.Errorf("with every line in force: %v", err)
	}
}
