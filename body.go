package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A request body that stalls is given up: after bodyStall without a byte, and
// when it has come more slowly than slowestBody since its first bodyStall.
const (
	bodyStall   = 60 * time.Second
	slowestBody = 1 << 10 // bytes a second
)

// limitBody makes a request's body ready to be forwarded as it comes. It reads
// the beginning, or all of a short one, so that a body which is cut off or badly
// framed does not reach the upstream.
func (s *server) limitBody(w http.ResponseWriter, r *http.Request) error {
	if err := s.openBody(w, r); err != nil {
		return err
	}
	b, ok := r.Body.(*clientBody)
	if !ok {
		return nil
	}
	read, size := b.Reader.Read, int64(firstRead)
	if 0 < r.ContentLength && r.ContentLength <= shortBody {
		read, size = b.readFull, r.ContentLength
	}
	head := make([]byte, size)
	n, err := read(head)
	if err != nil && err != io.EOF {
		return bodyError(err)
	}
	b.Reader = io.MultiReader(bytes.NewReader(head[:n]), b.Reader)
	return nil
}

const (
	shortBody = 16 << 10 // up to this declared length, a forwarded body is awaited whole
	firstRead = 4 << 10  // of any other
)

// openBody puts the limits on a request's body that hold for every route: its
// size, its pace, and its encoding, which is taken off.
func (s *server) openBody(w http.ResponseWriter, r *http.Request) error {
	limit := s.cfg.MaxBodyBytes
	if limit > 0 && r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body := &clientBody{x: exchangeOf(r), capture: s.cfg.LogBodies}
	body.paced = pacedBody{src: r.Body, control: controlOf(w), start: body.x.start, left: r.ContentLength}
	body.Reader = &body.paced
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header["Content-Encoding"], ",")))
	if encoding != "" && encoding != "identity" {
		unpacked, err := unpack(&body.paced, encoding)
		if err != nil {
			return unpackError(w, err, encoding)
		}
		body.Reader, r.ContentLength = unpacked, -1
	}
	if limit > 0 && r.ContentLength < 0 {
		body.Reader = http.MaxBytesReader(w, io.NopCloser(body.Reader), limit)
	}
	r.Body = body
	return nil
}

// readBody reads a request's body whole, within the limits.
func (s *server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := s.openBody(w, r); err != nil {
		return nil, err
	}
	if r.Body == nil {
		return nil, nil
	}
	body, l, err := readWhole(r.Body, r.ContentLength)
	if err != nil {
		return nil, bodyError(err)
	}
	exchangeOf(r).body = l
	return bytes.TrimPrefix(body, []byte("\ufeff")), nil
}

// bodyError is what a client is told of a body that could not be read.
func bodyError(err error) *apiError {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return bodyTooLarge(tooLarge.Limit)
	case isTimeout(err):
		return &apiError{Status: http.StatusRequestTimeout, Type: "invalid_request_error", Code: "request_timeout", Message: "the request body came too slowly", cause: err}
	case isCorrupt(err):
		e := badRequest("", "the request body can't be decompressed: "+err.Error())
		e.Code = "invalid_encoding"
		return e
	}
	e := badRequest("", "the request body ended before its declared length")
	e.cause = err
	return e
}

func isCorrupt(err error) bool {
	var c flate.CorruptInputError
	if errors.As(err, &c) {
		return true
	}
	return slices.ContainsFunc([]error{
		gzip.ErrHeader, gzip.ErrChecksum, zlib.ErrHeader, zlib.ErrChecksum, zlib.ErrDictionary, errCutOff, errTrailing,
	}, func(kind error) bool { return errors.Is(err, kind) })
}

var (
	errEncoding = errors.New("unknown content encoding")
	errCutOff   = errors.New("the compressed data is cut off")
	errTrailing = errors.New("the compressed data is followed by more")
)

// unpack takes a content encoding off a body: gzip, or deflate with and without
// its zlib wrapper, since clients disagree about that one.
func unpack(body io.Reader, encoding string) (io.Reader, error) {
	packed := bufio.NewReader(body)
	var unpacked io.Reader
	var err error
	switch encoding {
	case "gzip", "x-gzip":
		unpacked, err = gzip.NewReader(packed)
	case "deflate":
		head, _ := packed.Peek(2)
		if len(head) == 2 && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			unpacked, err = zlib.NewReader(packed)
		} else {
			unpacked = flate.NewReader(packed)
		}
	default:
		err = errEncoding
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errCutOff
	}
	if err != nil {
		return nil, err
	}
	return &unpacker{unpacked, packed}, nil
}

