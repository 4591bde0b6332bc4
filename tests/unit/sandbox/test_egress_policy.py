"""Which hosts and addresses a grant reaches."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.kernel.errors import InvalidError
from swarm.sandbox.egress.policy import (
    EgressPolicy,
    HostPattern,
    is_public,
    narrow,
    normalise_host,
    split_authority,
)


@pytest.mark.parametrize(
    ("pattern", "host", "port", "matches"),
    [
        ("api.example.com", "api.example.com", 443, True),
        ("API.Example.com.", "api.example.com", 443, True),
        ("api.example.com", "example.com", 443, False),
        ("api.example.com", "evil-api.example.com", 443, False),
        ("*.example.com", "a.b.example.com", 80, True),
        ("*.example.com", "example.com", 80, False),
        ("*.example.com", "evilexample.com", 80, False),
        ("*", "anything.test", 1, True),
        ("api.example.com:8443", "api.example.com", 8443, True),
        ("api.example.com:8443", "api.example.com", 443, False),
        ("*:443", "x.test", 443, True),
        ("*:443", "x.test", 80, False),
        ("1.2.3.4", "1.2.3.4", 80, True),
        ("2001:4860::1", "2001:4860::1", 80, True),
        ("[2001:4860:0::1]:80", "2001:4860::1", 80, True),
        ("bücher.example", "xn--bcher-kva.example", 443, True),
    ],
)
def test_patterns(pattern: str, host: str, port: int, matches: bool) -> None:
    assert HostPattern.parse(pattern).matches(host, port) == matches


@pytest.mark.parametrize(
    ("granted", "wanted", "both"),
    [
        (["*"], ["api.example.com"], ["api.example.com"]),
        (["*"], ["*"], ["*"]),
        (["example.com"], ["Example.COM."], ["example.com"]),
        (["example.com"], ["api.example.com"], []),
        (["*.example.com"], ["api.example.com"], ["api.example.com"]),
        (["*.example.com"], ["*.api.example.com"], ["*.api.example.com"]),
        (["*.example.com"], ["example.com", "badexample.com"], []),
        (["api.example.com"], ["*.example.com"], ["api.example.com"]),
        (["api.example.com", "b.test"], ["*"], ["api.example.com", "b.test"]),
        (["*.example.com:443"], ["api.example.com"], ["api.example.com:443"]),
        (["api.example.com:443"], ["api.example.com:80"], []),
        (["[2001:4860::1]:80"], ["*"], ["[2001:4860::1]:80"]),
        ([], ["*"], []),
        (["*"], [], []),
    ],
)
def test_narrowing_leaves_what_both_match(
    granted: list[str], wanted: list[str], both: list[str]
) -> None:
    assert list(narrow(granted, wanted)) == both


PATTERNS = st.sampled_from(
    ["*", "*:443", "*.a.test", "*.b.a.test", "*.a.test:80", "a.test", "b.a.test", "c.b.a.test:80"]
)


@given(
    PATTERNS,
    PATTERNS,
    st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "x.test"]),
    st.sampled_from([80, 443]),
)
def test_narrowing_agrees_with_matching(one: str, other: str, host: str, port: int) -> None:
    def matches(pattern: str) -> bool:
        return HostPattern.parse(pattern).matches(host, port)

    assert any(map(matches, narrow([one], [other]))) == (matches(one) and matches(other))
    if HostPattern.parse(one).includes(HostPattern.parse(other)):
        assert matches(one) or not matches(other)


@pytest.mark.parametrize(
    "pattern",
    ["", "a..b", "*.*.com", "a*.com", "*com", "x:0", "x:70000", "x:y", "http://x", "a@b", "x/y",
     "-a.com", "a b", "[::1", "x" * 64 + ".com", "fe80::1%eth0"],
)  # fmt: skip
def test_what_is_no_host_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidError):
        HostPattern.parse(pattern)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16",
        "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.192", "198.18.0.1",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "100::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_never_more_than_the_standard_library_calls_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not (address.is_private or address.is_multicast or address.is_loopback)


LOOPBACK = ipaddress.ip_address("127.0.0.1")


def test_private_addresses_need_the_operator_and_a_name() -> None:
    closed = EgressPolicy(["localhost"], [])
    assert closed.is_granted("localhost", 80)
    assert not closed.may_connect("localhost", 80, LOOPBACK)
    opened = EgressPolicy(["localhost", "*"], ["127.0.0.0/8", "fd00::/8"])
    assert opened.may_connect("localhost", 80, LOOPBACK)
    assert not opened.may_connect("other.test", 80, LOOPBACK)
    assert not opened.may_connect("localhost", 80, ipaddress.ip_address("10.0.0.1"))
    assert opened.may_connect("other.test", 80, ipaddress.ip_address("1.1.1.1"))


def test_a_bad_network_is_told_with_its_setting() -> None:
    with pytest.raises(InvalidError, match="SWARM_ALLOWED_PRIVATE_NETWORKS"):
        EgressPolicy([], ["10.0.0.0/99"])


@given(st.text(max_size=80))
def test_hosts_are_normalised_once_and_for_all(text: str) -> None:
    try:
        once = normalise_host(text)
    except InvalidError:
        return
    assert normalise_host(once) == once
    assert once == once.lower()


@given(st.text(alphabet="abc.:[]*@/%0123456789 \u00fc", max_size=40))
def test_authorities_never_crash(text: str) -> None:
    try:
        host, port = split_authority(text, 80)
    except InvalidError:
        return
    assert port is not None
    assert 0 < port < 65_536
    assert not set(host) & set("@/[]% ")
