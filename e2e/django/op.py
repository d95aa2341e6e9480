"""Django OAuth Toolkit as an authorization server on 127.0.0.1, with the users alice and bob.

    python3 op.py SETTINGS

SETTINGS is JSON: port, database (a file), key (PEM), accessTokenTTL (seconds), clientID, clientSecret, redirectURI. It
writes "ready ISSUER". Besides the toolkit's endpoints below /o/, it has /login/ with a form, and /revoke/, which deletes
all refresh tokens.
"""

import json
import socketserver
import sys
import wsgiref.simple_server

import django
from django.conf import settings

given = json.loads(sys.argv[1])

settings.configure(
    SECRET_KEY="only-for-tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": given["database"], "OPTIONS": {"timeout": 60}}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    LOGIN_URL="/login/",
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": given["key"],
        "SCOPES": {"openid": "Log in"},
        "ACCESS_TOKEN_EXPIRE_SECONDS": given["accessTokenTTL"],
        "REFRESH_TOKEN_EXPIRE_SECONDS": 3600,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
        "ROTATE_REFRESH_TOKEN": True,
        "PKCE_REQUIRED": True,
    },
)
django.setup()

from django.contrib.auth import authenticate, get_user_model, login  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, HttpResponseRedirect  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import get_application_model, get_refresh_token_model  # noqa: E402


def login_view(request):
    if request.method != "POST":
        return HttpResponse('<form method="post"><input name="user"><input type="password" name="password"><button>Log in</button></form>')
    user = authenticate(request, username=request.POST["user"], password=request.POST["password"])
    if user is None:
        return HttpResponse("unknown user or wrong password", status=403)
    login(request, user)
    return HttpResponseRedirect(request.GET["next"])


def revoke_view(request):
    get_refresh_token_model().objects.all().delete()
    return HttpResponse()


urlpatterns = [
    path("login/", login_view),
    path("revoke/", revoke_view),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 256


def main():
    call_command("migrate", verbosity=0)
    users = [get_user_model().objects.create_user(name, password=name + "-password") for name in ("alice", "bob")]
    application = get_application_model()
    application.objects.create(
        client_id=given["clientID"],
        client_secret=given["clientSecret"],
        client_type=application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=application.GRANT_AUTHORIZATION_CODE,
        redirect_uris=given["redirectURI"],
        algorithm=application.RS256_ALGORITHM,
        skip_authorization=True,
        user=users[0],
    )
    server = wsgiref.simple_server.make_server("127.0.0.1", given["port"], get_wsgi_application(), server_class=Server)
    print(f"ready http://127.0.0.1:{server.server_port}/o", flush=True)
    server.serve_forever()


main()
