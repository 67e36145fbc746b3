"""Tests of handlers/addresses.py: the client's address is what trusted proxies say, and nobody else."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.addresses import LOCAL, MAX_HOPS, client_address, counted_as

TRUSTED = tuple(ip_network(one) for one in ("10.0.0.0/8", "fd00::/8", "192.0.2.7"))
PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"


def seen(*forwarded_for: str, forwarded: tuple[str, ...] = (), peer: str | None = PROXY) -> str:
    """Return the address that a request with these headers comes from."""
    return client_address(peer, forwarded_for, forwarded, TRUSTED)


@pytest.mark.parametrize("peer", [CLIENT, "2001:db8::1", "192.0.2.8"])
def test_headers_of_others_are_not_believed(peer: str) -> None:
    """A peer that is not trusted is the client, whatever it says."""
    assert seen("198.51.100.1", forwarded=("for=198.51.100.2",), peer=peer) == peer


def test_without_trusted_proxies_no_header_counts() -> None:
    """With the setting empty, a header changes nothing."""
    assert client_address(PROXY, ["198.51.100.1"], ["for=198.51.100.1"], ()) == PROXY


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([CLIENT], CLIENT),
        (["198.51.100.1, 203.0.113.9"], CLIENT),
        (["198.51.100.1, 203.0.113.9, 10.2.2.2"], CLIENT),
        (["198.51.100.1", "203.0.113.9, 10.2.2.2", "192.0.2.7"], CLIENT),
        (["10.9.9.9, 10.2.2.2"], "10.9.9.9"),
        (["203.0.113.9:4711"], CLIENT),
        (["[2001:db8::5]:443"], "2001:db8::5"),
        (["[2001:DB8:0::5]"], "2001:db8::5"),
        (["2001:db8::5"], "2001:db8::5"),
        (["::ffff:203.0.113.9"], CLIENT),
        ([" , 203.0.113.9 ,, "], CLIENT),
        (["203.0.113.9,fd00::1"], CLIENT),
    ],
)
def test_the_last_address_that_is_not_trusted_is_the_client(headers: list[str], expected: str) -> None:
    """X-Forwarded-For is read from its end, over all of its headers, in all the forms that proxies write."""
    assert seen(*headers) == expected


@pytest.mark.parametrize(
    "garbage", ["unknown", "_hidden", "localhost", "203.0.113.9.1", "300.1.1.1", "[::1", "fe80::1%eth0", "1.2.3.4:x", "\x00", "1"]
)
def test_garbage_leads_to_the_last_trusted_hop(garbage: str) -> None:
    """What is no address ends the chain at the hop that passed it on, and what stands before it is not looked at."""
    assert seen(f"198.51.100.1, {garbage}") == PROXY
    assert seen(f"198.51.100.1, {garbage}, 10.5.5.5") == "10.5.5.5"


def test_empty_headers_lead_to_the_proxy() -> None:
    """A trusted proxy that names nobody speaks for itself."""
    assert seen() == seen("") == seen(" , ,") == seen(forwarded=("",)) == PROXY


def test_a_long_chain_is_believed_so_far_only() -> None:
    """Nobody makes the server read thousands of hops: after some it stops where it is."""
    assert seen(",".join([CLIENT, *["10.1.1.1"] * (MAX_HOPS - 1)])) == CLIENT
    assert seen(",".join([CLIENT, *["10.1.1.1"] * MAX_HOPS])) == "10.1.1.1"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["for=203.0.113.9"], CLIENT),
        (["For=203.0.113.9;proto=https;by=10.0.0.1"], CLIENT),
        (['proto=https;for="203.0.113.9:4711"'], CLIENT),
        (['for="[2001:db8::5]:4711"'], "2001:db8::5"),
        (['for="[2001:db8::5]"', "for=10.2.2.2"], "2001:db8::5"),
        (["for=198.51.100.1, for=203.0.113.9, , for=10.2.2.2"], CLIENT),
        (['for=203.0.113.9;host="a,b;for=198.51.100.1;c"'], CLIENT),
        (['for=203.0.113.9 ; host="a\\"b"'], CLIENT),
    ],
)
def test_forwarded_is_read_where_there_is_no_x_forwarded_for(headers: list[str], expected: str) -> None:
    """The header of RFC 7239 says the same, with its quotations, parameters and lists."""
    assert seen(forwarded=tuple(headers)) == expected


@pytest.mark.parametrize(
    "garbage",
    ["for=unknown", "for=_x", "by=1.1.1.1", "for=1.1.1.1;for=2.2.2.2", "203.0.113.9", 'for="', "for==1.1.1.1", 'for="a,b,c,d,e,f,g,h,i,j"'],
)
def test_what_forwarded_does_not_say_clearly_leads_to_the_last_trusted_hop(garbage: str) -> None:
    """An element that names no address, or two, or cannot be read, ends the chain."""
    assert seen(forwarded=(f"for=198.51.100.1, {garbage}",)) == PROXY


def test_x_forwarded_for_goes_first() -> None:
    """With both headers there is one truth: X-Forwarded-For."""
    assert seen(CLIENT, forwarded=("for=198.51.100.1",)) == CLIENT


text = st.text(st.sampled_from('0123456789abf.:,;"=\\[] \tfor_%') | st.characters(max_codepoint=255), max_size=60)


@given(st.lists(text, max_size=3))
def test_whatever_a_client_sends_the_proxys_word_holds(sent: list[str]) -> None:
    """What a trusted proxy adds at the end is found, whatever stands before it: no client can hide, or be somebody else."""
    assert seen(*sent, CLIENT) == CLIENT
    assert seen(*sent[:-1], ",".join([*sent[-1:], CLIENT])) == CLIENT
    for added in (f"for={CLIENT}", f'for="{CLIENT}:1";proto=https', f'for={CLIENT};host=""'):
        assert seen(forwarded=(*sent, added)) == CLIENT
        assert seen(forwarded=(*sent[:-1], ", ".join([*sent[-1:], added]))) == CLIENT


@given(st.lists(text, max_size=4), st.lists(text, max_size=4), st.none() | text | st.just(PROXY))
def test_any_headers_give_an_address(forwarded_for: list[str], forwarded: list[str], peer: str | None) -> None:
    """Nothing that can be sent raises an error or gives anything but an address, or the name of those without one."""
    found = client_address(peer, forwarded_for, forwarded, TRUSTED)
    assert found == LOCAL or str(ip_address(found)) == found
    assert counted_as(found)


@pytest.mark.parametrize("peer", [None, "", "0.0.0.0", "/run/tailcast.sock"])
def test_peers_without_an_address_are_one(peer: str | None) -> None:
    """Who comes over a Unix socket has no address: all of them have the same name, and no header is believed."""
    assert seen(CLIENT, peer=peer) == LOCAL


def test_an_ipv4_peer_on_an_ipv6_socket_is_an_ipv4_address() -> None:
    """A mapped address is the IPv4 one, also when it is looked for among the trusted."""
    assert seen(peer="::ffff:203.0.113.9") == CLIENT
    assert seen(CLIENT, peer="::ffff:10.0.0.1") == CLIENT


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (CLIENT, CLIENT),
        (LOCAL, LOCAL),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64%eth0"),
    ],
)
def test_ipv6_counts_by_network(address: str, expected: str) -> None:
    """One subscriber has 2^64 addresses of IPv6, and counts once."""
    assert counted_as(address) == expected
