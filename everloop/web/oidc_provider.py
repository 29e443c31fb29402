"""The other side of OpenID Connect: where a provider's endpoints are, its keys, and whether an id token is what it must be."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote_plus, urlsplit

from everloop.core.errors import Unauthorized, UpstreamFailed
from everloop.core.limits import OIDC_ANSWER_BYTES, OIDC_SECONDS
from everloop.core.settings import Settings, is_loopback

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key pair. `none` and HMAC (where our own client secret would be the key) are not among them."""
LEEWAY = 60.0
"""Seconds that clocks may differ by."""
KEYS_AGAIN = 60.0
"""Seconds before an unknown key makes us fetch the provider's keys again."""


class Provider:
    """One issuer, discovered at first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.issuer = settings.oidc_issuer.rstrip("/")
        self._found: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}
        self._keys_at = 0.0

    async def discover(self) -> dict[str, Any]:
        """The provider's own description. UpstreamFailed where it does not answer, or describes another issuer."""
        if not self._found:
            found = await self._json("GET", f"{self.issuer}/.well-known/openid-configuration")
            if str(found.get("issuer", "")).rstrip("/") != self.issuer:
                raise UpstreamFailed(
                    f"{self.issuer} says that it is {found.get('issuer')!r}.", "Set EVERLOOP_OIDC_ISSUER to exactly that, if it is right."
                )
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                _need_safe(str(found.get(name, "")), name)
            self._found = found
        return self._found

    async def redeem(self, code: str, verifier: str, redirect: str) -> str:
        """The id token for an authorization code. Unauthorized where the provider refuses it."""
        import aiohttp

        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        secret, auth = self.settings.oidc_client_secret, None
        if secret:
            auth = aiohttp.BasicAuth(quote_plus(self.settings.oidc_client_id), quote_plus(secret))  # as RFC 6749, 2.3.1 has it
        else:
            form["client_id"] = self.settings.oidc_client_id
        where = (await self.discover())["token_endpoint"]
        answer = await self._json("POST", where, form, auth)
        if not isinstance(answer.get("id_token"), str):
            raise Unauthorized("The identity provider did not take the code.", "Sign in once more.")
        return str(answer["id_token"])

    async def claims(self, token: str, nonce: str) -> dict[str, Any]:
        """What a valid id token says. Unauthorized for a wrong signature, algorithm, issuer, audience, time or nonce."""
        import jwt

        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in ALGORITHMS:
                raise Unauthorized(f"The id token is signed with {str(head.get('alg'))[:20]!r}, which is not accepted.")
            found: dict[str, Any] = jwt.decode(
                token,
                await self._key(str(head.get("kid") or "")),
                algorithms=[head["alg"]],
                audience=self.settings.oidc_client_id,
                issuer=(await self.discover())["issuer"],
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"The id token is not valid: {error}.", "Sign in once more.") from None
        if not nonce or found.get("nonce") != nonce:
            raise Unauthorized("The id token is not for this sign-in.", "Sign in once more.")
        if isinstance(found["aud"], list) and len(found["aud"]) > 1 and found.get("azp") != self.settings.oidc_client_id:
            raise Unauthorized("The id token was made for another application.")
        return found

    async def _key(self, kid: str) -> Any:
        import jwt

        if kid not in self._keys and time.monotonic() - self._keys_at > (KEYS_AGAIN if self._keys else 0.0):
            answer = await self._json("GET", (await self.discover())["jwks_uri"])
            kept = {}
            for one in answer.get("keys") or ():
                if isinstance(one, dict) and one.get("use", "sig") == "sig" and one.get("kty") in ("RSA", "EC", "OKP"):
                    try:
                        kept[str(one.get("kid") or "")] = jwt.PyJWK(one).key
                    except jwt.PyJWTError:  # a kind of key that we do not know: others may do
                        continue
            self._keys, self._keys_at = kept, time.monotonic()
        if kid in self._keys:
            return self._keys[kid]
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        raise Unauthorized("The id token is signed with a key that the identity provider does not publish.", "Sign in once more.")

    async def _json(self, method: str, url: str, form: dict[str, str] | None = None, auth: Any = None) -> dict[str, Any]:
        import aiohttp
        import orjson

        _need_safe(url, "address")
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=OIDC_SECONDS)) as session,
                session.request(method, url, data=form, auth=auth, allow_redirects=False, headers={"accept": "application/json"}) as answer,
            ):
                raw = await answer.content.read(OIDC_ANSWER_BYTES)
                if answer.status in (400, 401) and form is not None:
                    return {}
                if answer.status != 200:
                    raise UpstreamFailed(f"The identity provider answered {answer.status} at {url}.", "Is EVERLOOP_OIDC_ISSUER right?")
                body = orjson.loads(raw)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UpstreamFailed(f"The identity provider does not answer at {url}: {type(error).__name__}.", "Try again in a moment.") from None
        if not isinstance(body, dict):
            raise UpstreamFailed(f"The identity provider's answer at {url} is no JSON object.")
        return body


def _need_safe(url: str, what: str) -> None:
    """UpstreamFailed for a URL that is neither https nor on this machine: a token or a key must not cross a network in the open."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise UpstreamFailed(f"The identity provider's {what} {url!r} is not https.", "Use https; http is for this machine alone.")
