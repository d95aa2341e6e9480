package caddymodule

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const directive = "oauth_session"

func init() {
	httpcaddyfile.RegisterDirective(directive, parseDirective)
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterGlobalOption(directive, parseGlobalOption)
}

// parseDirective sets up a handler from Caddyfile tokens. Syntax:
//
//	oauth_session [<matcher>] {
//	    issuer            <url>
//	    discovery_url     <url>
//	    authorization_endpoint | token_endpoint | userinfo_endpoint | jwks_uri | revocation_endpoint |
//	    end_session_endpoint | pushed_authorization_request_endpoint  <url>
//	    client_id         <id>
//	    client_secret     <secret>
//	    token_endpoint_auth_method  client_secret_basic|client_secret_post|client_secret_jwt|private_key_jwt|client_assertion|none
//	    client_key        <file>
//	    client_assertion  <file> [<type>]
//	    assertion_audience issuer|token_endpoint
//	    id_token_signed_response_alg <alg>
//	    trusted_audiences <audience...>
//	    trusted_ca        <file...>
//	    base_url          <url>
//	    scope             <scope...>
//	    audience          <value>
//	    resource          <uri...>
//	    response_mode     query|form_post
//	    login_param       <name...>
//	    authorize_param   <name> <value>
//	    token_param       <name> <value>
//	    refresh_param     <name> <value>
//	    userinfo          [get|post]
//	    store             memory | bolt [{ path <file> }] | redis [<url...>] [{ ... }] | <module> ...
//	    key               <key...>
//	    idle_timeout      <duration>
//	    idle_ignore       <matcher>
//	    max_lifetime      <duration>
//	    session_limit     <number>
//	    stream_token_expiry  keep|close
//	    cookie {
//	        name        <name>
//	        domain      <host>
//	        same_site   lax|strict|none
//	        partitioned
//	    }
//	    refresh_timeout   <duration>
//	    refresh_if_older  <matcher> <duration>
//	    retry_unauthorized
//	    optional          [<matcher>]
//	    require           <claim> <value...>
//	    authorization     replace|keep|reject
//	    header            <name> <value>
//	    trusted_origins   <origin...>
//	    path_prefix       <path>
//	    id_token_hint     on|off
//	    frontchannel_logout
//	    post_logout_redirect <url>
//	}
//
// The matcher selects the requests that need a session. It becomes a setting of the
// handler, and the handler's route matches all requests, because the handler must remove
// its cookies from the others, too.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, h.WrapErr(err)
	}
	h.Next() // the directive's name
	handler := new(Handler)
	if defaults, ok := h.Option(directive).(*Handler); ok {
		*handler = *defaults
	}
	p := &parser{Dispenser: h.Dispenser, handler: handler, matcher: h.MatcherToken}
	if err := p.parse(); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if matcher != nil {
		handler.MatchRaw = caddyhttp.RawMatcherSets{matcher}
	}
	return []httpcaddyfile.ConfigValue{{
		Class: "route",
		Value: caddyhttp.Route{
			HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(handler, "handler", directive, nil)},
		},
	}}, nil
}

// parseGlobalOption parses defaults for all oauth_session directives. They have the syntax
// of a directive; a directive's own options take precedence.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if !d.Next() {
		return nil, d.ArgErr()
	}
	if existing != nil {
		return nil, d.Errf("the global option %s stands here twice: put all defaults into one block", directive)
	}
	p := &parser{Dispenser: d, handler: new(Handler)}
	if err := p.parse(); err != nil {
		return nil, err
	}
	return p.handler, nil
}

// parser parses one block of options.
type parser struct {
	*caddyfile.Dispenser
	handler *Handler
	// matcher reads a matcher. It is nil in the global options, which have no matchers.
	matcher func() (caddy.ModuleMap, bool, error)
}

// parse parses the block. The dispenser is at the directive's name.
func (p *parser) parse() error {
	if p.NextArg() {
		return p.Errf("%s takes at most one argument, a matcher, and its options in a block: %s { ... }", directive, directive)
	}
	seen := map[string]bool{}
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		name := p.Val()
		o, ok := options[name]
		if !ok {
			return p.unrecognized(name)
		}
		if seen[name] && !o.repeats {
			return p.Errf("%s is already set in this block: it is given once, as %s", name, o.usage)
		}
		if !seen[name] && o.reset != nil {
			o.reset(p.handler)
		}
		seen[name] = true
		if err := o.parse(p, o.usage); err != nil {
			return err
		}
	}
	return nil
}

