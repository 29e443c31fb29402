"""Settings: one dataclass, read once from arguments and EVERLOOP_* environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from everloop.core.errors import BadInput

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7600
DEFAULT_HOME = ".everloop"


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: localhost, or a loopback address (127.evil.example is neither)."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Settings:
    """How a server runs. Arguments win over the environment (`EVERLOOP_<NAME>`), the environment over defaults.

    home: folder of all state. records_url: SQLAlchemy URL; "" means SQLite under home.
    workers: worker processes that the server starts when there is work (0: none, they are started elsewhere).
    public_url: how browsers reach the server where that is not its own address (a proxy): https://everloop.example.com
    oidc_*: sign-in by an identity provider, off without an issuer (see web/oidc.py); oidc_roles: `group=project:role, ...`.
    webhooks_inner: webhooks may go to inner addresses, and by http.
    objects: s3://BUCKET/PREFIX, where objects lie in a bucket (extra `s3`); "" means a folder under home.
    otlp_grpc: TCP port of OTLP over gRPC (extra `grpc`), where 4317 is usual; 0: off.
    engine_hosts: hosts, addresses and networks inside one's own network that engines may call: vllm.internal, 10.1.0.0/16 (engines/reach.py).
    fsync: False only for tests of other things: acknowledged writes then survive a crash of the process, not of the machine.
    """

    home: Path = field(default_factory=lambda: Path(DEFAULT_HOME))
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    otlp_grpc: int = 0
    records_url: str = ""
    objects: str = ""
    workers: int = 1
    fsync: bool = True
    engine_hosts: str = ""
    test_reset: bool = False
    webhooks_inner: bool = False
    public_url: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    oidc_scopes: str = "openid profile email"
    oidc_groups: str = "groups"
    oidc_roles: str = ""

    @property
    def url(self) -> str:
        """Where this server answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @classmethod
    def load(cls, **given: object) -> Settings:
        """Settings from `given` (None means not given), then the environment, then defaults; BadInput on a value that does not parse."""
        values: dict[str, object] = {}
        for name, kind in _KINDS.items():
            raw = given.get(name)
            if raw is None:
                raw = os.environ.get(f"EVERLOOP_{name.upper()}")
            if raw is None:
                continue
            try:
                values[name] = kind(raw)  # type: ignore[operator]
            except (TypeError, ValueError):
                raise BadInput(f"EVERLOOP_{name.upper()}={raw!r} cannot be used as {name}.") from None
        settings = cls(**values)  # type: ignore[arg-type]
        if not 0 <= settings.port <= 65535:
            raise BadInput(f"Port {settings.port} is not between 0 and 65535.", "Choose another: --port N (0: any free one).")
        if not 0 <= settings.otlp_grpc <= 65535:
            raise BadInput(f"Port {settings.otlp_grpc} is not between 0 and 65535.", "OTLP over gRPC: --otlp-grpc 4317 (0: off).")
        return settings


def _flag(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(text)


_KINDS = {
    "home": Path,
    "host": str,
    "port": int,
    "otlp_grpc": int,
    "records_url": str,
    "objects": str,
    "engine_hosts": str,
    "workers": int,
    "fsync": _flag,
    "test_reset": _flag,
    "webhooks_inner": _flag,
}
_KINDS |= dict.fromkeys(("public_url", "oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_scopes", "oidc_groups", "oidc_roles"), str)
