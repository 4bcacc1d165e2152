package ingest

import "bytes"

// frame is what the edge wants to know of a raw header block before it lets a body be
// read. fasthttp has parsed the block already; this look at the bytes finds what it
// accepts and we do not.
type frame struct {
	bad     bool // folded line, line without CR, no colon: another reader may see other headers
	length  bool // Content-Length is there
	chunked bool // Transfer-Encoding is there (fasthttp lets only chunked and identity pass)
	expect  bool // Expect is there and is not 100-continue
}

// scanFrame reads the block in one pass. It allocates nothing.
func scanFrame(block []byte) frame {
	var f frame
	for len(block) > 0 {
		i := bytes.IndexByte(block, '\n')
		if i < 1 || block[i-1] != '\r' {
			f.bad = true
			return f
		}
		line := block[:i-1]
		block = block[i+1:]
		if len(line) == 0 {
			f.bad = f.bad || len(block) > 0
			return f
		}
		if line[0] == ' ' || line[0] == '\t' {
			f.bad = true
			return f
		}
		colon := bytes.IndexByte(line, ':')
		switch colon {
		case -1, 0:
			f.bad = true
			return f
		case len("expect"):
			if equalFold(line[:colon], "expect") {
				f.expect = !equalFold(bytes.Trim(line[colon+1:], " \t"), "100-continue")
			}
		case len("content-length"):
			f.length = f.length || equalFold(line[:colon], "content-length")
		case len("transfer-encoding"):
			if equalFold(line[:colon], "transfer-encoding") {
				f.chunked = true
				// "identity" is gone from HTTP/1.1: who reads it differently from us sees
				// another body.
				f.bad = f.bad || !equalFold(bytes.Trim(line[colon+1:], " \t"), "chunked")
			}
		}
	}
	return f
}

// headerLines cuts the empty line that ends a block: what is archived and verified are
// the lines.
func headerLines(block []byte) []byte {
	if n := len(block); n >= 2 && block[n-2] == '\r' && block[n-1] == '\n' {
		return block[:n-2]
	}
	return block
}

// splitPath cuts the query from a raw request target.
func splitPath(target []byte) []byte {
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i]
	}
	return target
}

// badPath says that a path has what some servers resolve and others do not: an escape,
// an empty segment, a dot segment, a backslash. No source's path has any.
func badPath(p []byte) bool {
	for i, b := range p {
		switch b {
		case '%', '\\', '#':
			return true
		case '/':
			rest := p[i+1:]
			switch {
			case len(rest) > 0 && rest[0] == '/':
				return true
			case len(rest) > 0 && rest[0] == '.' && (len(rest) == 1 || rest[1] == '/'):
				return true
			case len(rest) > 1 && rest[0] == '.' && rest[1] == '.' && (len(rest) == 2 || rest[2] == '/'):
				return true
			}
		}
	}
	return false
}

// equalFold compares a name off the wire with a lower-case ASCII one.
func equalFold(a []byte, lower string) bool {
	if len(a) != len(lower) {
		return false
	}
	for i, x := range a {
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if x != lower[i] {
			return false
		}
	}
	return true
}