// check finds missing and conflicting options. Provision checks all of this again, because
// only then the values of placeholders are known.
func (p *parser) check() error {
	h := p.handler
	switch {
	case h.ClientID == "":
		return p.Errf("client_id is missing: client_id <id>")
	case h.Issuer == "" && h.AuthorizationEndpoint == "" && h.TokenEndpoint == "":
		return p.Errf("issuer is missing: issuer <url>, or authorization_endpoint <url> and token_endpoint <url> for a plain OAuth 2.0 server")
	case h.Issuer == "" && h.AuthorizationEndpoint == "":
		return p.Errf("authorization_endpoint is missing: without issuer, both authorization_endpoint <url> and token_endpoint <url> are needed")
	case h.Issuer == "" && h.TokenEndpoint == "":
		return p.Errf("token_endpoint is missing: without issuer, both authorization_endpoint <url> and token_endpoint <url> are needed")
	case h.Issuer == "" && h.DiscoveryURL != "":
		return p.Errf("discovery_url needs issuer: the metadata found there must name it")
	case h.UserInfo != "" && h.Issuer == "" && h.UserinfoEndpoint == "":
		return p.Errf("userinfo needs userinfo_endpoint <url> where there is no issuer")
	}
	if h.FrontchannelLogout && h.Issuer == "" {
		return p.Errf("frontchannel_logout needs issuer <url>: without an ID token, no session has a sid")
	}
	if h.SessionLimit > 0 && h.Issuer == "" && h.UserInfo == "" {
		return p.Errf("session_limit needs issuer <url> or userinfo: without them, no session has a user")
	}
	return p.checkClientAuth()
}

// checkClientAuth finds a method without its credentials, and credentials without their
// method.
func (p *parser) checkClientAuth() error {
	h := p.handler
	method := h.TokenEndpointAuthMethod
	usesSecret := method == "" || strings.HasPrefix(method, "client_secret_")
	switch {
	case !usesSecret && h.ClientSecret != "":
		return p.Errf("client_secret and token_endpoint_auth_method %s exclude each other: leave one of them out", method)
	case usesSecret && method != "" && h.ClientSecret == "":
		return p.Errf("token_endpoint_auth_method %s needs client_secret <secret>", method)
	case method == "private_key_jwt" && h.ClientKey == "":
		return p.Errf("token_endpoint_auth_method private_key_jwt needs client_key <file>")
	case method == "client_assertion" && h.ClientAssertion == nil:
		return p.Errf("token_endpoint_auth_method client_assertion needs client_assertion <file>")
	case method != "" && method != "client_assertion" && h.ClientAssertion != nil:
		return p.Errf("client_assertion and token_endpoint_auth_method %s exclude each other: leave one of them out", method)
	case method == "" && h.ClientSecret != "" && h.ClientAssertion != nil:
		return p.Errf("client_secret and client_assertion exclude each other: leave one of them out")
	case method == "" && h.ClientSecret != "" && h.ClientKey != "":
		return p.Errf("client_secret and client_key are both set: write token_endpoint_auth_method private_key_jwt and leave client_secret out, " +
			"or write the method that uses the secret")
	}
	return nil
}

func (p *parser) unrecognized(name string) error {
	if why, ok := notAvailable[name]; ok {
		return p.Errf("%s is not available in this release: %s", name, why)
	}
	if instead, ok := peerWords[name]; ok {
		if !strings.HasPrefix(instead, "leave it out") {
			instead = "write " + instead
		}
		return p.Errf("unrecognized subdirective '%s': %s", name, instead)
	}
	if near := nearestOption(name); near != "" {
		return p.Errf("unrecognized subdirective '%s': did you mean %s?", name, options[near].usage)
	}
	return p.Errf("unrecognized subdirective '%s': docs/options.md lists all options", name)
}

// notAvailable has planned options that this release does not have.
var notAvailable = map[string]string{
	"client_certificate": "use client_key <file> or client_secret <secret>",
}

// isURL also accepts a text with placeholders, because their values are not known yet.
func isURL(text string) bool {
	if strings.Contains(text, "{") {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}
