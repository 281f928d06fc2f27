package main

import (
	"io"
	"sync"
)

// An edit replaces the bytes at a span of a body with other bytes. An empty
// span inserts.
type edit struct {
	at   span
	text []byte
}

// A payload is a request body as it goes upstream: the client's bytes, cut
// where something is put in. Nothing is copied, so that a large body is held
// once however it is changed, and a repeated request reads the same bytes.
type payload struct {
	pieces [][]byte
	size   int64
}

// splice is body with edits made, which must stand in the order of their
// places and not overlap.
func splice(body []byte, edits ...edit) payload {
	p := payload{pieces: make([][]byte, 0, 2*len(edits)+1)}
	at := 0
	for _, e := range edits {
		p.add(body[at:e.at.start])
		p.add(e.text)
		at = e.at.end
	}
	p.add(body[at:])
	return p
}

func (p *payload) add(b []byte) {
	if len(b) == 0 {
		return
	}
	p.pieces = append(p.pieces, b)
	p.size += int64(len(b))
}

// bytes is the payload in one piece; it copies only when there are several.
func (p payload) bytes() []byte {
	if len(p.pieces) == 1 {
		return p.pieces[0]
	}
	b := make([]byte, 0, p.size)
	for _, piece := range p.pieces {
		b = append(b, piece...)
	}
	return b
}

// reader reads the payload once. It ends at the last byte without being asked
// again, so the transport never reads past the end (promises.md 3).
func (p payload) reader() io.ReadCloser { return &payloadReader{rest: p.pieces} }

// payloadReader has a lock because the transport may close a body that it is
// still reading, when a request is given up.
type payloadReader struct {
	mu   sync.Mutex
	rest [][]byte
	off  int // into the first of rest
}

func (r *payloadReader) Read(dst []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for len(r.rest) > 0 && n < len(dst) {
		c := copy(dst[n:], r.rest[0][r.off:])
		n += c
		if r.off += c; r.off == len(r.rest[0]) {
			r.rest, r.off = r.rest[1:], 0
		}
	}
	if len(r.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// Close lets go of the bytes: the transport may remember the reader for as long
// as the answer lasts.
func (r *payloadReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = nil
	return nil
}

// insertMember is the edit that puts a member first into the peeked object.
func (p *peeked) insertMember(member string) edit {
	if !p.empty {
		member += ","
	}
	return edit{at: span{p.open, p.open}, text: []byte(member)}
}
