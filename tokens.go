package main

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"
	"sync"
)

// Token counts are estimated (dialects C.8): no tokenizer is at hand, and the
// clients that ask want to know when a conversation has grown too long. An
// estimate is made of the chat request, so that what is dropped is not counted,
// and corrected by what the upstream has counted for the same model before.

const (
	tokensPerMessage = 4
	tokensPerCall    = 8
	tokensPerTool    = 10
	tokensForTools   = 60 // once, when there are any
	tokensOfFile     = 1500
)

// promptTokens estimates the prompt of a request, uncorrected.
func (q *chatRequest) promptTokens() float64 {
	var n float64
	for i := range q.Messages {
		n += q.Messages[i].tokens()
	}
	for i := range q.Tools {
		raw, err := marshal(q.Tools[i])
		if err == nil {
			n += textTokens(string(raw)) + tokensPerTool
		}
	}
	if len(q.Tools) > 0 {
		n += tokensForTools
	}
	if f := q.ResponseFormat; f != nil && f.JSONSchema != nil {
		n += textTokens(string(compact(f.JSONSchema.Schema)))
	}
	return n
}

func (m *chatMessage) tokens() float64 {
	if m.Raw != nil {
		return textTokens(string(m.Raw)) + tokensPerMessage
	}
	n := textTokens(m.Content.Text) + textTokens(m.ReasoningContent) + textTokens(m.Reasoning) + tokensPerMessage
	if m.Role == "tool" {
		n += tokensPerCall
	}
	for _, p := range m.Content.Parts {
		n += p.tokens()
	}
	for _, c := range m.ToolCalls {
		n += tokensPerCall + textTokens(c.Function.Name) + textTokens(c.Function.Arguments)
	}
	return n
}

func (p *chatPart) tokens() float64 {
	switch {
	case p.Raw != nil:
		return textTokens(string(p.Raw))
	case p.Text != nil:
		return textTokens(*p.Text)
	case p.ImageURL != nil:
		return imageTokens(p.ImageURL.URL)
	case p.File != nil:
		return max(tokensOfFile, 2000*math.Ceil(float64(decodedSize(p.File.FileData))/60_000))
	case p.InputAudio != nil:
		return min(10_000, 25*math.Ceil(float64(decodedSize(p.InputAudio.Data))/1000))
	}
	return 0
}

// textTokens weighs letters, other ASCII, CJK and the rest as tokenizers do.
func textTokens(s string) float64 {
	var letters, symbols, wide, others int
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', r == ' ', r == '\n', r == '\t', r == '\r', r == '\f', r == '\v':
			letters++
		case r < 0x80:
			symbols++
		case isWide(r):
			wide++
		default:
			others++
		}
	}
	return math.Ceil(float64(letters)/3.6 + float64(symbols)/2.5 + 1.1*float64(wide) + 0.6*float64(others))
}

// isWide says whether a rune is of the Chinese, Japanese or Korean scripts.
func isWide(r rune) bool {
	return 0x1100 <= r && r <= 0x11ff || 0x2e80 <= r && r <= 0x9fff || 0xa960 <= r && r <= 0xa97f ||
		0xac00 <= r && r <= 0xd7ff || 0xf900 <= r && r <= 0xfaff || 0xff00 <= r && r <= 0xffef || 0x20000 <= r && r <= 0x3ffff
}

// decodedSize is the size of base64, with or without a data URL around it.
func decodedSize(data string) int {
	if strings.HasPrefix(data, "data:") {
		_, data, _ = strings.Cut(data, ",")
	}
	return base64.RawStdEncoding.DecodedLen(len(strings.TrimRight(data, "=")))
}

// imageTokens weighs a picture by its size, which the first bytes tell.
func imageTokens(url string) float64 {
	const most, least = 1600, 85
	_, data, ok := strings.Cut(url, ";base64,")
	if !ok {
		return most
	}
	head := data[:min(len(data), 256<<10)/4*4]
	raw, err := base64.StdEncoding.DecodeString(head)
	if err != nil {
		raw, _ = base64.RawStdEncoding.DecodeString(strings.TrimRight(head, "="))
	}
	width, height := pictureSize(raw)
	if width == 0 || height == 0 {
		return most
	}
	return min(most, max(least, math.Ceil(float64(width)*float64(height)/750)))
}

// pictureSize reads a picture's size from its header; 0 for a format that is not
// known. The standard library's decoders would add a quarter of a megabyte to the
// binary for it.
func pictureSize(b []byte) (width, height int) {
	switch {
	case len(b) >= 24 && string(b[:8]) == "\x89PNG\r\n\x1a\n":
		return int(binary.BigEndian.Uint32(b[16:])), int(binary.BigEndian.Uint32(b[20:]))
	case len(b) >= 10 && string(b[:4]) == "GIF8":
		return int(binary.LittleEndian.Uint16(b[6:])), int(binary.LittleEndian.Uint16(b[8:]))
	case len(b) >= 4 && string(b[:2]) == "\xff\xd8":
		return jpegSize(b[2:])
	}
	return webpSize(b)
}

// jpegSize goes through a JPEG's segments up to the one that begins a frame.
func jpegSize(b []byte) (width, height int) {
	for len(b) >= 9 && b[0] == 0xff {
		marker := b[1]
		isFrame := marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc
		if isFrame {
			return int(binary.BigEndian.Uint16(b[7:])), int(binary.BigEndian.Uint16(b[5:]))
		}
		next := 2 + int(binary.BigEndian.Uint16(b[2:]))
		if next > len(b) {
			break
		}
		b = b[next:]
	}
	return 0, 0
}

// webpSize reads the size in each of WebP's three kinds of header.
func webpSize(b []byte) (width, height int) {
	if len(b) < 30 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WEBP" {
		return 0, 0
	}
	le := func(at, bytes int) (n int) {
		for i := range bytes {
			n |= int(b[at+i]) << (8 * i)
		}
		return n
	}
	switch string(b[12:16]) {
	case "VP8 ":
		return le(26, 2) & 0x3fff, le(28, 2) & 0x3fff
	case "VP8L":
		n := le(21, 4)
		return n&0x3fff + 1, n>>14&0x3fff + 1
	case "VP8X":
		return le(24, 3) + 1, le(27, 3) + 1
	}
	return 0, 0
}

// A calibration learns, for each model, how far estimates are off.
type calibration struct {
	mu     sync.Mutex
	models map[string]*calibrated
}

type calibrated struct {
	samples int
	mean    float64 // of real / estimated
}

const (
	calibrateAfter  = 5   // samples
	calibrationSpan = 100 // samples that the mean remembers, about
	maxCalibrated   = 256 // models
)

// learn takes what the upstream counted for a prompt that was estimated.
func (c *calibration) learn(model string, estimated float64, real int64) {
	if estimated <= 0 || real <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.models[model]
	if m == nil {
		if len(c.models) >= maxCalibrated {
			return
		}
		if c.models == nil {
			c.models = map[string]*calibrated{}
		}
		m = &calibrated{}
		c.models[model] = m
	}
	m.samples = min(m.samples+1, calibrationSpan)
	m.mean += (float64(real)/estimated - m.mean) / float64(m.samples)
}

// correct is an estimate, corrected and rounded up.
func (c *calibration) correct(model string, estimated float64) int64 {
	factor := 1.0
	c.mu.Lock()
	if m := c.models[model]; m != nil && m.samples >= calibrateAfter {
		factor = min(1.6, max(0.7, m.mean))
	}
	c.mu.Unlock()
	return int64(math.Ceil(estimated * factor))
}
