package e2e

// A surrounding is a site with oauth_session and other directives, and requests to it.
type surrounding struct {
	name   string
	site   string // with variables such as $login and $app, which the rig replaces
	visits []surroundingVisit
}

// A surroundingVisit is a request with the expected user and token. docs/placement.md shows them in a table.
type surroundingVisit struct {
	who         string // nobody, or one or two of alice and dora, who have sessions, and bob, who has a password
	path        string
	user, token string
}

const (
	literal          = "{http.auth.user.id}"
	empty            = "empty"
	alicesToken      = "alice's"
	dorasToken       = "dora's"
	bobsPasswordSeen = "bob's password"
	noToken          = "none"
	notAsked         = "–" // no app got the request
)

// surroundings are sites in which the user is that of the session, or empty.
var surroundings = []surrounding{
	{"alone", "oauth_session {\n$login\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", "status 401", notAsked}, {"bob", "/", "status 401", notAsked},
	}},
	{"`optional`", "oauth_session {\n$login\noptional\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken}, {"bob", "/", empty, noToken},
	}},
	{"beside the matcher `/private/*`", "oauth_session /private/* {\n$login\n}\n$app", []surroundingVisit{
		{"alice", "/private/", "alice", alicesToken}, {"alice", "/", empty, noToken}, {"nobody", "/", empty, noToken}, {"bob", "/", empty, bobsPasswordSeen},
	}},
	{"after `basic_auth`, in a `route`", "route {\nbasic_auth {\n$bob\n}\noauth_session {\n$login\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/", "alice", alicesToken}, {"bob", "/", "status 401", notAsked}, {"alice", "/", "status 401", notAsked},
	}},
	{"after `basic_auth`, with `optional`", "route {\nbasic_auth {\n$bob\n}\noauth_session {\n$login\noptional\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/", "alice", alicesToken}, {"bob", "/", empty, noToken},
	}},
	{"after `basic_auth`, with `optional` and `authorization keep`", "route {\nbasic_auth {\n$bob\n}\noauth_session {\n$login\noptional\nauthorization keep\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/", "alice", bobsPasswordSeen}, {"bob", "/", empty, bobsPasswordSeen},
	}},
	{"after `basic_auth`, beside the matcher `/private/*`", "route {\nbasic_auth {\n$bob\n}\noauth_session /private/* {\n$login\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/private/", "alice", alicesToken}, {"bob", "/", empty, bobsPasswordSeen},
	}},
	{"after `vars http.auth.user.id bob`", "vars http.auth.user.id bob\noauth_session {\n$login\noptional\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken},
	}},
	{"before `basic_auth`", "oauth_session {\n$login\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"alice and bob", "/", "status 401", notAsked}, {"bob", "/", "status 401", notAsked},
	}},
	{"before `basic_auth`, with `authorization keep` and `header X-Token {token}`", "oauth_session {\n$login\nauthorization keep\nheader X-Token {token}\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"alice and bob", "/", "alice", bobsPasswordSeen + ", " + alicesToken}, {"alice", "/", "status 401", notAsked},
	}},
	{"before `vars http.auth.user.id bob`", "route {\noauth_session {\n$login\n}\nvars http.auth.user.id bob\n$app\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken},
	}},
	{"before `basic_auth`, with `optional` and `authorization keep`", "oauth_session {\n$login\noptional\nauthorization keep\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"bob", "/", "bob", bobsPasswordSeen}, {"alice and bob", "/", "alice", bobsPasswordSeen}, {"nobody", "/", "status 401", notAsked},
	}},
	{"before `basic_auth`, beside the matcher `/private/*`", "oauth_session /private/* {\n$login\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"bob", "/", "bob", bobsPasswordSeen}, {"alice and bob", "/", "bob", bobsPasswordSeen}, {"alice and bob", "/private/", "status 401", notAsked},
	}},
	{"after `forward_auth`, which says `Remote-User: carol`", "route {\nforward_auth $forward {\nuri /\ncopy_headers Remote-User\n}\noauth_session {\n$login\noptional\n}\n$app\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken},
	}},
	{"before `forward_auth`, which says `Remote-User: carol`", "oauth_session {\n$login\noptional\n}\nforward_auth $forward {\nuri /\ncopy_headers Remote-User\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken},
	}},
	{"what the server of `forward_auth` gets, after `oauth_session`", "oauth_session {\n$login\noptional\n}\nforward_auth $appaddr {\nuri /\nheader_up X-User {http.auth.user.id}\n@any status 2xx\nhandle_response @any {\ncopy_response\n}\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken},
	}},
	{"`handle_errors` with `reverse_proxy`, refused", "oauth_session {\n$login\npath_prefix /page/oauth2\nauthorization reject\n}\n$app\nhandle_errors {\n$app\n}", []surroundingVisit{
		{"bob", "/page", empty, bobsPasswordSeen}, {"nobody", "/page/oauth2/nothing", empty, noToken},
	}},
	{"`handle_errors` with `reverse_proxy`, `require` not met", "oauth_session {\n$login\nrequire groups admins\n}\n$app\nhandle_errors {\n$app\n}", []surroundingVisit{
		{"alice", "/page", "alice", noToken},
	}},
	{"`handle_errors` with `reverse_proxy`, the app is down", "oauth_session {\n$login\noptional\nheader X-Token {token}\nauthorization keep\n}\nbasic_auth /page/both {\n$bob\n}\nreverse_proxy $nowhere\nhandle_errors {\n$app\n}", []surroundingVisit{
		{"alice", "/page", "alice", noToken}, {"nobody", "/page", empty, noToken}, {"alice and bob", "/page/both", "alice", bobsPasswordSeen},
	}},
	{"`handle_errors` with `respond`, refused", "oauth_session {\n$login\npath_prefix /page/oauth2\nauthorization reject\n}\n$app\nhandle_errors {\n$text\n}", []surroundingVisit{
		{"bob", "/page", empty, notAsked}, {"nobody", "/page/oauth2/nothing", empty, notAsked},
	}},
	{"two directives, for two clients", "@outer not path /admin/*\noauth_session @outer {\n$login\n}\nhandle_path /admin/* {\noauth_session {\n$admin\n}\n$app\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", "status 401", notAsked}, {"dora", "/admin/", "dora", dorasToken}, {"alice", "/admin/", "status 401", notAsked},
	}},
	{"two directives, the inner one with `optional`", "@outer not path /admin/*\noauth_session @outer {\n$login\n}\nhandle_path /admin/* {\noauth_session {\n$admin\noptional\n}\n$app\n}\n$app", []surroundingVisit{
		{"alice", "/admin/", empty, noToken}, {"dora", "/admin/", "dora", dorasToken}, {"dora and bob", "/admin/", "dora", dorasToken},
	}},
	{"two directives, beside the inner one", "oauth_session {\n$login\n}\nhandle {\noauth_session /admin/x/* {\n$admin\n}\n$app\n}", []surroundingVisit{
		{"alice", "/admin/", "alice", alicesToken}, {"nobody", "/admin/", "status 401", notAsked},
	}},
	{"`templates`", "oauth_session {\n$login\noptional\n}\ntemplates {\nmime text/plain\n}\nheader Content-Type text/plain\nrespond `user=[{{placeholder \"http.auth.user.id\"}}]`", []surroundingVisit{
		{"alice", "/", "alice", notAsked}, {"nobody", "/", empty, notAsked},
	}},
	{"`php_fastcgi` with `env`", "root $root\noauth_session {\n$login\noptional\n}\nphp_fastcgi $fastcgi {\nenv REMOTE_USER {http.auth.user.id}\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken}, {"bob", "/", empty, noToken},
	}},
	{"`map` from the user, before", "map {http.auth.user.id} {role} {\nalice alice\nbob bob\n\"\" \"\"\ndefault other\n}\noauth_session {\n$login\noptional\n}\nreverse_proxy $appaddr {\nheader_up X-User {role}\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"nobody", "/", empty, noToken},
	}},
	{"`map` from the user, after", "route {\noauth_session /private/* {\n$login\n}\nmap {http.auth.user.id} {role} {\nalice alice\n\"\" \"\"\ndefault other\n}\nreverse_proxy $appaddr {\nheader_up X-User {role}\n}\n}", []surroundingVisit{
		{"alice", "/private/", "alice", alicesToken}, {"alice", "/", empty, noToken},
	}},
	{"`redir`, after", "route {\noauth_session {\n$login\noptional\n}\nredir /me /to?user=[{http.auth.user.id}]\n}", []surroundingVisit{
		{"alice", "/me", "alice", notAsked}, {"nobody", "/me", empty, notAsked},
	}},
	{"`respond`, after", "oauth_session {\n$login\noptional\n}\n$text", []surroundingVisit{
		{"alice", "/", "alice", notAsked}, {"nobody", "/", empty, notAsked},
	}},
	{"`header`, after", "route {\noauth_session /private/* {\n$login\n}\nheader X-Seen user=[{http.auth.user.id}]\nrespond ok\n}", []surroundingVisit{
		{"alice", "/private/", "alice", notAsked}, {"nobody", "/", empty, notAsked},
	}},
	{"`header >X-Seen`, which waits for the answer, before", "header >X-Seen user=[{http.auth.user.id}]\noauth_session {\n$login\noptional\n}\nrespond ok", []surroundingVisit{
		{"alice", "/", "alice", notAsked}, {"nobody", "/", empty, notAsked},
	}},
	{"`log_append`, before", "log_append seen {http.auth.user.id}\noauth_session {\n$login\noptional\n}\nrespond ok", []surroundingVisit{
		{"alice", "/log", "alice", notAsked}, {"nobody", "/log", empty, notAsked},
	}},
	{"`log_append` before, and `vars http.auth.user.id bob` behind", "log_append seen {http.auth.user.id}\nroute {\noauth_session {\n$login\n}\nvars http.auth.user.id bob\n}", []surroundingVisit{
		{"alice", "/log", "alice", notAsked},
	}},
	{"`redir`, before it", "redir /me /to?user=[{http.auth.user.id}]\noauth_session {\n$login\n}\n$app", []surroundingVisit{
		{"alice", "/me", literal, notAsked},
	}},
	{"`header`, before it", "header X-Seen user=[{http.auth.user.id}]\noauth_session {\n$login\n}\nrespond ok", []surroundingVisit{
		{"alice", "/", literal, notAsked},
	}},
}
