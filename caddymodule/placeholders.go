package caddymodule

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// expander expands the placeholders of settings. It keeps the first error. An error
// names the option and never contains its value.
type expander struct {
	repl *caddy.Replacer
	err  error
}

func newExpander() *expander { return &expander{repl: caddy.NewReplacer()} }

func (e *expander) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// environmentName matches a placeholder that looks like a variable of the environment.
var environmentName = regexp.MustCompile(`\{([A-Z][A-Z0-9_]*)\}`)

// text expands one setting. An unknown or empty placeholder is an error: otherwise a
// missing secret would become an empty one.
func (e *expander) text(option, setting string) string {
	text, err := e.repl.ReplaceOrErr(setting, true, true)
	if err != nil {
		if name := environmentName.FindStringSubmatch(setting); name != nil {
			err = fmt.Errorf("%w: write {env.%s} for a variable of the environment", err, name[1])
		}
		e.fail(fmt.Errorf("%s: %w: check that the variable or file is there and not empty", option, err))
	}
	return text
}

// file expands the path of a file. Later errors name the path, so it must be one: a
// placeholder may stand for a secret by mistake, such as the content of the file. The
// error names the placeholder instead.
func (e *expander) file(option, setting string) string {
	path := e.text(option, setting)
	if path == setting {
		return path
	}
	if _, err := os.Stat(path); err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err
		}
		e.fail(fmt.Errorf("%s %s: %w: the placeholder must give the path of a file, not its content", option, setting, err))
	}
	return path
}

func (e *expander) files(option string, settings []string) (paths []string) {
	for _, s := range settings {
		paths = append(paths, e.file(option, s))
	}
	return paths
}

func (e *expander) texts(option string, settings []string) []string {
	var out []string
	for _, s := range settings {
		out = append(out, e.text(option, s))
	}
	return out
}

func (e *expander) params(option string, params []Param) []oauth.Param {
	var out []oauth.Param
	for _, p := range params {
		out = append(out, oauth.Param{Name: p.Name, Value: e.text(option, p.Value)})
	}
	return out
}

// secret returns a function that expands the setting again for each call, or nil if the
// setting is empty.
func (e *expander) secret(option, setting string, logger *zap.Logger) func() (string, error) {
	if setting == "" {
		return nil
	}
	if e.text(option, setting) == setting {
		logger.Warn(option + " is written in plain text in the configuration; use {env.NAME} or {file./path}")
	}
	return func() (string, error) {
		text, err := caddy.NewReplacer().ReplaceOrErr(setting, true, true)
		if err != nil {
			return "", fmt.Errorf("%s: %w", option, err)
		}
		return strings.TrimRight(text, "\r\n"), nil
	}
}

// certificates returns the system's CA certificates together with those of the files,
// and the text of the files.
func (e *expander) certificates(option string, files []string) (*x509.CertPool, string) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	return pool, e.addCertificates(pool, option, files)
}

func (e *expander) addCertificates(pool *x509.CertPool, option string, files []string) string {
	var all strings.Builder
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = errors.New(file + " holds no certificate in PEM form")
		}
		if err != nil {
			e.fail(fmt.Errorf("%s: %w", option, err))
		}
		all.Write(pem)
	}
	return all.String()
}
