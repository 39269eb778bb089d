"""Names of Kubernetes objects: valid, reversible, and no two alike."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cluster.kube_names import LONGEST, block_name, block_of, network_name, network_of
from shared.cluster.model import Cidr

SUBDOMAIN = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)  # as the API server checks it
# Few different characters make names that look alike. The suite's own rule is narrower.
networks = st.one_of(
    st.text("ab2dx-.", min_size=1, max_size=12),
    st.text("aA0_-.", min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
cidrs: st.SearchStrategy[Cidr] = st.one_of(
    st.builds(lambda ip, n: ipaddress.ip_network((ip, n), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda ip, n: ipaddress.ip_network((ip, n), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
)


@given(networks, cidrs)
def test_a_name_is_valid_and_reversible(network: str, cidr: Cidr) -> None:
    for name in (network_name(network), block_name(network, cidr)):
        assert SUBDOMAIN.fullmatch(name) and len(name) <= LONGEST
    assert network_of(network_name(network)) == network
    assert block_of(block_name(network, cidr)) == (network, cidr)


@given(st.text("ab0124dx-.", min_size=1, max_size=20))
def test_a_name_that_is_read_is_the_only_one(name: str) -> None:
    """No two names are read as the same network or block."""
    try:
        network = network_of(name)
    except (ValueError, UnicodeDecodeError):
        return
    assert network_name(network) == name


@pytest.mark.parametrize(
    ("network", "cidr", "name"),
    [
        ("pods", "10.244.3.0/24", "pods.10-244-3-0-24"),
        ("pods", "fd00:10::/64", "pods.fd00-10-0-0-0-0-0-0-64"),
        ("pods", "::ffff:10.0.0.0/104", "pods.0-0-0-0-0-ffff-a00-0-104"),
        ("pods", "::/0", "pods.0-0-0-0-0-0-0-0-0"),
        ("my.net-1", "10.0.0.0/8", "my.net-1.10-0-0-0-8"),
        ("Pod_Net", "10.0.0.0/8", "x---50od--5f--4eet.10-0-0-0-8"),
        ("a--b.", "10.0.0.0/8", "a--2d--2db--2e.10-0-0-0-8"),
    ],
)
def test_names_are_these_for_ever(network: str, cidr: str, name: str) -> None:
    """Two releases that name a block differently give it to two nodes."""
    assert block_name(network, ipaddress.ip_network(cidr)) == name


@pytest.mark.parametrize(
    "name",
    [
        "pods",
        "pods.10-244-3-0",
        "pods.10-244-03-0-24",
        "pods.10-244-3-0-024",
        "pods.10-244-3-1-24",
        "pods.fd00-0010-0-0-0-0-0-0-64",
        "pods.FD00-10-0-0-0-0-0-0-64",
        "pods.1-2-3-4-5-6-7-64",
        "10-0-0-0-8",
        ".10-0-0-0-8",
        "a--61.10-0-0-0-8",
        "--50.10-0-0-0-8",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|CIDR|octet|Octet|Leading|host bits|prefix|netmask|network|group"):
        block_of(name)


def test_a_long_network_is_refused() -> None:
    assert len(network_name("a" * LONGEST)) == LONGEST
    with pytest.raises(ValueError, match="254 characters"):
        network_name("a" * (LONGEST + 1))
    with pytest.raises(ValueError, match="longer than 253"):
        block_name("a" * 250, ipaddress.ip_network("10.0.0.0/8"))
