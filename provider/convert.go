package provider

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
)

// maxXMLDepth bounds elements within elements.
const maxXMLDepth = 64

// parseMultipart reads the fields of a multipart form; files count as fields by their
// content where they are small text, and are left out where they are not.
func parseMultipart(r *Request) ([]pair, error) {
	ct, n := r.Header.Get("Content-Type")
	if n != 1 {
		return nil, errNoDocument
	}
	kind, params, err := mime.ParseMediaType(string(ct))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return nil, errNoDocument
	}
	mr := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"])
	var out []pair
	for {
		part, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read a multipart form: %w", err)
		}
		if len(out) == maxPairs {
			return nil, fmt.Errorf("a form of more than %d fields", maxPairs)
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, fmt.Errorf("read field %q of a multipart form: %w", part.FormName(), err)
		}
		if part.FileName() == "" {
			out = append(out, pair{name: []byte(part.FormName()), value: value})
		}
	}
}

// MultipartForm writes a multipart form of one field, as a test sender does.
func MultipartForm(name string, value []byte) (body []byte, contentType string) {
	const boundary = "------------------------d74496d66958873e"
	body = fmt.Appendf(nil, "--%s\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n--%s--\r\n", boundary, name, value, boundary)
	return body, "multipart/form-data; boundary=" + boundary
}

// XMLToJSON writes an XML document as the JSON that definitions read it as.
func XMLToJSON(body []byte) ([]byte, error) { return xmlToJSON(body) }

// xmlNode is one element on its way to JSON.
type xmlNode struct {
	name  string
	attrs []xml.Attr
	kids  []*xmlNode
	text  []byte
}

// xmlToJSON writes an XML document as JSON: an element is a member called by its local
// name, attributes are members with "@", one with only text is a string, those that
// repeat are an array, text beside elements is "#text". The root is a member too. There
// are no entities but XML's own: a document type is refused.
func xmlToJSON(body []byte) ([]byte, error) { return xmlWithLists(body, nil) }

// xmlWithLists does so with elements, by their paths, that are an array even where there
// is one of them.
func xmlWithLists(body []byte, lists map[string]bool) ([]byte, error) {
	trimmed := bytes.TrimLeft(body, "\ufeff \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '<' {
		return nil, errNoDocument
	}
	dec := xml.NewDecoder(bytes.NewReader(trimmed))
	dec.Strict = true
	dec.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("charset %q is not read", label)
	}
	root := &xmlNode{}
	stack := []*xmlNode{root}
	for {
		tok, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("parse the body as XML: %w", err)
		}
		if stack, err = xmlToken(stack, tok); err != nil {
			return nil, err
		}
	}
	if len(stack) != 1 || len(root.kids) != 1 {
		return nil, errors.New("parse the body as XML: not one whole element")
	}
	return root.json(nil, "", lists), nil
}

func xmlToken(stack []*xmlNode, tok xml.Token) ([]*xmlNode, error) {
	top := stack[len(stack)-1]
	switch t := tok.(type) {
	case xml.StartElement:
		if len(stack) > maxXMLDepth {
			return nil, fmt.Errorf("XML of more than %d levels", maxXMLDepth)
		}
		n := &xmlNode{name: t.Name.Local, attrs: append([]xml.Attr(nil), t.Attr...)}
		top.kids = append(top.kids, n)
		return append(stack, n), nil
	case xml.EndElement:
		if len(stack) == 1 || top.name != t.Name.Local {
			return nil, fmt.Errorf("parse the body as XML: </%s> closes nothing", t.Name.Local)
		}
		return stack[:len(stack)-1], nil
	case xml.CharData:
		if len(stack) > 1 {
			top.text = append(top.text, t...)
		}
	case xml.Directive:
		return nil, errors.New("XML with a document type is not read")
	}
	return stack, nil
}

func (n *xmlNode) json(dst []byte, path string, lists map[string]bool) []byte {
	text := bytes.TrimSpace(n.text)
	if len(n.kids) == 0 && len(n.attrs) == 0 {
		return appendJSONString(dst, text)
	}
	dst = append(dst, '{')
	member := func(name string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, []byte(name)), ':')
	}
	for _, a := range n.attrs {
		member("@" + a.Name.Local)
		dst = appendJSONString(dst, []byte(a.Value))
	}
	if len(text) > 0 {
		member("#text")
		dst = appendJSONString(dst, text)
	}
	same := map[string][]*xmlNode{}
	for _, k := range n.kids {
		same[k.name] = append(same[k.name], k)
	}
	for _, k := range n.kids {
		group := same[k.name]
		if group == nil {
			continue
		}
		same[k.name] = nil
		member(k.name)
		at := path + "." + k.name
		if len(group) == 1 && !lists[at] {
			dst = k.json(dst, at, lists)
			continue
		}
		dst = append(dst, '[')
		for i, g := range group {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = g.json(dst, at, lists)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}
