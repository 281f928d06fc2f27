package main

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// This file decides which headers cross the gateway. Requests go by an
// allow-list, so that nothing of a client's reaches the upstream that it did not
// mean to send there; answers by a list of what is the upstream's own affair.

// forwarded are the request headers that go upstream. A name that ends in "*"
// stands for all that begin so.
var forwarded = []string{
	"Content-Type", "Accept", "Openai-*", "Idempotency-Key", "Http-Referer", "X-Title", "X-Request-Id", "Traceparent", "Tracestate",
}

// unmasked go upstream too, unless MASK_AS_BROWSER hides what the client is.
var unmasked = []string{"User-Agent", "X-Stainless-*"}

// upstreamHeader makes the headers of the request to the upstream.
func (s *server) upstreamHeader(r *http.Request, x *exchange) http.Header {
	out := make(http.Header, 8)
	dropped := connectionListed(r.Header)
	for name, values := range r.Header {
		if !s.goesUpstream(name) || slices.Contains(dropped, name) && name != "Content-Type" {
			continue
		}
		out[name] = values
	}
	s.disguise(out)
	s.sign(out, x.cred.Key)
	return out
}

func (s *server) goesUpstream(name string) bool {
	return matchesName(forwarded, name) || matchesName(s.cfg.ForwardHeaders, name) ||
		!s.cfg.MaskAsBrowser && matchesName(unmasked, name)
}

func matchesName(list []string, name string) bool {
	for _, l := range list {
		if l == name {
			return true
		}
		if prefix, ok := strings.CutSuffix(l, "*"); ok && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
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
	if !s.cfg.MaskAsBrowser {
		return
	}
	for name, value := range map[string]string{"User-Agent": s.cfg.MaskUserAgent, "Origin": s.cfg.MaskOrigin, "Referer": s.cfg.MaskReferer} {
		if value != "" {
			h[name] = []string{value}
		}
	}
}

// sign puts the key for the upstream in: the client's own in mode passthrough,
// else the gateway's.
func (s *server) sign(h http.Header, clients secret) {
	key := s.cfg.APIKey
	if s.cfg.Auth == authPassthrough {
		key = clients
	}
	if key != "" {
		h["Authorization"] = []string{"Bearer " + string(key)}
	}
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
var withheld = []string{
	"Set-Cookie", "Set-Cookie2", "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Www-Authenticate",
	"Server", "Via", "X-Powered-By", "Alt-Svc", "Strict-Transport-Security", "Public-Key-Pins", "Nel", "Report-To", "Reporting-Endpoints",
	"Server-Timing", "Access-Control-*", "Content-Security-Policy*", "Cf-*", "X-Envoy-*", "X-Amz-*", "X-Amzn-*", "X-Kong-*",
	"X-Internal-*", "X-Forwarded-*", "X-Real-Ip", "X-Served-By", "X-Backend-*", "X-Content-Type-Options", "X-Apiproxy-*", "X-Session-*",
	"Location", "Refresh", "Clear-Site-Data", "Trailer", "Proxy-*",
}

// filterResponse takes out of an answer's headers what clients must not see.
// The upstream's request id moves aside for the gateway's.
func filterResponse(h http.Header, m *mask) {
	for name, values := range h {
		if matchesName(withheld, name) {
			delete(h, name)
			continue
		}
		for i, v := range values {
			values[i] = m.upstreamKey(v)
		}
	}
	if id, ok := h["X-Request-Id"]; ok {
		delete(h, "X-Request-Id")
		h["X-Upstream-Request-Id"] = id
	}
}
