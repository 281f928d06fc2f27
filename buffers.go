package main

import (
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffers of request bodies are used again: making one of 200 KB for each
// request, and collecting it, costs more than all else that is done with it.

// Sizes of the buffers that are used again, as powers of two. A smaller one costs
// less to make than to keep, a larger one is too seldom needed.
const (
	minLeased = 13 // 8 KiB
	maxLeased = 23 // 8 MiB
)

// A lease is a buffer that a body was read into, while anybody may still read
// it: the exchange, which may have to send it again, and the transport, which
// may go on reading when the exchange is over. The methods of a nil lease do
// nothing; then the buffer is left to the collector.
type lease struct {
	buf   []byte
	users atomic.Int32
}

var leases [maxLeased + 1]sync.Pool

// newLease takes a buffer for size bytes, for one user; nil for a size that is
// not kept.
func newLease(size int) *lease {
	class := max(bits.Len(uint(size-1)), minLeased)
	if size <= 1<<(minLeased-1) || class > maxLeased {
		return nil
	}
	l, ok := leases[class].Get().(*lease)
	if !ok {
		l = &lease{buf: make([]byte, 1<<class)}
	}
	l.users.Store(1)
	return l
}

// hold adds a user.
func (l *lease) hold() {
	if l != nil {
		l.users.Add(1)
	}
}

// letGo takes a user away. After the last, the buffer belongs to somebody else.
func (l *lease) letGo() {
	if l != nil && l.users.Add(-1) == 0 {
		leases[bits.Len(uint(len(l.buf)-1))].Put(l)
	}
}

// buffer is the lease's buffer, empty, or a new one of that size.
func (l *lease) buffer(size int) []byte {
	if l == nil {
		return make([]byte, 0, size)
	}
	return l.buf[:0]
}

// How much memory a body is believed to need before anything of it has come.
const (
	maxBodyGuess = 1 << 20 // at most, whatever it declares
	unknownBody  = 4 << 10 // when it declares nothing
)

// readWhole reads r to its end. declared is how long it says that it is, or less
// than 0.
func readWhole(r io.Reader, declared int64) ([]byte, *lease, error) {
	size := unknownBody
	if declared > 0 {
		size = int(min(declared, maxBodyGuess))
	}
	l := newLease(size)
	b := l.buffer(size)
	for {
		if len(b) == cap(b) {
			size := nextSize(cap(b), declared)
			larger := newLease(size)
			b = append(larger.buffer(size), b...)
			l.letGo()
			l = larger
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == io.EOF:
			return b, l, nil
		case err != nil:
			l.letGo()
			return nil, nil, err
		}
	}
}

// nextSize is the size of the buffer after a full one. A body that has sent an
// eighth of what it declares is believed: a large one must not be copied again and
// again, and held twice each time.
func nextSize(size int, declared int64) int {
	if declared > int64(size) {
		return int(min(declared, 8*int64(size)))
	}
	return 2 * size
}
