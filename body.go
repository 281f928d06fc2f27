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
	"strings"
	"time"
)

// A request body that stalls is given up: after bodyStall without a byte, and
// when it has come more slowly than slowestBody since its first bodyStall.
const (
	bodyStall   = 60 * time.Second
	slowestBody = 1 << 10 // bytes a second
)

// limitBody puts the limits on a request's body that hold for every route: its
// size, its pace, and its encoding, which is taken off.
func (s *server) limitBody(w http.ResponseWriter, r *http.Request) error {
	limit := s.cfg.MaxBodyBytes
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header["Content-Encoding"], ",")))
	if limit > 0 && r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	x := exchangeOf(r)
	body := io.ReadCloser(&pacedBody{src: r.Body, control: http.NewResponseController(w), x: x, start: time.Now()})
	if encoding != "" && encoding != "identity" {
		unpacked, err := unpack(body, encoding)
		if err != nil {
			return unpackError(w, err, encoding)
		}
		body = readCloser{unpacked, body}
		r.ContentLength = -1
	}
	if limit > 0 {
		body = http.MaxBytesReader(w, body, limit)
	}
	if s.cfg.LogBodies {
		body = readCloser{io.TeeReader(body, (*headCapture)(&x.requestBody)), body}
	}
	if r.ContentLength > 0 {
		// The transport must not read past the end: if the answer has begun by
		// then, the server has closed the body, and the connection is lost.
		body = readCloser{io.LimitReader(body, r.ContentLength), body}
	}
	r.Body = body
	return nil
}

// readBody reads a request's body whole, within the limits.
func (s *server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := s.limitBody(w, r); err != nil {
		return nil, err
	}
	if r.Body == nil {
		return nil, nil
	}
	var b bytes.Buffer
	if n := r.ContentLength; n > 0 {
		b.Grow(int(n) + bytes.MinRead) // ReadFrom wants that much to spare, or it grows the buffer once more
	}
	_, err := b.ReadFrom(r.Body)
	if err != nil {
		return nil, bodyError(err)
	}
	return bytes.TrimPrefix(b.Bytes(), []byte("\ufeff")), nil
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
	return errors.As(err, &c) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) ||
		errors.Is(err, zlib.ErrHeader) || errors.Is(err, zlib.ErrChecksum) || errors.Is(err, zlib.ErrDictionary) || errors.Is(err, errCutOff)
}

var (
	errEncoding = errors.New("unknown content encoding")
	errCutOff   = errors.New("the compressed data is cut off")
)

// unpack takes a content encoding off a body: gzip, or deflate with and without
// its zlib wrapper, since clients disagree about that one.
func unpack(body io.Reader, encoding string) (io.Reader, error) {
	switch encoding {
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(body)
		return cutOffReader{r}, notEOF(err)
	case "deflate":
		b := bufio.NewReader(body)
		head, _ := b.Peek(2)
		if len(head) == 2 && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			r, err := zlib.NewReader(b)
			return cutOffReader{r}, notEOF(err)
		}
		return cutOffReader{flate.NewReader(b)}, nil
	}
	return nil, errEncoding
}

// cutOffReader tells an end in the middle of compressed data from the client
// leaving.
type cutOffReader struct{ io.Reader }

func (r cutOffReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = errCutOff
	}
	return n, err
}

func notEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCutOff
	}
	return err
}

func unpackError(w http.ResponseWriter, err error, encoding string) error {
	if errors.Is(err, errEncoding) {
		w.Header().Set("Accept-Encoding", "gzip, deflate")
		return &apiError{
			Status: http.StatusUnsupportedMediaType, Type: "invalid_request_error", Code: "unsupported_encoding", Param: "Content-Encoding", NoRetry: true,
			Message: "the Content-Encoding " + printable(encoding) + " is not supported; send gzip, deflate, or none",
		}
	}
	e := badRequest("", "the request body can't be decompressed: "+err.Error())
	e.Code = "invalid_encoding"
	return e
}

// decompress takes the encoding off an upstream's answer, which compresses
// though nobody asked for it.
func decompress(res *http.Response) error {
	encoding := strings.ToLower(strings.TrimSpace(res.Header.Get("Content-Encoding")))
	if encoding == "" || encoding == "identity" {
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

// pacedBody gives a client no longer for its body than it needs, and counts it.
type pacedBody struct {
	src     io.ReadCloser
	control *http.ResponseController
	x       *exchange
	start   time.Time
	until   time.Time // the read deadline that is set
}

func (b *pacedBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.src.Read(p)
	b.x.bytesIn += int64(n)
	if err == nil {
		return n, nil
	}
	b.control.SetReadDeadline(time.Time{}) // or it would end the wait for the answer
	if err != io.EOF {
		err = clientBodyError{err}
	}
	return n, err
}

// extend moves the deadline when half of it is over, to spare the timers.
func (b *pacedBody) extend() {
	now := time.Now()
	if b.until.Sub(now) > bodyStall/2 {
		return
	}
	b.until = now.Add(bodyStall)
	if slow := b.start.Add(bodyStall + time.Duration(b.x.bytesIn/slowestBody)*time.Second); slow.Before(b.until) {
		b.until = slow
	}
	b.control.SetReadDeadline(b.until)
}

func (b *pacedBody) Close() error { return b.src.Close() }

// clientBodyError is a failure to read what the client sends, as against one of
// the upstream's.
type clientBodyError struct{ error }

func (e clientBodyError) Unwrap() error { return e.error }

// headCapture keeps the beginning of what is written to it.
type headCapture []byte

func (c *headCapture) Write(p []byte) (int, error) {
	*c = append(*c, p[:min(len(p), maxLoggedBody-len(*c))]...)
	return len(p), nil
}
