package caddymodule

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// option is one option of the directive's block.
type option struct {
	usage   string
	repeats bool
	// reset empties the field before the first line of an option that repeats. The lines
	// of a directive replace the global defaults, and do not add to them.
	reset func(*Handler)
	parse func(p *parser, usage string) error
}

var options map[string]option

func init() { // not a literal: the parsers refer to the table
	options = map[string]option{
		"issuer":                                urlOption("issuer", func(h *Handler) *string { return &h.Issuer }),
		"discovery_url":                         urlOption("discovery_url", func(h *Handler) *string { return &h.DiscoveryURL }),
		"authorization_endpoint":                urlOption("authorization_endpoint", func(h *Handler) *string { return &h.AuthorizationEndpoint }),
		"token_endpoint":                        urlOption("token_endpoint", func(h *Handler) *string { return &h.TokenEndpoint }),
		"userinfo_endpoint":                     urlOption("userinfo_endpoint", func(h *Handler) *string { return &h.UserinfoEndpoint }),
		"jwks_uri":                              urlOption("jwks_uri", func(h *Handler) *string { return &h.JWKSURI }),
		"revocation_endpoint":                   urlOption("revocation_endpoint", func(h *Handler) *string { return &h.RevocationEndpoint }),
		"end_session_endpoint":                  urlOption("end_session_endpoint", func(h *Handler) *string { return &h.EndSessionEndpoint }),
		"pushed_authorization_request_endpoint": urlOption("pushed_authorization_request_endpoint", func(h *Handler) *string { return &h.PAREndpoint }),
		"base_url":                              urlOption("base_url", func(h *Handler) *string { return &h.BaseURL }),
		"post_logout_redirect":                  urlOption("post_logout_redirect", func(h *Handler) *string { return &h.PostLogoutRedirect }),

		"client_id":                  textOption("client_id <id>", func(h *Handler) *string { return &h.ClientID }),
		"client_secret":              textOption("client_secret <secret>, such as {env.CLIENT_SECRET} or {file./path}", func(h *Handler) *string { return &h.ClientSecret }),
		"audience":                   textOption("audience <value>", func(h *Handler) *string { return &h.Audience }),
		"token_endpoint_auth_method": wordOption("token_endpoint_auth_method", func(h *Handler) *string { return &h.TokenEndpointAuthMethod }, "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "client_assertion", "none"),
		"client_key":                 {usage: "client_key <file>", parse: parseClientKey},
		"client_assertion":           {usage: "client_assertion <file> [<type>]", parse: parseClientAssertion},
		"assertion_audience":         wordOption("assertion_audience", func(h *Handler) *string { return &h.AssertionAudience }, "issuer", "token_endpoint"),
		"stream_token_expiry":        wordOption("stream_token_expiry", func(h *Handler) *string { return &h.StreamTokenExpiry }, "keep", "close"),
		"response_mode":              wordOption("response_mode", func(h *Handler) *string { return &h.ResponseMode }, oauth.ResponseModeQuery, oauth.ResponseModeFormPost),
		"id_token_hint":              wordOption("id_token_hint", func(h *Handler) *string { return &h.IDTokenHint }, "on", "off"),
		"authorization":              wordOption("authorization", func(h *Handler) *string { return &h.Authorization }, "replace", "keep", "reject"),
		"path_prefix":                {usage: "path_prefix <path>, such as /oauth2", parse: parsePathPrefix},
		"id_token_signed_response_alg": wordOption("id_token_signed_response_alg", func(h *Handler) *string { return &h.IDTokenSignedResponseAlg },
			"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),

		"trusted_audiences": listOption("trusted_audiences <audience...>", func(h *Handler) *[]string { return &h.TrustedAudiences }),
		"trusted_ca":        listOption("trusted_ca <file...>", func(h *Handler) *[]string { return &h.TrustedCA }),
		"scope":             listOption("scope <scope...>", func(h *Handler) *[]string { return &h.Scope }),
		"resource":          listOption("resource <uri...>", func(h *Handler) *[]string { return &h.Resource }),
		"key":               listOption("key <key...>, such as {env.SESSION_KEY}", func(h *Handler) *[]string { return &h.Key }),
		"trusted_origins":   listOption("trusted_origins <origin...>, such as https://admin.example.com", func(h *Handler) *[]string { return &h.TrustedOrigins }),

		"login_param": {usage: "login_param <name...>, such as login_param kc_idp_hint", parse: parseLoginParam},

		"authorize_param": paramOption("authorize_param <name> <value>", func(h *Handler) *[]Param { return &h.AuthorizeParam }),
		"token_param":     paramOption("token_param <name> <value>", func(h *Handler) *[]Param { return &h.TokenParam }),
		"refresh_param":   paramOption("refresh_param <name> <value>", func(h *Handler) *[]Param { return &h.RefreshParam }),

		"idle_timeout":    durationOption("idle_timeout", "30m", func(h *Handler) *caddy.Duration { return &h.IdleTimeout }),
		"max_lifetime":    durationOption("max_lifetime", "12h", func(h *Handler) *caddy.Duration { return &h.MaxLifetime }),
		"refresh_timeout": durationOption("refresh_timeout", "10s", func(h *Handler) *caddy.Duration { return &h.RefreshTimeout }),

		"session_limit": {usage: "session_limit <number>, such as session_limit 3", parse: parseSessionLimit},

		"userinfo": {usage: "userinfo [get|post]", parse: parseUserInfo},
		"frontchannel_logout": {usage: "frontchannel_logout", parse: func(p *parser, usage string) error {
			p.handler.FrontchannelLogout = true
			return p.noMore(usage)
		}},
		"retry_unauthorized": {usage: "retry_unauthorized", parse: func(p *parser, usage string) error {
			p.handler.RetryUnauthorized = true
			return p.noMore(usage)
		}},
		"refresh_if_older": {
			usage: "refresh_if_older <matcher> <duration>, such as refresh_if_older /payments/* 1m", repeats: true,
			reset: func(h *Handler) { h.RefreshIfOlder = nil }, parse: parseRefreshIfOlder,
		},
		"idle_ignore": {
			usage: "idle_ignore <matcher>, such as idle_ignore /api/poll*", repeats: true,
			reset: func(h *Handler) { h.IdleIgnoreRaw = nil }, parse: parseIdleIgnore,
		},
		"header":   {usage: "header <name> <value>, such as header X-Access-Token {token}", parse: parseHeader},
		"store":    {usage: "store memory, store bolt { path <file> }, or store redis { url <url> }", parse: parseStore},
		"cookie":   {usage: "cookie { ... }", parse: parseCookie},
		"optional": {usage: "optional [<matcher>]", parse: parseOptional},
		"require": {
			usage: "require <claim> <value...>", repeats: true,
			reset: func(h *Handler) { h.Require = nil }, parse: parseRequire,
		},
	}
}

// one reads exactly one non-empty argument.
func (p *parser) one(usage string) (string, error) {
	args := p.RemainingArgs()
	if len(args) != 1 {
		return "", p.Errf("wrong number of values (%d): write %s", len(args), usage)
	}
	if strings.TrimSpace(args[0]) == "" {
		return "", p.Errf("the value is empty: write %s", usage)
	}
	return args[0], p.noBlock(usage)
}

func (p *parser) noMore(usage string) error {
	if p.NextArg() {
		return p.Errf("unexpected '%s': write %s", p.Val(), usage)
	}
	return p.noBlock(usage)
}

func (p *parser) noBlock(usage string) error {
	if p.NextBlock(p.Nesting()) {
		return p.Errf("unexpected block: write %s", usage)
	}
	return nil
}

func textOption(usage string, field func(*Handler) *string) option {
	return option{usage: usage, parse: func(p *parser, usage string) error {
		text, err := p.one(usage)
		*field(p.handler) = text
		return err
	}}
}

func urlOption(name string, field func(*Handler) *string) option {
	return option{usage: name + " <url>", parse: func(p *parser, usage string) error {
		text, err := p.one(usage)
		if err == nil && strings.Contains(text, "@") && !isURL(text) {
			err = p.Errf("%s is not a URL without user and password: write it whole, such as %s https://login.example.com", name, name)
		} else if err == nil && !isURL(text) {
			err = p.Errf("%s '%s' is not a URL: write it whole, such as %s https://login.example.com", name, text, name)
		}
		*field(p.handler) = text
		return err
	}}
}

func wordOption(name string, field func(*Handler) *string, words ...string) option {
	usage := name + " " + strings.Join(words, "|")
	return option{usage: usage, parse: func(p *parser, usage string) error {
		text, err := p.one(usage)
		if err != nil {
			return err
		}
		for _, w := range words {
			if text == w {
				*field(p.handler) = text
				return nil
			}
		}
		return p.Errf("%s '%s' is unknown: write %s", name, text, usage)
	}}
}

func durationOption(name, example string, field func(*Handler) *caddy.Duration) option {
	return option{usage: name + " <duration>, such as " + name + " " + example, parse: func(p *parser, usage string) error {
		text, err := p.one(usage)
		if err != nil {
			return err
		}
		d, err := caddy.ParseDuration(text)
		if err != nil || d < time.Second {
			return p.Errf("%s '%s' is not a duration of a second or more: write %s", name, text, usage)
		}
		*field(p.handler) = caddy.Duration(d)
		return nil
	}}
}

func listOption(usage string, field func(*Handler) *[]string) option {
	return option{usage: usage, parse: func(p *parser, usage string) error {
		args := p.RemainingArgs()
		if len(args) == 0 {
			return p.Errf("at least one value is missing: write %s", usage)
		}
		for _, a := range args {
			if strings.TrimSpace(a) == "" {
				return p.Errf("a value is empty: write %s", usage)
			}
		}
		*field(p.handler) = args
		return p.noBlock(usage)
	}}
}

func paramOption(usage string, field func(*Handler) *[]Param) option {
	return option{
		usage: usage, repeats: true,
		reset: func(h *Handler) { *field(h) = nil },
		parse: func(p *parser, usage string) error {
			args := p.RemainingArgs()
			if len(args) != 2 || args[0] == "" {
				return p.Errf("wrong number of values (%d): write %s", len(args), usage)
			}
			if args[0] == "response_mode" {
				return p.Errf("response_mode is an option of its own: write %s", options["response_mode"].usage)
			}
			list := field(p.handler)
			*list = append(*list, Param{Name: args[0], Value: args[1]})
			return p.noBlock(usage)
		},
	}
}

func parseLoginParam(p *parser, usage string) error {
	if err := listOption(usage, func(h *Handler) *[]string { return &h.LoginParam }).parse(p, usage); err != nil {
		return err
	}
	for _, name := range p.handler.LoginParam {
		if strings.Contains(name, "{") {
			continue // the value of a placeholder is not known yet
		}
		if err := handler.CheckLoginParam(name); err != nil {
			return p.Errf("login_param: %v: write %s", err, usage)
		}
	}
	return nil
}

func parsePathPrefix(p *parser, usage string) error {
	text, err := p.one(usage)
	if err == nil && (!strings.HasPrefix(text, "/") || strings.HasSuffix(text, "/") || strings.ContainsAny(text, "*?#{}%")) {
		err = p.Errf("path_prefix '%s' is not a plain path: write %s, with no slash at its end", text, usage)
	}
	p.handler.PathPrefix = text
	return err
}

func parseClientKey(p *parser, usage string) error {
	file, err := p.one(usage)
	if err == nil {
		err = p.isFile("client_key", file)
	}
	p.handler.ClientKey = file
	return err
}

func parseClientAssertion(p *parser, usage string) error {
	args := p.RemainingArgs()
	if len(args) < 1 || len(args) > 2 || slices.Contains(args, "") {
		return p.Errf("wrong number of values (%d): write %s", len(args), usage)
	}
	if err := p.isFile("client_assertion", args[0]); err != nil {
		return err
	}
	p.handler.ClientAssertion = &ClientAssertion{File: args[0]}
	if len(args) == 2 {
		p.handler.ClientAssertion.Type = args[1]
	}
	return p.noBlock(usage)
}

// isFile refuses the placeholder of a file's content. Errors name the file, and must not
// contain a secret.
func (p *parser) isFile(option, text string) error {
	if path, ok := strings.CutPrefix(text, "{file."); ok {
		path = strings.TrimSuffix(path, "}")
		return p.Errf("%s takes the path of a file and not its content: write %s %s", option, option, path)
	}
	return nil
}

func parseHeader(p *parser, usage string) error {
	args := p.RemainingArgs()
	if len(args) != 2 || args[0] == "" || !strings.Contains(args[1], tokenPlaceholder) {
		return p.Errf("header takes a name and a value that contains %s: write %s", tokenPlaceholder, usage)
	}
	p.handler.Header = &Header{Name: args[0], Value: args[1]}
	return p.noBlock(usage)
}

func parseUserInfo(p *parser, usage string) error {
	p.handler.UserInfo = "get"
	if p.NextArg() {
		p.handler.UserInfo = p.Val()
	}
	if method := p.handler.UserInfo; method != "get" && method != "post" {
		return p.Errf("userinfo '%s' is unknown: write %s", method, usage)
	}
	return p.noMore(usage)
}

func parseRequire(p *parser, usage string) error {
	args := p.RemainingArgs()
	if len(args) < 2 || slices.ContainsFunc(args, func(a string) bool { return strings.TrimSpace(a) == "" }) {
		return p.Errf("require takes a claim and the values it may have: write %s", usage)
	}
	p.handler.Require = append(p.handler.Require, Requirement{Claim: args[0], Values: args[1:]})
	return p.noBlock(usage)
}

// requestMatcher parses the matcher of an option. Only a directive can have such an option,
// because the names of matchers belong to a site. ok is false if there is no matcher.
func (p *parser) requestMatcher(option string) (set caddy.ModuleMap, ok bool, err error) {
	if p.matcher == nil {
		return nil, false, p.Errf("%s is not a default for all sites: write it into the directive", option)
	}
	if set, ok, err = p.matcher(); err != nil {
		return nil, false, p.WrapErr(err)
	}
	return set, ok, nil
}

func parseRefreshIfOlder(p *parser, usage string) error {
	set, ok, err := p.requestMatcher("refresh_if_older")
	if err != nil {
		return err
	}
	if !ok || !p.NextArg() {
		return p.Errf("refresh_if_older takes a matcher and a duration: write %s", usage)
	}
	age, err := caddy.ParseDuration(p.Val())
	if err != nil || age < 0 {
		return p.Errf("refresh_if_older '%s' is not a duration: write %s", p.Val(), usage)
	}
	limit := AgeLimit{Age: caddy.Duration(age)}
	if set != nil {
		limit.MatchRaw = caddyhttp.RawMatcherSets{set}
	}
	p.handler.RefreshIfOlder = append(p.handler.RefreshIfOlder, limit)
	return p.noMore(usage)
}

func parseOptional(p *parser, usage string) error {
	set, ok, err := p.requestMatcher("optional")
	if err != nil {
		return err
	}
	if !ok && p.Val() != "optional" {
		return p.Errf("'%s' is not a matcher: write optional, optional /path/* or optional @name", p.Val())
	}
	if set == nil {
		set = caddy.ModuleMap{} // matches every request
	}
	p.handler.OptionalRaw = append(p.handler.OptionalRaw, set)
	return p.noMore(usage)
}

func parseIdleIgnore(p *parser, usage string) error {
	set, ok, err := p.requestMatcher("idle_ignore")
	if err != nil {
		return err
	}
	switch {
	case !ok && p.Val() == "idle_ignore":
		return p.Errf("idle_ignore takes a matcher: write %s", usage)
	case !ok:
		return p.Errf("'%s' is not a matcher: write idle_ignore /path/* or idle_ignore @name", p.Val())
	case p.NextArg():
		return p.Errf("unexpected '%s': write a line idle_ignore <matcher> for each matcher", p.Val())
	}
	if set == nil {
		set = caddy.ModuleMap{} // matches every request
	}
	p.handler.IdleIgnoreRaw = append(p.handler.IdleIgnoreRaw, set)
	return p.noBlock(usage)
}

func parseSessionLimit(p *parser, usage string) error {
	text, err := p.one(usage)
	if err != nil {
		return err
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 {
		return p.Errf("'%s' is no number of sessions: write %s", text, usage)
	}
	p.handler.SessionLimit = limit
	return nil
}
