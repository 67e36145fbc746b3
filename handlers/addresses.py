"""Which address a request comes from, and as whom that address counts. Knows no request, only its peer and its headers.

Anybody can write a header. What it says of the client is believed only as far as it was written by proxies that the operator trusts: from
the socket's own peer backwards, each trusted hop's word on the hop before it, up to the first that is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

LOCAL: Final = "local"  # a peer on a Unix socket, or of another kind without an address: all count as one
MAX_HOPS: Final = 32  # that are believed; there are no chains of so many proxies
_TRIES: Final = 8  # commas that one element of Forwarded may hold in its quotations
_PREFIX: Final = 64  # bits of an IPv6 address: what one subscriber gets, who can use all addresses in it (RFC 6177)
_UNIX: Final = "0.0.0.0"  # what Tornado says of a peer without an address; no peer has this one
_IPV4_WITH_PORT = re.compile(r"([0-9.]+):\d{1,5}")
_IPV6_IN_BRACKETS = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_PAIR = re.compile(rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*+)")')
_ELEMENT = re.compile(rf"{_PAIR.pattern}(?:[ \t]*;[ \t]*{_PAIR.pattern})*+")  # RFC 7239 section 4

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def client_address(peer: str | None, forwarded_for: Sequence[str], forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address that a request comes from.

    A chain that ends in something that is no address (`unknown`, a name, garbage) ends at the last trusted hop, whose own address is then
    returned; so does one that names trusted hops only.

    Args:
        peer: The socket's peer; None: it has no address.
        forwarded_for: All X-Forwarded-For headers, in order; the one nearest to this server is at the end.
        forwarded: All Forwarded headers (RFC 7239), in order; only looked at if there is no X-Forwarded-For.
        trusted: Whose word on others is taken.

    Returns:
        The address in its usual form, an IPv4 one mapped into IPv6 as IPv4; `LOCAL` for a peer without one.
    """
    hop = _address_of(peer or "")
    if hop is None or peer == _UNIX:
        return LOCAL
    if not trusted or not _is_one_of(hop, trusted):
        return _text_of(hop)
    for earlier in _chain(forwarded_for, forwarded):
        if earlier is None:
            break
        hop = earlier
        if not _is_one_of(hop, trusted):
            break
    return _text_of(hop)


def counted_as(address: str) -> str:
    """Return the name under which an address is counted: itself, or the network of an IPv6 address that its user has all of."""
    if ":" not in address:
        return address
    host, _, zone = address.partition("%")
    network = IPv6Network((int(IPv6Address(host)) >> (128 - _PREFIX) << (128 - _PREFIX), _PREFIX))
    return f"{network}%{zone}" if zone else str(network)


def _is_one_of(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _chain(forwarded_for: Sequence[str], forwarded: Sequence[str]) -> Iterator[Address | None]:
    """Return the hops that headers name, the nearest first; None for one that is no address."""
    nodes = _listed(",".join(forwarded_for)) if forwarded_for else _nodes(",".join(forwarded))
    for _, node in zip(range(MAX_HOPS), nodes, strict=False):
        yield _address_in(node)


def _listed(header: str) -> Iterator[str]:
    """Return the elements of a list, the last first; empty ones mean nothing (RFC 9110 section 5.6.1)."""
    while header:
        header, _, element = header.rpartition(",")
        if element.strip():
            yield element.strip()


def _nodes(header: str) -> Iterator[str]:
    """Return the `for` of each element of Forwarded, the last first; empty for one without it, and for what cannot be read."""
    for element in _elements(header):
        pairs = _PAIR.findall(element) if _ELEMENT.fullmatch(element) else []
        named = [token or quoted for name, token, quoted in pairs if name.lower() == "for"]
        yield named[0] if len(named) == 1 else ""


def _elements(header: str) -> Iterator[str]:
    """Return the elements of Forwarded, the last first.

    It is read from its end, where trusted proxies have written: no quotation mark that a client sent can swallow what they added.
    """
    while header:
        element, comma = "", -1
        for comma in _commas(header):
            element = header[comma + 1 :].strip(" \t")
            if not element or _ELEMENT.fullmatch(element):
                break
        header = header[: max(comma, 0)]
        if element:
            yield element


def _commas(header: str) -> Iterator[int]:
    """Return where the last element may begin: behind a comma, one of the last few, since a quotation may hold some; or at the start."""
    comma = len(header)
    for _ in range(_TRIES):
        comma = header.rfind(",", 0, comma)
        yield comma
        if comma < 0:
            return


def _address_in(node: str) -> Address | None:
    """Return the address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`."""
    found = _IPV4_WITH_PORT.fullmatch(node) or _IPV6_IN_BRACKETS.fullmatch(node)
    text = found[1] if found else node
    return None if "%" in text else _address_of(text)  # a zone means something on the machine that wrote it only


@lru_cache(maxsize=1024)
def _text_of(address: Address) -> str:
    """Return an address in its usual form; connections from one address that stay share the text."""
    return str(address)


@lru_cache(maxsize=1024)
def _address_of(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
