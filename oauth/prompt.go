package oauth

import (
	"slices"
	"strings"
)

// Values of the parameter prompt (OpenID Connect Core section 3.1.2.1).
const (
	promptNone          = "none"
	promptLogin         = "login"
	promptSelectAccount = "select_account"
)

// OtherAccountPrompt returns the prompt with which a user can log in with another
// account. It is "select_account" if the server's metadata lists that in
// prompt_values_supported, and otherwise "login": many servers ignore
// select_account, and some refuse it. It is empty if Config.AuthorizeParams requests
// one of the two at each login.
//
// OtherAccountPrompt does not wait for the server: until the metadata has been
// fetched, it lists nothing.
func (c *Client) OtherAccountPrompt() string {
	if c.configuresPrompt(promptSelectAccount) || c.configuresPrompt(promptLogin) {
		return ""
	}
	if s := c.discovery.peek(); s != nil && slices.Contains(s.value.prompts, promptSelectAccount) {
		return promptSelectAccount
	}
	return promptLogin
}

// ConfiguresPromptNone reports whether Config.AuthorizeParams requests logins
// without any page of the server. Another login does not help a user whom the server
// does not log in silently.
func (c *Client) ConfiguresPromptNone() bool { return c.configuresPrompt(promptNone) }

// configuresPrompt reports whether a prompt of Config.AuthorizeParams has a value.
func (c *Client) configuresPrompt(value string) bool {
	return slices.ContainsFunc(c.authorizeParams, func(p Param) bool {
		return p.Name == "prompt" && slices.Contains(strings.Fields(p.Value), value)
	})
}
