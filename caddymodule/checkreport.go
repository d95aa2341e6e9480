package caddymodule

import (
	"fmt"
	"io"
	"strings"
)

// checkReport is the output of `caddy oauth-session check --json`.
type checkReport struct {
	OK    bool          `json:"ok"` // logins should work
	Sites []checkedSite `json:"sites"`
}

type checkedSite struct {
	Site         string            `json:"site"`
	Issuer       string            `json:"issuer"` // or the token endpoint, without an issuer
	ClientID     string            `json:"client_id"`
	RedirectURIs []string          `json:"redirect_uris"`
	Store        string            `json:"store"`
	Findings     []reportedFinding `json:"findings"`
}

type reportedFinding struct {
	Code     string `json:"code"`
	Severity string `json:"severity"` // error or warning
	Option   string `json:"option"`
	File     string `json:"file,omitempty"`
	// Lines are those of the option in the file, or those of the directive if it is not
	// written there. Several sites may have the option.
	Lines  []int  `json:"lines,omitempty"`
	Detail string `json:"detail"`
}

const (
	severityError   = "error"
	severityWarning = "warning"
)

func (c *checkedSite) add(f finding) {
	severity := severityError
	if f.warning {
		severity = severityWarning
	}
	c.Findings = append(c.Findings, reportedFinding{Code: f.code, Severity: severity, Option: f.option, Detail: f.err.Error()})
}

// locate adds the lines of the options.
func (r *checkReport) locate(file string, lines map[string][]int) {
	for i := range r.Sites {
		for j := range r.Sites[i].Findings {
			f := &r.Sites[i].Findings[j]
			if f.Lines = lines[f.Option]; f.Lines == nil {
				f.Lines = lines[""]
			}
			if f.Lines != nil {
				f.File = file
			}
		}
	}
}

// print writes the report for people.
func (r *checkReport) print(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.Sites {
		fmt.Fprintf(&b, "%s\n", s.Site)
		fmt.Fprintf(&b, "  server    %s\n  client    %s\n", s.Issuer, s.ClientID)
		for _, uri := range s.RedirectURIs {
			fmt.Fprintf(&b, "  register  %s\n", uri)
		}
		fmt.Fprintf(&b, "  store     %s\n", s.Store)
		for _, f := range s.Findings {
			fmt.Fprintf(&b, "  %-8s  %s%s: %s\n", f.Severity, f.place(), f.Option, f.Detail)
		}
		if len(s.Findings) == 0 {
			b.WriteString("  ok        nothing found; a login proves the rest\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// place returns file and lines as compilers write them.
func (f *reportedFinding) place() string {
	if f.File == "" {
		return ""
	}
	var lines []string
	for _, n := range f.Lines {
		lines = append(lines, fmt.Sprint(n))
	}
	return f.File + ":" + strings.Join(lines, ",") + ": "
}
