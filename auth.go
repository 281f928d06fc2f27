package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
)

// A credential is who sent a request.
type credential struct {
	Label string // for logs and metrics; never the key or a part of it
	Owner string // whose sessions and responses: a hash of the key, or anonymousUser
	Key   secret // what the client sent; goes upstream in mode passthrough alone
}

// A keyring decides which keys open the gateway.
type keyring struct {
	mode authMode
	keys []knownKey
}

type knownKey struct {
	hash [sha256.Size]byte
	cred credential
}

func newKeyring(cfg *config) *keyring {
	k := &keyring{mode: cfg.Auth}
	for _, c := range cfg.ClientKeys {
		k.keys = append(k.keys, knownKey{
			hash: sha256.Sum256([]byte(c.Key)),
			cred: credential{Label: c.Label, Owner: ownerOf(string(c.Key))},
		})
	}
	return k
}

// ownerOf is the name under which a key's sessions are stored. It can't be
// turned back into the key.
func ownerOf(key string) string {
	sum := sha256.Sum256([]byte("owner\x00" + key))
	return hex.EncodeToString(sum[:12])
}

// open decides whether any of the keys that a request carries opens the
// gateway. The time it takes does not tell how much of a key was right.
func (k *keyring) open(sent []string) (credential, bool) {
	switch k.mode {
	case authOff:
		return credential{Label: anonymousUser, Owner: anonymousUser}, true
	case authPassthrough:
		if len(sent) == 0 {
			return credential{}, false
		}
		return credential{Label: string(authPassthrough), Owner: ownerOf(sent[0]), Key: secret(sent[0])}, true
	}
	var found credential
	ok := false
	for _, s := range slices.Backward(sent) { // of several known keys the first counts
		hash := sha256.Sum256([]byte(s))
		for i := range k.keys {
			if subtle.ConstantTimeCompare(hash[:], k.keys[i].hash[:]) == 1 {
				found, ok = k.keys[i].cred, true
			}
		}
	}
	return found, ok
}

// keyHeaders are the headers in which clients send a key of theirs.
var keyHeaders = [...]string{"Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key"}

// keyHeadersOf are those headers, that of the request's own dialect first: it
// counts when there are several (dialects C-2).
func keyHeadersOf(r *http.Request) [len(keyHeaders)]string {
	names := keyHeaders
	switch dialectOf(r) {
	case &anthropic:
		names[0], names[1] = names[1], names[0]
	case &gemini:
		names[0], names[2] = names[2], names[0]
	}
	return names
}

// keysOf collects the keys that a request carries; none when a header that
// carries one is there twice, since readers would disagree on which counts.
func keysOf(r *http.Request) []string {
	var sent []string
	for _, name := range keyHeadersOf(r) {
		values := r.Header[name]
		if len(values) > 1 {
			return nil
		}
		if len(values) == 0 {
			continue
		}
		key := values[0]
		if name == "Authorization" {
			scheme, token, _ := strings.Cut(key, " ")
			if !strings.EqualFold(scheme, "Bearer") {
				continue
			}
			key = strings.TrimLeft(token, " ")
		}
		sent = append(sent, key)
	}
	if takesQueryKey(r) {
		if keys := r.URL.Query()["key"]; len(keys) == 1 {
			sent = append(sent, keys[0])
		}
	}
	// No key is anything else; a line break in a query's would be one in a header.
	return slices.DeleteFunc(sent, func(key string) bool { return key == "" || !visibleASCII(key) })
}

// takesQueryKey says whether a request is one of Gemini's, whose clients may put
// the key into the query.
func takesQueryKey(r *http.Request) bool {
	if r.URL.RawQuery == "" {
		return false
	}
	p := r.URL.Path
	if strings.HasPrefix(p, "/v1beta/") || strings.HasPrefix(p, "/v1alpha/") {
		return true
	}
	call := strings.HasPrefix(p, "/v1/models/") && strings.Contains(p[strings.LastIndexByte(p, '/'):], ":")
	return call && r.Method == http.MethodPost
}

// authed lets a request through to next if it carries a key that opens.
func (s *server) authed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		cred, ok := s.keys.open(keysOf(r))
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="apiproxy"`)
			writeError(w, x, &apiError{
				Status: http.StatusUnauthorized, Type: "invalid_request_error", Code: "invalid_api_key", NoRetry: true,
				Message: "missing or wrong API key: send a key of this gateway as Authorization: Bearer KEY, x-api-key, x-goog-api-key or api-key",
			})
			return
		}
		x.cred = cred
		next(w, r)
	}
}
