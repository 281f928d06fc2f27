package main

import "crypto/rand"

// newCallID makes a tool call's id: nine characters of [a-z0-9], which the
// strictest upstream demands and all others accept (dialects 0-11).
func newCallID() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, 9)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

// newID makes an id of a vendor's form: the prefix, then 32 hex digits.
func newID(prefix string) string { return prefix + randomHex(16) }
