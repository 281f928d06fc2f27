package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
)

// minMasked is the length from which a key counts as a secret: what is shorter
// is a dummy such as "none", and may occur in any text.
const minMasked = 12

// A mask hides keys in what goes to clients and into logs.
type mask struct {
	upstream []byte   // the upstream's key, nil when it has none to hide
	all      []string // every key that the gateway knows
}

func newMask(cfg *config) *mask {
	m := &mask{}
	if len(cfg.APIKey) >= minMasked {
		m.upstream = []byte(cfg.APIKey)
		m.all = append(m.all, string(cfg.APIKey))
	}
	for _, k := range cfg.ClientKeys {
		if len(k.Key) >= minMasked {
			m.all = append(m.all, string(k.Key))
		}
	}
	// The longest first: a key may be part of another.
	slices.SortFunc(m.all, func(a, b string) int { return len(b) - len(a) })
	return m
}

// text hides every known key in s.
func (m *mask) text(s string) string {
	for _, key := range m.all {
		s = strings.ReplaceAll(s, key, strings.Repeat("*", len(key)))
	}
	return s
}

// bytes hides the upstream's key in b, in place and at equal length.
func (m *mask) bytes(b []byte) {
	if len(m.upstream) == 0 {
		return
	}
	for {
		i := bytes.Index(b, m.upstream)
		if i < 0 {
			return
		}
		for j := range m.upstream {
			b[i+j] = '*'
		}
		b = b[i+len(m.upstream):]
	}
}

// reader hides the upstream's key in what is read from r.
func (m *mask) reader(r io.ReadCloser) io.ReadCloser {
	if len(m.upstream) == 0 {
		return r
	}
	return &maskReader{mask: m, src: r}
}

// maskReader holds back an end that may be the beginning of the key, until it
// is known what follows.
type maskReader struct {
	mask  *mask
	src   io.ReadCloser
	held  []byte // suspected; shorter than the key
	ready []byte // looked through, but too much for the last caller's buffer
	err   error  // after ready
}

func (r *maskReader) Read(p []byte) (int, error) {
	if len(r.ready) == 0 && r.err == nil && len(p) <= len(r.mask.upstream) {
		roomy := make([]byte, len(r.mask.upstream)+512)
		n, err := r.fill(roomy)
		r.ready, r.err = roomy[:n], err
	}
	if len(r.ready) > 0 {
		n := copy(p, r.ready)
		r.ready = r.ready[n:]
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	return r.fill(p)
}

// fill reads into p, which is longer than the key, until there is something to
// hand on.
func (r *maskReader) fill(p []byte) (int, error) {
	for {
		n := copy(p, r.held)
		m, err := r.src.Read(p[n:])
		n += m
		r.held = r.held[:0]
		r.mask.bytes(p[:n])
		if err == nil {
			keep := suspect(p[:n], r.mask.upstream)
			r.held = append(r.held, p[n-keep:n]...)
			n -= keep
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (r *maskReader) Close() error { return r.src.Close() }

// suspect is the length of the longest end of b with which key begins.
func suspect(b, key []byte) int {
	if len(b) == 0 || bytes.IndexByte(key, b[len(b)-1]) < 0 {
		return 0
	}
	for n := min(len(b), len(key)-1); n > 0; n-- {
		if bytes.HasSuffix(b, key[:n]) {
			return n
		}
	}
	return 0
}

// upstreamKey hides the upstream's key in a header's value.
func (m *mask) upstreamKey(v string) string {
	if len(m.upstream) == 0 || !strings.Contains(v, string(m.upstream)) {
		return v
	}
	return strings.ReplaceAll(v, string(m.upstream), strings.Repeat("*", len(m.upstream)))
}
