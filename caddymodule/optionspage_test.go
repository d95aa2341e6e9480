package caddymodule

import (
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// optionsPage is the option reference. The Go comments of Handler are its source,
// because Caddy's website publishes them.
const optionsPage = "../docs/options.md"

// optionSections begin at the field with the JSON name.
var optionSections = map[string]string{
	"issuer":           "The authorization server",
	"client_id":        "The client",
	"base_url":         "The site and the login",
	"store":            "Sessions",
	"refresh_if_older": "Fresh tokens",
	"match":            "Requests",
}

// TestOptionsPage compares docs/options.md to the Go comments and the Caddyfile parser:
// the page has each option with its syntax, meaning and default. To update the page, run
// `UPDATE=1 go test -run TestOptionsPage ./caddymodule`.
func TestOptionsPage(t *testing.T) {
	want := renderOptions(t)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(optionsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(optionsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/options.md differs from the comments of Handler: run UPDATE=1 go test -run TestOptionsPage ./caddymodule")
	}
	for name := range options {
		if !strings.Contains(want, "### `"+name+"`") {
			t.Errorf("got no section for the option %s, want a JSON field of this name", name)
		}
	}
}

func renderOptions(t *testing.T) string {
	t.Helper()
	types := structComments(t)
	var b strings.Builder
	b.WriteString(`# Options

Which options does ` + "`oauth_session`" + ` have? This page lists all of them. A test keeps it equal to the Go comments
that Caddy's website publishes.

* **Place.** Options stand in the block of the directive, or in a global block ` + "`oauth_session { … }`" + `. The global block sets
  defaults for all sites, and accepts all options except those with matchers (` + "`idle_ignore`, `optional`, `refresh_if_older`" + `).
  A line in the directive replaces the default.
* **Matcher.** The directive takes one matcher, as in ` + "`oauth_session /private/* { … }`" + `. It selects the requests that need a session.
* **Placeholders.** Texts, URLs, lists and parameter values may be placeholders that are known at start, such as ` + "`{env.NAME}` and" + `
  ` + "`{file./path}`" + `. An empty or missing placeholder is an error. In durations, ` + "`path_prefix`, words such as `replace`" + `, and the
  settings of ` + "`cookie`" + `, use ` + "`{$NAME}`" + ` instead.
* **JSON.** The names are the same.
`)
	for _, f := range types["Handler"] {
		if title, ok := optionSections[f.json]; ok {
			fmt.Fprintf(&b, "\n## %s\n", title)
		}
		fmt.Fprintf(&b, "\n### `%s`\n\n", f.json)
		if usage := syntaxOf(f.json); usage != "" {
			fmt.Fprintf(&b, "    %s\n\n", usage)
		}
		b.WriteString(wrap(f.comment))
		for _, sub := range types[f.elem] {
			b.WriteString(item("* ", sub))
		}
		if sub, ok := storeTypes[f.json]; ok {
			for _, store := range sub {
				b.WriteString(renderStore(t, types, store))
			}
		}
	}
	return b.String()
}

// storeTypes are the settings of the built-in stores, which follow the option.
var storeTypes = map[string][]string{"store": {"BoltStore", "RedisStore"}}

func renderStore(t *testing.T, types map[string][]field, store string) string {
	t.Helper()
	name := strings.ToLower(strings.TrimSuffix(store, "Store"))
	var b strings.Builder
	fmt.Fprintf(&b, "\nSettings of `store %s`:\n\n", name)
	for _, f := range types[store] {
		b.WriteString(item("* ", f))
		for _, sub := range types[f.elem] {
			b.WriteString(item("  * ", sub))
		}
	}
	return b.String()
}

// item returns a setting as an item of a list.
func item(bullet string, f field) string {
	text := wrap("`" + f.json + "`: " + f.comment)
	indent := "\n" + strings.Repeat(" ", len(bullet))
	return bullet + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", indent) + "\n"
}

// syntaxOf returns the syntax in the Caddyfile, without its examples.
func syntaxOf(option string) string {
	switch option {
	case "match":
		return "oauth_session [<matcher>] { ... }"
	case "cookie":
		return "cookie { name <name>; domain <host>; same_site lax|strict|none; partitioned }"
	}
	usage, _, _ := strings.Cut(options[option].usage, ", such as")
	return usage
}

// A field is one setting in JSON.
type field struct {
	json, comment string
	elem          string // the name of its struct type in this package
}

var jsonTag = regexp.MustCompile(`json:"([a-z_]+)`)

// structComments returns the exported fields of all structs of the package, with their
// comments. A field without a comment is an error: the option would have no reference.
func structComments(t *testing.T) map[string][]field {
	t.Helper()
	out := map[string][]field{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := goparser.ParseFile(token.NewFileSet(), file, nil, goparser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					out[spec.Name.Name] = settingsOf(t, spec.Name.Name, s)
				}
			}
			return true
		})
	}
	return out
}

func settingsOf(t *testing.T, of string, s *ast.StructType) (fields []field) {
	t.Helper()
	for _, f := range s.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 || !ast.IsExported(f.Names[0].Name) || !ast.IsExported(of) {
			continue
		}
		m := jsonTag.FindStringSubmatch(f.Tag.Value)
		if m == nil {
			continue
		}
		comment := strings.TrimSpace(f.Doc.Text())
		if comment == "" {
			t.Errorf("%s.%s: got no comment", of, f.Names[0].Name)
		}
		fields = append(fields, field{json: m[1], comment: comment, elem: elemOf(f.Type)})
	}
	return fields
}

func elemOf(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return elemOf(x.X)
	case *ast.ArrayType:
		return elemOf(x.Elt)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

// wrap joins the lines of a comment and breaks them at 120 columns.
func wrap(comment string) string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(comment) {
		if line != "" && len(line)+1+len(word) > 120 {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n") + "\n"
}

// TestEveryOptionHasAField compares the parser's table with the JSON names.
func TestEveryOptionHasAField(t *testing.T) {
	var names []string
	for f := range reflect.TypeFor[Handler]().Fields() {
		if m := jsonTag.FindStringSubmatch(string(f.Tag)); m != nil {
			names = append(names, m[1])
		}
	}
	for name := range options {
		if !slices.Contains(names, name) {
			t.Errorf("got Caddyfile option %s, want a JSON field of this name", name)
		}
	}
	for _, name := range names {
		if _, ok := options[name]; !ok && name != "match" {
			t.Errorf("got JSON field %s, want a Caddyfile option of this name", name)
		}
	}
}
