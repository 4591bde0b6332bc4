"""Which hosts a sandbox may reach: names granted to it, and addresses that are public.

Both must hold. A name is matched as it was asked for; an address is judged after resolving, and
the connection is made to the very address that was judged, so that a name cannot be rebound.
Address ranges: the IANA IPv4 and IPv6 special-purpose registries (RFC 6890 and its updates).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from swarm.kernel.errors import InvalidError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_CLOSED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, which answers virtual machines at a public address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
_OPEN_V6: Final = ipaddress.ip_network("2000::/3")
_CLOSED_V6: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking, ...
        "2001:db8::/32",
        "2002::/16",  # 6to4: carries an IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAME_LIMIT: Final = 253
_REMEDY: Final = "write a host alone, such as `api.example.com`, `*.example.com` or `*`"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One granted host: ``api.example.com``, ``*.example.com``, ``*`` or an address."""

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Read ``host`` or ``host:port``.

        Raises:
            InvalidError: it is neither.
        """
        host, port = split_authority(text, None)
        wild = host.removeprefix("*.")
        if host != "*" and "*" in wild:
            raise InvalidError(
                f"`{text}` is not a host: `*` may only stand alone or as the first label",
                remedy=_REMEDY,
            )
        return cls(host, port)

    @property
    def is_any(self) -> bool:
        return self.host == "*"

    def matches(self, host: str, port: int) -> bool:
        """Whether ``host`` (normalised) and ``port`` are what was granted."""
        if self.port is not None and self.port != port:
            return False
        return self._includes_host(host)

    def meet(self, other: HostPattern) -> HostPattern | None:
        """What both match, or None. Of two hosts one includes the other, or they have nothing in
        common."""
        if None not in (self.port, other.port) and self.port != other.port:
            return None
        port = other.port if self.port is None else self.port
        if self._includes_host(other.host):
            return HostPattern(other.host, port)
        return HostPattern(self.host, port) if other._includes_host(self.host) else None

    def includes(self, other: HostPattern) -> bool:
        """Whether every host and port that ``other`` matches is matched by this one too."""
        return self.meet(other) == other

    def _includes_host(self, host: str) -> bool:
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and not _is_address(host)
        return self.is_any or self.host == host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.host if self.port is None else f"{host}:{self.port}"


def narrow(granted: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """The patterns of what both lists match.

    Raises:
        InvalidError: a pattern is malformed.
    """
    allowed = [HostPattern.parse(text) for text in granted]
    met = (pattern.meet(asked) for asked in map(HostPattern.parse, wanted) for pattern in allowed)
    return tuple(dict.fromkeys(str(pattern) for pattern in met if pattern is not None))


def split_authority(text: str, default_port: int | None) -> tuple[str, int | None]:
    """Split ``host``, ``host:port`` or ``[address]:port`` and normalise the host.

    Raises:
        InvalidError: it is malformed, or carries a user name.
    """
    host, port = text, default_port
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(\d{1,5}))?", text)
    if match is None:
        if not _is_address(text):
            raise InvalidError(f"`{text}` is not a host or host:port", remedy=_REMEDY)
    else:
        host = match[1]
        port = int(match[2]) if match[2] else default_port
    if port is not None and not 0 < port < 65_536:
        raise InvalidError(f"`{text}` has no valid port", remedy="write a port from 1 to 65535")
    return normalise_host(host.removeprefix("[").removesuffix("]")), port


def normalise_host(host: str) -> str:
    """Lower case, no final dot, IDNA as Punycode; addresses in their usual form.

    Raises:
        InvalidError: it is not a host name or address.
    """
    if _is_address(host):
        return str(ipaddress.ip_address(host))
    name = host.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise InvalidError(f"`{host}` is not a host name", remedy=_REMEDY) from None
    labels = name.removeprefix("*.").split(".") if name != "*" else []
    if len(name) > _NAME_LIMIT or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidError(f"`{host}` is not a host name", remedy=_REMEDY)
    return name


class EgressPolicy:
    """What one sandbox may reach.

    Args:
        granted: host patterns, as in the manifest.
        private: networks (CIDR) that the operator lets grants reach although they are private.

    Raises:
        InvalidError: a pattern or network is malformed.
    """

    def __init__(self, granted: Sequence[str], private: Iterable[str]) -> None:
        self._patterns = tuple(map(HostPattern.parse, granted))
        try:
            self._private = tuple(ipaddress.ip_network(text, strict=False) for text in private)
        except ValueError as error:
            raise InvalidError(
                str(error),
                where="SWARM_ALLOWED_PRIVATE_NETWORKS",
                remedy="write networks as `10.0.0.0/8,fd00::/8`",
            ) from None

    def is_granted(self, host: str, port: int) -> bool:
        return any(pattern.matches(host, port) for pattern in self._patterns)

    def may_connect(self, host: str, port: int, address: Address) -> bool:
        """Whether a granted host that resolved to ``address`` may be connected to.

        ``*`` means public addresses only: a private one must be granted by its host's name.
        """
        if is_public(address):
            return True
        named = any(
            pattern.matches(host, port) and not pattern.is_any for pattern in self._patterns
        )
        return named and self.is_allowed_private(address)

    def is_allowed_private(self, address: Address) -> bool:
        """Whether the operator lets grants reach ``address`` although it is private."""
        return any(address in network for network in self._private)


def is_public(address: Address) -> bool:
    """Whether an address is a unicast address of the open Internet, in no special-purpose range.

    IPv6 forms that carry an IPv4 address (mapped, 6to4, NAT64, Teredo) are never public.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
