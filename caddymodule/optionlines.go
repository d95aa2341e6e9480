package caddymodule

import "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

// optionLines returns the lines of a Caddyfile on which each option of an oauth_session
// block begins, in ascending order. The option "" stands for the lines of the directive.
// Imported files are not read.
func optionLines(name string, text []byte) map[string][]int {
	lines := map[string][]int{}
	tokens, err := caddyfile.Tokenize(text, name)
	if err != nil {
		return lines
	}
	depth := 0 // of the block of the directive; 0: outside of it
	for i := range tokens {
		word, line := tokens[i].Text, tokens[i].Line
		first := i == 0 || tokens[i-1].Line != line
		switch {
		case depth == 0 && first && word == appName:
			lines[""] = append(lines[""], line)
			if opensBlock(tokens, i) {
				depth = 1
			}
		case depth > 0 && first && word == "}":
			depth--
		case depth == 1 && first:
			lines[word] = append(lines[word], line)
			fallthrough
		case depth > 0 && first:
			if opensBlock(tokens, i) {
				depth++
			}
		}
	}
	return lines
}

// opensBlock reports whether the line that begins with a token ends with a brace.
func opensBlock(tokens []caddyfile.Token, first int) bool {
	last := first
	for last+1 < len(tokens) && tokens[last+1].Line == tokens[first].Line {
		last++
	}
	return last > first && tokens[last].Text == "{"
}
