"""Signing in by OpenID Connect against a small identity provider on loopback: real HTTP, real RS256 keys; and what an attacker would try."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.testclient import TestClient

from everloop.core.errors import BadInput
from everloop.core.principal import SYSTEM
from everloop.core.settings import Settings
from everloop.store import identity
from everloop.web.app import create_app
from everloop.web.oidc import mapping_of

CLIENT, SECRET = "everloop", "the client's secret"
PUBLIC = "https://everloop.example.com"


class Idp:
    """An identity provider: `claims` is what it says of whoever signs in; `forge` may replace the id token."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = "one"
        self.claims: dict[str, Any] = {"sub": "248289", "preferred_username": "ann", "groups": ["risk"]}
        self.forge: Any = None
        self.codes: dict[str, dict[str, str]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def approve(self, location: str) -> tuple[str, str]:
        """What a person's browser does at the provider: (code, state) for the address it was sent to."""
        asked = {k: v[0] for k, v in parse_qs(urlsplit(location).query).items()}
        assert location.startswith(self.url + "/authorize?") and asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
        assert asked["redirect_uri"] == PUBLIC + "/oidc/callback" and asked["client_id"] == CLIENT and "openid" in asked["scope"]
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return code, asked["state"]

    def token(self, nonce: str, **changed: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, **self.claims, **changed}
        return jwt.encode(claims, self.key, "RS256", {"kid": self.kid})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        idp = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Quiet."""

            def _send(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def do_GET(self) -> None:
                if self.path == "/.well-known/openid-configuration":
                    at = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
                    self._send(200, {"issuer": idp.url, **{name: idp.url + path for name, path in at.items()}})
                else:
                    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(idp.key.public_key()))
                    self._send(200, {"keys": [{**public, "kid": idp.kid, "use": "sig"}]})

            def do_POST(self) -> None:
                form = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()).items()}
                asked = idp.codes.pop(form.get("code", ""), None)
                challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
                right = base64.b64encode(f"{CLIENT}:{quote_plus(SECRET)}".encode()).decode()
                if asked is None or asked["code_challenge"] != challenge or self.headers["authorization"] != f"Basic {right}":
                    self._send(400, {"error": "invalid_grant"})
                    return
                token = idp.forge(asked["nonce"]) if idp.forge else idp.token(asked["nonce"])
                self._send(200, {"access_token": "x", "token_type": "Bearer", "id_token": token})

        return Handler


@pytest.fixture
def idp() -> Iterator[Idp]:
    provider = Idp()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture
def client(idp: Idp, tmp_path: Path) -> Iterator[TestClient]:
    more = {"oidc_issuer": idp.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_roles": "risk=default:editor, root=*:admin"}
    settings = Settings(home=tmp_path, host="0.0.0.0", workers=0, fsync=False, public_url=PUBLIC, **more)
    with TestClient(create_app(settings), base_url=PUBLIC, follow_redirects=False) as client:
        yield client


def sign_in(client: TestClient, idp: Idp, next: str = "/ui/runs") -> Any:
    """The whole way round; answers the callback's response."""
    code, state = idp.approve(client.get("/oidc/start", params={"next": next}).headers["location"])
    return client.get("/oidc/callback", params={"code": code, "state": state})


def test_a_user_signs_in_with_the_roles_of_their_groups(client: TestClient, idp: Idp) -> None:
    assert (
        f'href="/oidc/start?next=%2Fui%2Fruns">Sign in with {urlsplit(idp.url).netloc}</a>' in client.get("/login", params={"next": "/ui/runs"}).text
    )
    done = sign_in(client, idp)
    assert done.status_code == 303 and done.headers["location"] == "/ui/runs", done.text
    assert "HttpOnly" in done.headers["set-cookie"] and "Secure" in done.headers["set-cookie"]
    me = client.get("/api/v1/me").json()
    assert (me["name"], me["role"], me["project"], me["kind"], me["site_admin"]) == ("user:ann", "editor", "default", "person", False)
    idp.claims["groups"] = ["root"]
    sign_in(client, idp)
    assert client.get("/api/v1/me").json()["site_admin"] is True
    idp.claims["groups"] = []
    refused = sign_in(client, idp)
    assert refused.status_code == 403 and "ann is no member of any project" in refused.text
    client.cookies.clear()
    assert client.get("/api/v1/me").status_code == 401


def test_who_is_in_no_mapped_group_exists_and_may_nothing(client: TestClient, idp: Idp) -> None:
    idp.claims = {"sub": "7", "email": "bob@example.com", "groups": ["others"]}
    assert sign_in(client, idp).status_code == 403
    ws = client.app.state.workspace  # type: ignore[attr-defined]
    assert [u["name"] for u in ws.records.read_sync(SYSTEM, identity.list_users)] == ["bob-example.com"]
    assert client.get("/api/v1/me").status_code == 401


def test_a_name_taken_at_the_provider_gives_nobody_a_local_users_rights(client: TestClient, idp: Idp) -> None:
    ws = client.app.state.workspace  # type: ignore[attr-defined]
    ws.records.write_sync(SYSTEM, lambda tx: identity.create_user(tx, "admin", identity.hash_password("a long password"), site_admin=True))
    idp.claims = {"sub": "9", "preferred_username": "admin", "groups": ["risk"]}
    assert sign_in(client, idp).status_code == 303
    me = client.get("/api/v1/me").json()
    assert me["name"].startswith("user:admin-") and not me["site_admin"]
    rows = ws.records.read_sync(SYSTEM, lambda tx: identity.find_user(tx, me["name"].removeprefix("user:")))
    assert not identity.password_matches(rows["password"], rows["password"])
    ws.records.write_sync(SYSTEM, lambda tx: identity.disable_user(tx, me["name"].removeprefix("user:")))
    assert sign_in(client, idp).status_code == 401


def none_alg(idp: Idp) -> Any:
    return lambda nonce: jwt.encode(jwt.decode(idp.token(nonce), options={"verify_signature": False}), None, "none")


def hmac_of_secret(idp: Idp) -> Any:
    return lambda nonce: jwt.encode(jwt.decode(idp.token(nonce), options={"verify_signature": False}), SECRET + " padded to 32 bytes", "HS256")


def other_key(idp: Idp) -> Any:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return lambda nonce: jwt.encode(jwt.decode(idp.token(nonce), options={"verify_signature": False}), stranger, "RS256", {"kid": idp.kid})


ATTACKS = {
    "nonce": lambda idp: lambda nonce: idp.token("another sign-in's"),
    "no nonce": lambda idp: lambda nonce: idp.token(""),
    "audience": lambda idp: lambda nonce: idp.token(nonce, aud="another application"),
    "several audiences": lambda idp: lambda nonce: idp.token(nonce, aud=[CLIENT, "another"], azp="another"),
    "issuer": lambda idp: lambda nonce: idp.token(nonce, iss="http://127.0.0.1:1"),
    "expired": lambda idp: lambda nonce: idp.token(nonce, exp=int(time.time()) - 3600),
    "from the future": lambda idp: lambda nonce: idp.token(nonce, iat=int(time.time()) + 3600),
    "no algorithm": none_alg,
    "the client's secret as key": hmac_of_secret,
    "another key": other_key,
    "no token": lambda idp: lambda nonce: "nonsense",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_id_token_signs_nobody_in(client: TestClient, idp: Idp, attack: str) -> None:
    idp.forge = ATTACKS[attack](idp)
    done = sign_in(client, idp)
    assert done.status_code == 401 and "everloop_session" not in done.headers.get("set-cookie", ""), done.text
    assert client.get("/api/v1/me").status_code == 401
    ws = client.app.state.workspace  # type: ignore[attr-defined]
    assert ws.records.read_sync(SYSTEM, identity.list_users) == []


def test_a_cookie_that_is_no_ascii_is_another_browsers(client: TestClient, idp: Idp) -> None:
    code, state = idp.approve(client.get("/oidc/start").headers["location"])
    client.cookies.clear()
    answer = client.get("/oidc/callback", params={"code": code, "state": state}, headers={"cookie": "everloop_oidc=\xe9".encode("latin-1")})
    assert answer.status_code == 401 and "unknown" in answer.text


def test_states_are_used_once_by_the_browser_that_began(client: TestClient, idp: Idp) -> None:
    def begin() -> tuple[dict[str, str], dict[str, str]]:
        begun = client.get("/oidc/start")
        code, state = idp.approve(begun.headers["location"])
        client.cookies.clear()
        return {"code": code, "state": state}, {"cookie": begun.headers["set-cookie"].split(";")[0]}

    query, mine = begin()
    _, other = begin()  # the victim's browser, led to the callback by the attacker's link
    for headers in ({}, other):
        assert client.get("/oidc/callback", params=query, headers=headers).status_code == 401
    assert client.get("/oidc/callback", params=query, headers=mine).status_code == 401, "a state that was tried is gone"
    query, mine = begin()
    assert client.get("/oidc/callback", params=query, headers=mine).status_code == 303
    assert client.get("/oidc/callback", params=query, headers=mine).status_code == 401, "replayed"
    assert client.get("/oidc/callback", params={"code": "x", "state": "made up"}).status_code == 401
    query, mine = begin()
    denied = client.get("/oidc/callback", params={"error": "<script>access_denied", "state": query["state"]}, headers=mine)
    assert denied.status_code == 401 and "<script>" not in denied.text


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/ui\r\nx: y"])
def test_a_sign_in_never_leads_elsewhere(client: TestClient, idp: Idp, next: str) -> None:
    assert sign_in(client, idp, next).headers["location"] == "/ui"


def test_keys_that_the_provider_changed_are_fetched_again(client: TestClient, idp: Idp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.web.oidc_provider.KEYS_AGAIN", 0.0)
    assert sign_in(client, idp).status_code == 303
    idp.key, idp.kid = rsa.generate_private_key(public_exponent=65537, key_size=2048), "two"
    assert sign_in(client, idp).status_code == 303


def test_it_is_off_unless_configured_and_says_what_is_missing(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        assert client.get("/oidc/start").status_code == 404 and "/oidc/" not in client.get("/login").text
    with pytest.raises(BadInput, match="EVERLOOP_OIDC_CLIENT_ID is not"):
        create_app(Settings(home=tmp_path, oidc_issuer="https://idp.example"))
    for wrong in ("risk", "risk=credit", "risk=credit:boss", "risk=*:viewer", "risk=credit:caller"):
        with pytest.raises(BadInput):
            mapping_of(wrong)
    assert SECRET not in repr(Settings(oidc_client_secret=SECRET))


def test_a_provider_away_or_in_the_open_is_a_sentence(tmp_path: Path) -> None:
    for issuer, words in (("http://127.0.0.1:9", "does not answer"), ("http://idp.example", "is not https")):
        settings = Settings(home=tmp_path, workers=0, fsync=False, oidc_issuer=issuer, oidc_client_id="x")
        with TestClient(create_app(settings), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
            answer = client.get("/oidc/start")
            assert answer.status_code == 502 and words in answer.json()["detail"], answer.text
