"""An OpenID provider that is not ours, over HTTPS: Authlib's, as `oidc-provider-mock` puts it together.

Discovery, keys, the code flow and the tokens are its own. It has one key at a time and leaves out its name (`kid`), as
a provider with one key may; `names_keys` has Authlib say it, as providers that change their keys do.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import threading
import warnings
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import trustme
from werkzeug.serving import BaseWSGIServer, make_server

# It sets a filter of its own, which has to be there before ours.
import authlib.deprecate  # noqa: F401

with warnings.catch_warnings():
    # It still uses a part of Authlib that is to go.
    warnings.simplefilter("ignore")
    import oidc_provider_mock
    from oidc_provider_mock import _app, _storage

ISSUER, OTHER = "issuer.example.com", "elsewhere.example.com"
"""Two names of it; a token's issuer is the one by which the provider was asked."""
CALLBACK = "https://party.example.com/callback"
SECONDS_MAX = 30


class Provider:
    """Started at once; everything on one port of the loopback interface."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.names_keys = True
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(ISSUER, OTHER).configure_cert(self._tls)
        self._trust = ssl.create_default_context()
        self.authority.configure_trust(self._trust)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        logging.getLogger("oidc_provider_mock").setLevel(logging.ERROR)
        self._name_keys()
        self.change_key()
        self.port = 0
        self._server: BaseWSGIServer | None = None
        self.start()

    def change_key(self) -> None:
        """From now on there is a new key alone."""
        self._app = oidc_provider_mock.app()

    def start(self) -> None:
        """Serves, on the port of before if it was stopped."""
        server = make_server("127.0.0.1", self.port, lambda *call: self._app(*call), threaded=True, ssl_context=self._tls)
        self.port, self._server = server.server_port, server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens there any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def discovered(self) -> dict[str, Any]:
        """What it says of itself."""
        return self._json("GET", ISSUER, "/.well-known/openid-configuration")

    def keys(self) -> list[dict[str, Any]]:
        """Its keys, where it says that they are."""
        keys: list[dict[str, Any]] = self._json("GET", ISSUER, urlsplit(self.discovered()["jwks_uri"]).path)["keys"]
        return keys

    def token(self, subject: str, audience: str = "valetkey", issuer: str = ISSUER) -> str:
        """Signs somebody in, by the code flow; the ID token."""
        query = {"response_type": "code", "scope": "openid", "client_id": audience, "redirect_uri": CALLBACK}
        status, headers, _ = self._ask("POST", issuer, f"/oauth2/authorize?{urlencode(query)}", {"sub": subject})
        code = parse_qs(urlsplit(headers["Location"]).query)["code"][0]
        assert status == 302, status
        exchange = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        answer = self._json("POST", issuer, "/oauth2/token", {**exchange, "client_id": audience, "client_secret": "x"})
        return str(answer["id_token"])

    def _name_keys(self) -> None:
        plain = _app.OpenIDCode.get_jwt_config

        def named(code: Any, grant: Any, client: Any = None) -> dict[str, Any]:
            config: dict[str, Any] = plain(code, grant, client)
            return {**config, "kid": _storage.storage.jwk.as_dict()["kid"]} if self.names_keys else config

        _app.OpenIDCode.get_jwt_config = named

    def _json(self, method: str, host: str, path: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        status, _, body = self._ask(method, host, path, form)
        assert status == 200, (status, body)
        value: dict[str, Any] = json.loads(body)
        return value

    def _ask(
        self, method: str, host: str, path: str, form: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPSConnection(host, timeout=SECONDS_MAX)
        stream = socket.create_connection(("127.0.0.1", self.port), SECONDS_MAX)
        connection.sock = self._trust.wrap_socket(stream, server_hostname=host)
        try:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
            connection.request(method, path, urlencode(form) if form else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()
