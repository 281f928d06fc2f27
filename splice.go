package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"time"
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
	lease  *lease // of the buffer that the pieces are in
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

// maxJoined is the size up to which a payload goes upstream in one write with
// the headers: the transport does that with the readers alone that it knows, and
// its buffer has 4 KiB.
const maxJoined = 4 << 10

// reader reads the payload once. It ends at the last byte without being asked
// again, so the transport never reads past the end (promises.md 3).
func (p payload) reader() io.ReadCloser {
	if p.size <= maxJoined && p.lease == nil {
		return io.NopCloser(bytes.NewReader(p.bytes()))
	}
	p.lease.hold()
	return &payloadReader{rest: p.pieces, left: p.size, lease: p.lease}
}

// payloadReader has a lock because the transport may close a body that it is
// still reading, when a request is given up.
type payloadReader struct {
	mu    sync.Mutex
	rest  [][]byte
	off   int   // into the first of rest
	left  int64 // bytes of rest from there
	lease *lease
}

func (r *payloadReader) Read(dst []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for len(r.rest) > 0 && n < len(dst) {
		c := copy(dst[n:], r.rest[0][r.off:])
		n += c
		r.left -= int64(c)
		if r.off += c; r.off == len(r.rest[0]) {
			r.rest, r.off = r.rest[1:], 0
		}
	}
	if len(r.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (r *payloadReader) size() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

// WriteTo writes what is left as it lies, in one system call if w is a plain
// connection.
func (r *payloadReader) WriteTo(w io.Writer) (int64, error) {
	rest, l := r.takeRest()
	defer l.letGo()
	return rest.WriteTo(w)
}

// takeRest hands over what is left, with a hold on its buffer: Close must not
// have to wait for a slow write.
func (r *payloadReader) takeRest() (net.Buffers, *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rest) == 0 {
		return nil, nil
	}
	rest := slices.Clone(r.rest)
	rest[0] = rest[0][r.off:]
	r.rest, r.left = nil, 0
	r.lease.hold()
	return rest, r.lease
}

// Close lets go of the bytes: the transport may remember the reader for as long
// as the answer lasts.
func (r *payloadReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest, r.left = nil, 0
	r.lease.letGo()
	r.lease = nil
	return nil
}

// An upstreamConn is a connection to the upstream without TLS. The transport
// copies bodies to a connection through a buffer that it makes for each; one that
// the gateway holds anyway goes out as it lies.
type upstreamConn struct{ *net.TCPConn }

func (c upstreamConn) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if body, ok := limited.R.(*payloadReader); ok && body.size() <= limited.N {
			n, err := body.WriteTo(c.TCPConn)
			limited.N -= n
			return n, err
		}
	}
	return c.TCPConn.ReadFrom(r)
}

// dialUpstream opens a connection to the upstream.
func dialUpstream(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	conn, err := d.DialContext(ctx, network, addr)
	if tcp, ok := conn.(*net.TCPConn); ok {
		return upstreamConn{tcp}, err
	}
	return conn, err
}

// insertMember is the edit that puts a member first into the peeked object.
func (p *peeked) insertMember(member string) edit {
	if !p.empty {
		member += ","
	}
	return edit{at: span{p.open, p.open}, text: []byte(member)}
}
