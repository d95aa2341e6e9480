package client

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

var errNoForm = errors.New("no form")

// A form is the first form of a page, with its successful controls (HTML, "Form submission").
type form struct {
	action   string
	method   string
	controls []control
	pressed  bool // controls contains the submit button
}

type control struct{ kind, name, value string }

func parseForm(page []byte) (*form, error) {
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		return nil, err
	}
	var formNode *html.Node
	for n := range root.Descendants() {
		if n.DataAtom == atom.Form {
			formNode = n
			break
		}
	}
	if formNode == nil {
		return nil, errNoForm
	}
	f := &form{action: attr(formNode, "action"), method: strings.ToUpper(attr(formNode, "method"))}
	if f.method != http.MethodPost {
		f.method = http.MethodGet
	}
	for n := range root.Descendants() {
		if n.DataAtom != atom.Input && n.DataAtom != atom.Button {
			continue
		}
		// A control belongs to the form in its form attribute, or else to the form around it.
		owner := attr(n, "form")
		if owner == "" && within(n, formNode) || owner != "" && owner == attr(formNode, "id") {
			f.add(n)
		}
	}
	return f, nil
}

func (f *form) add(n *html.Node) {
	c := control{kind: strings.ToLower(attr(n, "type")), name: attr(n, "name"), value: attr(n, "value")}
	if n.DataAtom == atom.Button && c.kind == "" {
		c.kind = "submit"
	}
	switch c.kind {
	case "submit":
		// The user presses the first button. It is the button that agrees.
		if f.pressed {
			return
		}
		f.pressed = true
	case "button", "reset", "image", "file":
		return
	case "checkbox", "radio":
		if !hasAttr(n, "checked") {
			return
		}
		if c.value == "" {
			c.value = "on"
		}
	}
	if c.name != "" {
		f.controls = append(f.controls, c)
	}
}

// fill returns the values of a submission. Fields of type or name "password" get the password, other text fields the user
// name.
func (f *form) fill(user, password string) url.Values {
	values := url.Values{}
	for _, c := range f.controls {
		switch {
		case c.kind == "password" || c.name == "password":
			c.value = password
		case c.kind == "" || c.kind == "text" || c.kind == "email":
			c.value = user
		}
		values.Add(c.name, c.value)
	}
	return values
}

func within(n, ancestor *html.Node) bool {
	for a := range n.Ancestors() {
		if a == ancestor {
			return true
		}
	}
	return false
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func hasAttr(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}