// An unpacker reads unpacked data, and takes nothing but whole packed data for
// its end.
type unpacker struct {
	unpacked io.Reader
	packed   *bufio.Reader
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.unpacked.Read(p)
	switch err {
	case io.ErrUnexpectedEOF:
		err = errCutOff
	case io.EOF:
		// Reading on to the body's own end also tells the server that the client
		// has sent everything; only then does it notice the client leaving.
		if _, err = u.packed.ReadByte(); err == nil {
			err = errTrailing
		}
	}
	return n, err
}

func unpackError(w http.ResponseWriter, err error, encoding string) error {
	if !errors.Is(err, errEncoding) {
		return bodyError(err)
	}
	w.Header().Set("Accept-Encoding", "gzip, deflate")
	return &apiError{
		Status: http.StatusUnsupportedMediaType, Type: "invalid_request_error", Code: "unsupported_encoding", Param: "Content-Encoding", NoRetry: true,
		Message: "the Content-Encoding " + printable(encoding) + " is not supported; send gzip, deflate, or none",
	}
}

// decompress takes the encoding off an upstream's answer, which compresses
// though nobody asked for it.
func decompress(res *http.Response) error {
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(res.Header["Content-Encoding"], ",")))
	if encoding == "" || encoding == "identity" || res.Body == http.NoBody {
		return nil
	}
	r, err := unpack(res.Body, encoding)
	if err != nil {
		return upstreamFailure(http.StatusBadGateway, "upstream_malformed", "the upstream's answer is compressed in a way that it was not asked for and that can't be undone", err)
	}
	res.Header.Del("Content-Encoding")
	res.Header.Del("Content-Length")
	res.ContentLength = -1
	res.Body = readCloser{r, res.Body}
	return nil
}

// readCloser reads from one and closes the other.
type readCloser struct {
	io.Reader
	io.Closer
}

// A clientBody is a request's body as handlers read it: unpacked and within the
// limits. It notes in the exchange what has come, until Close: the transport may
// still read when the exchange is over. The server closes the body itself.
type clientBody struct {
	io.Reader
	paced   pacedBody
	x       *exchange
	capture bool // with LOG_BODIES

	mu     sync.Mutex
	closed bool
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.note(p[:n])
	if err != nil && err != io.EOF {
		err = clientBodyError{err}
	}
	return n, err
}

// readFull fills p, before the first Read.
func (b *clientBody) readFull(p []byte) (int, error) { return io.ReadFull(b.Reader, p) }

func (b *clientBody) note(read []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.x.bytesIn = b.paced.count
	if b.capture {
		seen := &b.x.requestBody
		*seen = append(*seen, read[:min(len(read), maxLoggedBody-len(*seen))]...)
	}
}

func (b *clientBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// pacedBody gives a client no longer for its body than it needs, and counts it.
type pacedBody struct {
	src     io.Reader
	control readDeadliner
	start   time.Time
	until   time.Time // the read deadline that is set
	count   int64     // bytes so far, packed as they come
	left    int64     // until the declared end; below 0 when there is none
}

type readDeadliner interface{ SetReadDeadline(time.Time) error }

// controlOf is how the connection under a ResponseWriter is reached.
func controlOf(w http.ResponseWriter) readDeadliner {
	if sw, ok := w.(*statusWriter); ok {
		return sw.control
	}
	return http.NewResponseController(w)
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		// The transport must not read past the end: if the answer has begun by
		// then, the server has closed the body, and the connection is lost.
		return 0, io.EOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	b.extend(time.Now())
	n, err := b.src.Read(p)
	b.count += int64(n)
	if b.left > 0 {
		b.left -= int64(n)
	}
	if err == io.EOF || b.left == 0 {
		b.control.SetReadDeadline(time.Time{}) // or it would end the wait for the answer
	}
	return n, err
}

// extend moves the deadline when half of it is over, to spare the timers.
func (b *pacedBody) extend(now time.Time) {
	if b.until.Sub(now) > bodyStall/2 {
		return
	}
	b.until = now.Add(bodyStall)
	if slow := b.start.Add(bodyStall + time.Duration(b.count/slowestBody)*time.Second); slow.Before(b.until) {
		b.until = slow
	}
	b.control.SetReadDeadline(b.until)
}

// clientBodyError is a failure to read what the client sends, as against one of
// the upstream's.
type clientBodyError struct{ error }

func (e clientBodyError) Unwrap() error { return e.error }
