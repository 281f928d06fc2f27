package main

import (
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// This file decides which headers cross the gateway. Requests go by an
// allow-list, so that nothing of a client's reaches the upstream that it did not
// mean to send there; answers by a list of what is the upstream's own affair.

// A headerSet is a set of header names.
type headerSet struct {
	names    map[string]bool
	prefixes [1 << 8][]string // by their first byte
}

// newHeaderSet makes a set of canonical names. One that ends in "*" stands for
// all that begin so.
func newHeaderSet(patterns ...string) *headerSet {
	set := &headerSet{names: make(map[string]bool, len(patterns))}
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			if prefix == "" {
				prefix = "*"
			}
			set.prefixes[prefix[0]] = append(set.prefixes[prefix[0]], prefix)
		} else {
			set.names[p] = true
		}
	}
	return set
}

func (s *headerSet) has(name string) bool {
	return s.names[name] || name != "" && slices.ContainsFunc(s.prefixes[name[0]], func(p string) bool { return strings.HasPrefix(name, p) })
}

// forwardedHeaders are the request headers that go upstream.
func forwardedHeaders(cfg *config) *headerSet {
	names := []string{"Content-Type", "Accept", "Openai-*", "Idempotency-Key", "Http-Referer", "X-Title", "X-Request-Id", "Traceparent", "Tracestate"}
	if !cfg.MaskAsBrowser {
		names = append(names, "User-Agent", "X-Stainless-*")
	}
	if slices.Contains(cfg.NativeDialects, "messages") {
		names = append(names, "Anthropic-*")
	}
	return newHeaderSet(append(names, cfg.ForwardHeaders...)...)
}

// upstreamHeader makes the headers of the request to the upstream.
func (s *server) upstreamHeader(r *http.Request, x *exchange) http.Header {
	out := make(http.Header, 8)
	dropped := connectionListed(r.Header)
	for name, values := range r.Header {
		if s.forwards.has(name) && (name == "Content-Type" || !slices.Contains(dropped, name)) {
			out[name] = values
		}
	}
	s.disguise(out)
	s.sign(out, x.cred.Key)
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = nil // or the transport would make one up
	}
	if x.native {
		nativeKey(out, x.source)
	}
	return out
}

// nativeKey moves the key to where the servers of a dialect take it.
func nativeKey(h http.Header, dialect string) {
	name, ok := nativeKeys[dialect]
	if bearer, signed := h["Authorization"]; ok && signed {
		delete(h, "Authorization")
		h[name] = []string{strings.TrimPrefix(bearer[0], "Bearer ")}
	}
}

// connectionListed are the names that a Connection header declares to be meant
// for this hop alone.
func connectionListed(h http.Header) []string {
	var names []string
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			names = append(names, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	return names
}

// disguise makes a request look like a browser's, if that is asked for.
func (s *server) disguise(h http.Header) {
	maps.Copy(h, s.disguises)
}

// disguises are the headers that make a request look like a browser's.
func disguises(cfg *config) http.Header {
	h := http.Header{}
	for name, value := range map[string]string{"User-Agent": cfg.MaskUserAgent, "Origin": cfg.MaskOrigin, "Referer": cfg.MaskReferer} {
		if cfg.MaskAsBrowser && value != "" {
			h[name] = []string{value}
		}
	}
	return h
}

// sign puts the key for the upstream in: the client's own in mode passthrough,
// else the gateway's.
func (s *server) sign(h http.Header, clients secret) {
	switch {
	case s.cfg.Auth != authPassthrough:
		maps.Copy(h, s.signature)
	case clients != "":
		h["Authorization"] = []string{"Bearer " + string(clients)}
	}
}

// signature is the header with the gateway's key for the upstream.
func signature(cfg *config) http.Header {
	if cfg.APIKey == "" {
		return nil
	}
	return http.Header{"Authorization": {"Bearer " + string(cfg.APIKey)}}
}

// secretQuery are the query names that carry keys; they never go upstream.
var secretQuery = []string{"key", "api_key", "apikey", "access_token", "token"}

// cleanQuery is a raw query without the pairs that carry keys; the others keep
// their bytes.
func cleanQuery(raw string) string {
	if raw == "" {
		return ""
	}
	pairs := strings.Split(raw, "&")
	pairs = slices.DeleteFunc(pairs, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		return err != nil || strings.Contains(pair, ";") || slices.Contains(secretQuery, strings.ToLower(name))
	})
	return strings.Join(pairs, "&")
}

// withheld are the headers of an answer that are the upstream's own affair
// (dialects F.5): its cookies and keys, what its servers say about themselves,
// and what holds for its connection or its origin alone.
var withheld = newHeaderSet(
	"Set-Cookie", "Set-Cookie2", "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Www-Authenticate", "Proxy-*",
	"Server", "Via", "X-Powered-By", "Server-Timing", "X-Served-By", "X-Backend-*", "X-Internal-*", "X-Forwarded-*", "X-Real-Ip",
	"Cf-*", "X-Envoy-*", "X-Amz-*", "X-Amzn-*", "X-Kong-*", "X-Apiproxy-*", "X-Session-*",
	"X-Accel-Redirect", "X-Sendfile", "X-Lighttpd-Send-File", // orders to a web server in front
	"Alt-Svc", "Strict-Transport-Security", "Public-Key-Pins", "Nel", "Report-To", "Reporting-Endpoints", "Content-Security-Policy*",
	"Access-Control-*", "Cross-Origin-*", "Timing-Allow-Origin", "X-Content-Type-Options", "Clear-Site-Data",
	"Location", "Refresh", "Trailer",
)

// filterResponse takes out of an answer's headers what clients must not see.
// The upstream's request id moves aside for the gateway's.
func filterResponse(h http.Header, m *mask) {
	for name, values := range h {
		if withheld.has(name) {
			delete(h, name)
			continue
		}
		for i, v := range values {
			values[i] = m.upstreamKey(v)
		}
	}
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if id, ok := h[name]; ok {
			delete(h, name)
			h["X-Upstream-Request-Id"] = id
		}
	}
}
