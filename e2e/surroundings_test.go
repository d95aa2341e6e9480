package e2e

// A surrounding is a site with oauth_session and other directives, and requests to it.
type surrounding struct {
	name   string // the directives in the order in which they run
	site   string // with variables such as $login and $app, which the rig replaces
	visits []surroundingVisit
}

// A surroundingVisit is a request with the expected user and token. docs/placement.md shows them in a table.
type surroundingVisit struct {
	who         string // "anonymous", or one or two of alice and dora (with sessions) and bob (with a password)
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
	notAsked         = "–"           // no app got the request
	tooEarly         = "(too early)" // ends the name of a surrounding whose directive runs before the placeholder is known
)

// surroundings are sites in which the user is that of the session, or empty.
var surroundings = []surrounding{
	{"`oauth_session`", "oauth_session {\n$login\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", "status 401", notAsked}, {"bob", "/", "status 401", notAsked},
	}},
	{"`oauth_session` with `optional`", "oauth_session {\n$login\noptional\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken}, {"bob", "/", empty, noToken},
	}},
	{"`oauth_session /private/*`", "oauth_session /private/* {\n$login\n}\n$app", []surroundingVisit{
		{"alice", "/private/", "alice", alicesToken}, {"alice", "/", empty, noToken}, {"anonymous", "/", empty, noToken}, {"bob", "/", empty, bobsPasswordSeen},
	}},
	{"`basic_auth` → `oauth_session`", "route {\nbasic_auth {\n$bob\n}\noauth_session {\n$login\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/", "alice", alicesToken}, {"bob", "/", "status 401", notAsked}, {"alice", "/", "status 401", notAsked},
	}},
	{"`basic_auth` → `oauth_session` with `optional`", "route {\nbasic_auth {\n$bob\n}\noauth_session {\n$login\noptional\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/", "alice", alicesToken}, {"bob", "/", empty, noToken},
	}},
	{"`basic_auth` → `oauth_session` with `optional` and `authorization keep`", "route {\nbasic_auth {\n$bob\n}\noauth_session {\n$login\noptional\nauthorization keep\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/", "alice", bobsPasswordSeen}, {"bob", "/", empty, bobsPasswordSeen},
	}},
	{"`basic_auth` → `oauth_session /private/*`", "route {\nbasic_auth {\n$bob\n}\noauth_session /private/* {\n$login\n}\n$app\n}", []surroundingVisit{
		{"alice and bob", "/private/", "alice", alicesToken}, {"bob", "/", empty, bobsPasswordSeen},
	}},
	{"`vars http.auth.user.id bob` → `oauth_session` with `optional`", "vars http.auth.user.id bob\noauth_session {\n$login\noptional\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken},
	}},
	{"`oauth_session` → `basic_auth`", "oauth_session {\n$login\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"alice and bob", "/", "status 401", notAsked}, {"bob", "/", "status 401", notAsked},
	}},
	{"`oauth_session` with `authorization keep` and `header X-Token {token}` → `basic_auth`", "oauth_session {\n$login\nauthorization keep\nheader X-Token {token}\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"alice and bob", "/", "alice", bobsPasswordSeen + ", " + alicesToken}, {"alice", "/", "status 401", notAsked},
	}},
	{"`oauth_session` → `vars http.auth.user.id bob`", "route {\noauth_session {\n$login\n}\nvars http.auth.user.id bob\n$app\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken},
	}},
	{"`oauth_session` with `optional` and `authorization keep` → `basic_auth`", "oauth_session {\n$login\noptional\nauthorization keep\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"bob", "/", "bob", bobsPasswordSeen}, {"alice and bob", "/", "alice", bobsPasswordSeen}, {"anonymous", "/", "status 401", notAsked},
	}},
	{"`oauth_session /private/*` → `basic_auth`", "oauth_session /private/* {\n$login\n}\nbasic_auth {\n$bob\n}\n$app", []surroundingVisit{
		{"bob", "/", "bob", bobsPasswordSeen}, {"alice and bob", "/", "bob", bobsPasswordSeen}, {"alice and bob", "/private/", "status 401", notAsked},
	}},
	{"`forward_auth` with `Remote-User: carol` → `oauth_session` with `optional`", "route {\nforward_auth $forward {\nuri /\ncopy_headers Remote-User\n}\noauth_session {\n$login\noptional\n}\n$app\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken},
	}},
	{"`oauth_session` with `optional` → `forward_auth` with `Remote-User: carol`", "oauth_session {\n$login\noptional\n}\nforward_auth $forward {\nuri /\ncopy_headers Remote-User\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken},
	}},
	{"`oauth_session` with `optional` → `forward_auth`: its server gets", "oauth_session {\n$login\noptional\n}\nforward_auth $appaddr {\nuri /\nheader_up X-User {http.auth.user.id}\n@any status 2xx\nhandle_response @any {\ncopy_response\n}\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken},
	}},
	{"`handle_errors` with `reverse_proxy`; `oauth_session` refuses the request", "oauth_session {\n$login\npath_prefix /page/oauth2\nauthorization reject\n}\n$app\nhandle_errors {\n$app\n}", []surroundingVisit{
		{"bob", "/page", empty, bobsPasswordSeen}, {"anonymous", "/page/oauth2/nothing", empty, noToken},
	}},
	{"`handle_errors` with `reverse_proxy`; a claim of `require` is missing", "oauth_session {\n$login\nrequire groups admins\n}\n$app\nhandle_errors {\n$app\n}", []surroundingVisit{
		{"alice", "/page", "alice", noToken},
	}},
	{"`handle_errors` with `reverse_proxy`; the app is down", "oauth_session {\n$login\noptional\nheader X-Token {token}\nauthorization keep\n}\nbasic_auth /page/both {\n$bob\n}\nreverse_proxy $nowhere\nhandle_errors {\n$app\n}", []surroundingVisit{
		{"alice", "/page", "alice", noToken}, {"anonymous", "/page", empty, noToken}, {"alice and bob", "/page/both", "alice", bobsPasswordSeen},
	}},
	{"`handle_errors` with `respond`; `oauth_session` refuses the request", "oauth_session {\n$login\npath_prefix /page/oauth2\nauthorization reject\n}\n$app\nhandle_errors {\n$text\n}", []surroundingVisit{
		{"bob", "/page", empty, notAsked}, {"anonymous", "/page/oauth2/nothing", empty, notAsked},
	}},
	{"`oauth_session` for all but `/admin/*`, another client for `/admin/*`", "@outer not path /admin/*\noauth_session @outer {\n$login\n}\nhandle_path /admin/* {\noauth_session {\n$admin\n}\n$app\n}\n$app", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", "status 401", notAsked}, {"dora", "/admin/", "dora", dorasToken}, {"alice", "/admin/", "status 401", notAsked},
	}},
	{"the same, with `optional` for `/admin/*`", "@outer not path /admin/*\noauth_session @outer {\n$login\n}\nhandle_path /admin/* {\noauth_session {\n$admin\noptional\n}\n$app\n}\n$app", []surroundingVisit{
		{"alice", "/admin/", empty, noToken}, {"dora", "/admin/", "dora", dorasToken}, {"dora and bob", "/admin/", "dora", dorasToken},
	}},
	{"`oauth_session` → `oauth_session /admin/x/*` for another client", "oauth_session {\n$login\n}\nhandle {\noauth_session /admin/x/* {\n$admin\n}\n$app\n}", []surroundingVisit{
		{"alice", "/admin/", "alice", alicesToken}, {"anonymous", "/admin/", "status 401", notAsked},
	}},
	{"`oauth_session` with `optional` → `templates`", "oauth_session {\n$login\noptional\n}\ntemplates {\nmime text/plain\n}\nheader Content-Type text/plain\nrespond `user=[{{placeholder \"http.auth.user.id\"}}]`", []surroundingVisit{
		{"alice", "/", "alice", notAsked}, {"anonymous", "/", empty, notAsked},
	}},
	{"`oauth_session` with `optional` → `php_fastcgi` with `env`", "root $root\noauth_session {\n$login\noptional\n}\nphp_fastcgi $fastcgi {\nenv REMOTE_USER {http.auth.user.id}\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken}, {"bob", "/", empty, noToken},
	}},
	{"`map` from the user → `oauth_session` with `optional`", "map {http.auth.user.id} {role} {\nalice alice\nbob bob\n\"\" \"\"\ndefault other\n}\noauth_session {\n$login\noptional\n}\nreverse_proxy $appaddr {\nheader_up X-User {role}\n}", []surroundingVisit{
		{"alice", "/", "alice", alicesToken}, {"anonymous", "/", empty, noToken},
	}},
	{"`oauth_session /private/*` → `map` from the user", "route {\noauth_session /private/* {\n$login\n}\nmap {http.auth.user.id} {role} {\nalice alice\n\"\" \"\"\ndefault other\n}\nreverse_proxy $appaddr {\nheader_up X-User {role}\n}\n}", []surroundingVisit{
		{"alice", "/private/", "alice", alicesToken}, {"alice", "/", empty, noToken},
	}},
	{"`oauth_session` with `optional` → `redir`", "route {\noauth_session {\n$login\noptional\n}\nredir /me /to?user=[{http.auth.user.id}]\n}", []surroundingVisit{
		{"alice", "/me", "alice", notAsked}, {"anonymous", "/me", empty, notAsked},
	}},
	{"`oauth_session` with `optional` → `respond`", "oauth_session {\n$login\noptional\n}\n$text", []surroundingVisit{
		{"alice", "/", "alice", notAsked}, {"anonymous", "/", empty, notAsked},
	}},
	{"`oauth_session /private/*` → `header`", "route {\noauth_session /private/* {\n$login\n}\nheader X-Seen user=[{http.auth.user.id}]\nrespond ok\n}", []surroundingVisit{
		{"alice", "/private/", "alice", notAsked}, {"anonymous", "/", empty, notAsked},
	}},
	{"`header >X-Seen` (set with the answer) → `oauth_session` with `optional`", "header >X-Seen user=[{http.auth.user.id}]\noauth_session {\n$login\noptional\n}\nrespond ok", []surroundingVisit{
		{"alice", "/", "alice", notAsked}, {"anonymous", "/", empty, notAsked},
	}},
	{"`log_append` → `oauth_session` with `optional`", "log_append seen {http.auth.user.id}\noauth_session {\n$login\noptional\n}\nrespond ok", []surroundingVisit{
		{"alice", "/log", "alice", notAsked}, {"anonymous", "/log", empty, notAsked},
	}},
	{"`log_append` → `oauth_session` → `vars http.auth.user.id bob`", "log_append seen {http.auth.user.id}\nroute {\noauth_session {\n$login\n}\nvars http.auth.user.id bob\n}", []surroundingVisit{
		{"alice", "/log", "alice", notAsked},
	}},
	{"`oauth_session` with `optional` → `templates` with `httpInclude`", "oauth_session {\n$login\noptional\n}\ntemplates {\nmime text/plain\n}\nheader Content-Type text/plain\nrespond /include `{{httpInclude \"/\"}}`\n$app", []surroundingVisit{
		{"alice", "/include", empty, noToken},
	}},
	{"`oauth_session` → `templates` with `httpInclude` of a protected page", "oauth_session {\n$login\n}\ntemplates {\nmime text/plain\n}\nheader Content-Type text/plain\nrespond /include `{{httpInclude \"/\"}}`\n$app", []surroundingVisit{
		{"alice", "/include", "status 500", notAsked},
	}},
	{"`oauth_session /private/*` → `templates` with `httpInclude` of an open page", "oauth_session /private/* {\n$login\n}\ntemplates {\nmime text/plain\n}\nheader Content-Type text/plain\nrespond /private/ `{{httpInclude \"/\"}}`\n$app", []surroundingVisit{
		{"alice", "/private/", empty, alicesToken},
	}},
	{"`oauth_session` with `optional` → `rewrite`", "route {\noauth_session {\n$login\noptional\n}\nrewrite /me /users/{http.auth.user.id}/\nrespond user=[{path.1}]\n}", []surroundingVisit{
		{"alice", "/me", "alice", notAsked}, {"anonymous", "/me", empty, notAsked},
	}},
	{"`oauth_session` with `optional` → `root`", "route {\noauth_session {\n$login\noptional\n}\nroot $files/{http.auth.user.id}\nfile_server\n}", []surroundingVisit{
		{"alice", "/who.txt", "alice", notAsked}, {"anonymous", "/who.txt", empty, notAsked},
	}},
	{"`redir` → `oauth_session` " + tooEarly, "redir /me /to?user=[{http.auth.user.id}]\noauth_session {\n$login\n}\n$app", []surroundingVisit{
		{"alice", "/me", literal, notAsked},
	}},
	{"`header` → `oauth_session` " + tooEarly, "header X-Seen user=[{http.auth.user.id}]\noauth_session {\n$login\n}\nrespond ok", []surroundingVisit{
		{"alice", "/", literal, notAsked},
	}},
	{"`rewrite` → `oauth_session` " + tooEarly, "rewrite /me /users/{http.auth.user.id}/\noauth_session {\n$login\noptional\n}\nrespond user=[{path.1}]", []surroundingVisit{
		{"alice", "/me", empty, notAsked},
	}},
	{"`vars` → `oauth_session` " + tooEarly, "vars who {http.auth.user.id}\noauth_session {\n$login\noptional\n}\nrespond user=[{vars.who}]", []surroundingVisit{
		{"alice", "/", empty, notAsked},
	}},
	{"`root` → `oauth_session` " + tooEarly, "root $files/{http.auth.user.id}\noauth_session {\n$login\noptional\n}\nfile_server", []surroundingVisit{
		{"alice", "/who.txt", empty, notAsked},
	}},
}
