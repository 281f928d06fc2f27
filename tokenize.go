package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// Some servers count tokens themselves: llama.cpp renders a conversation at
// /apply-template and counts text at /tokenize, vLLM counts a conversation at
// /tokenize. With the quirk tokenize:on their number takes the estimate's place.

// exactTokens asks the upstream; ok is false when it can't tell.
func (s *server) exactTokens(x *exchange, q *chatRequest) (n int64, ok bool) {
	if x.quirk("tokenize") != "on" {
		return 0, false
	}
	model := q.Model
	if to, ok := s.cfg.alias(model); ok {
		model = to
	}
	conversation := &chatRequest{Model: model, Messages: q.Messages, Tools: q.Tools}
	body, err := conversation.body()
	if err != nil {
		return 0, false
	}
	if prompt := member(s.askUpstream(x, "/apply-template", body), "prompt"); isString(prompt) {
		body = append(append([]byte(`{"content":`), prompt...), `,"add_special":true,"parse_special":true}`...)
	}
	answer := s.askUpstream(x, "/tokenize", body)
	if count := member(answer, "count"); isNumber(count) {
		return intOf(count), true
	}
	for range elements(member(answer, "tokens")) {
		n++
	}
	return n, n > 0
}

// askUpstream posts to a path beside the upstream's API and returns the JSON
// answer, nil when there is none.
func (s *server) askUpstream(x *exchange, path string, body []byte) json.RawMessage {
	ctx, cancel := context.WithTimeout(x.ctx, storeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.upstream.beside(path).String(), bytes.NewReader(body))
	if err != nil {
		return nil
	}
	req.Header = http.Header{"Content-Type": {"application/json"}}
	s.disguise(req.Header)
	s.sign(req.Header, x.cred.Key)
	res, err := s.upstream.transport.RoundTrip(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	answer, err := readAtMost(res.Body, maxAnswerBytes)
	if err != nil || res.StatusCode != http.StatusOK || checkJSON(answer) != nil {
		return nil
	}
	return answer
}

// beside is the upstream's address for a path that does not stand under the
// version of its API.
func (u *upstream) beside(path string) *url.URL {
	to := *u.base
	to.Path = nativeVersion.ReplaceAllString(strings.TrimSuffix(to.Path, "/"), "") + path
	to.RawPath, to.RawQuery = "", ""
	return &to
}
