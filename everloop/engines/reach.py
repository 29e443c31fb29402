"""Which addresses an engine may connect to: what a release names as base_url must not make the server call its own network.

Asked when a connection is opened, of the very address it goes to, so a name that resolves to one address when it is checked and to another when
it is used (DNS rebinding) gains nothing. The addresses of IPv4 inside IPv6 (mapped, 6to4, NAT64) are judged as what they lead to.

- Link-local, metadata services, unspecified, multicast and reserved addresses: never.
- Loopback: where the server itself is bound to loopback (a local Ollama), else only for hosts that are allowed.
- Private addresses: only for hosts that are allowed.

Allowed are the hosts, addresses and networks of the setting `engine_hosts` (EVERLOOP_ENGINE_HOSTS), which whoever runs the server gives, and the
hosts of OPENAI_BASE_URL and ANTHROPIC_BASE_URL in its environment.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from everloop.core.errors import BadInput
from everloop.core.settings import Settings, is_loopback

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NEVER = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd20:ce::254/128")))
"""Link-local addresses, and those at which clouds answer a machine with its own credentials (AWS, Azure, GCP, Alibaba, Oracle)."""
NAT64 = ip_network("64:ff9b::/96")
REFUSED = "this server may not call that address"
"""How the refusal of a connection begins: what callers recognise it by."""
HINT = "If it is meant, whoever runs the server allows it: EVERLOOP_ENGINE_HOSTS={host}"


@dataclass(frozen=True)
class Reach:
    """`loopback`: whether loopback addresses are free to call; `hosts`: names and addresses, `networks`: ranges that are allowed besides."""

    loopback: bool = True
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Reach:
        """What a server's settings allow; BadInput for a range that does not parse."""
        hosts, networks = set(), []
        for word in (one.strip().lower() for one in settings.engine_hosts.split(",")):
            if "/" not in word:
                hosts.add(word.strip("[]"))
                continue
            try:
                networks.append(ip_network(word))
            except ValueError as error:
                raise BadInput(f"EVERLOOP_ENGINE_HOSTS has {word!r}: {error}.", "Write hosts or networks: vllm.internal, 10.1.0.0/16") from None
        return cls(is_loopback(settings.host), frozenset(hosts - {""}), tuple(networks))

    def names(self, host: str, environ: Mapping[str, str] | None = None) -> bool:
        """Whether a host is allowed by its name (or as the address that it is)."""
        env = os.environ if environ is None else environ
        given = (urlsplit(env.get(name, "")).hostname for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"))
        return host.lower() in self.hosts or host.lower() in {one for one in given if one}

    def allows(self, address: str, named: bool) -> bool:
        """Whether a connection to an address is allowed; `named`: whether the host it is opened for is."""
        one = _led_to(ip_address(address.partition("%")[0]))
        if any(one in network for network in NEVER if network.version == one.version) or one.is_unspecified or one.is_multicast:
            return False
        if named or any(one in network for network in self.networks if network.version == one.version):
            return True
        return self.loopback if one.is_loopback else one.is_global


_reach = Reach()


def configure(settings: Settings) -> None:
    """Make a server's settings those of the process."""
    global _reach
    _reach = Reach.of(settings)


def current() -> Reach:
    """What is allowed in this process."""
    return _reach


def opener(named: bool) -> Any:
    """A maker of sockets for connections to hosts that are (`named`) or are not allowed by name: PermissionError for an address that may not be."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not _reach.allows(str(address[0]), named):
            raise PermissionError(errno.EACCES, f"{REFUSED} ({address[0]})")
        return socket.socket(family, kind, protocol)

    return make


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a host that it may not be called at; for requests that go through a proxy, which opens the connection. Blocks."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []  # the proxy may know it
    return [str(info[4][0]) for info in found if not _reach.allows(str(info[4][0]), _reach.names(host))]


def _led_to(one: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(one, IPv4Address):
        return one
    inner = one.ipv4_mapped or one.sixtofour
    return inner or (IPv4Address(int(one) & 0xFFFFFFFF) if one in NAT64 else one)
