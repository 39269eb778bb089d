"""Link names and aliases of attachments: all are recognised, and none that only looks like one."""

from __future__ import annotations

import pytest

from shared.net import owner
from shared.net.owner import Owner
from shared.net.reference_names import LONGEST_NAME, shortened

OURS = Owner("net", "c1", "eth0")
LINK = OURS.host_link


def test_names_that_derive() -> None:
    assert owner.is_host_link(LINK, "net") and owner.is_pod_link(LINK, "")
    assert owner.is_ifb(OURS.ifb, "net")
    assert owner.parse_alias(OURS.alias) == ("net", "c1", "eth0")
    assert owner.is_pod_link("renamed", OURS.alias)


@pytest.mark.parametrize(
    "name", [LINK[:-1], LINK + "0", LINK[:-1] + "g", LINK[:-1] + "A", "x" + LINK[1:], LINK[:7], "veth", ""]
)
def test_names_that_only_look_alike(name: str) -> None:
    """A digit too few or too many, a letter that is no digit, or another beginning."""
    assert not owner.is_host_link(name, "net")
    assert not owner.is_pod_link(name, "")


@pytest.mark.parametrize("name", [OURS.ifb[:-1], OURS.ifb + "0", OURS.ifb.replace("-", ""), OURS.ifb[:-1] + "g"])
def test_names_that_only_look_like_an_ifbs(name: str) -> None:
    assert not owner.is_ifb(name, "net")


def test_another_network_has_other_names() -> None:
    other = next(name for name in map(str, range(99)) if owner.network_prefix(name) != owner.network_prefix("net"))
    assert not owner.is_host_link(LINK, other) and not owner.is_ifb(OURS.ifb, other)


@pytest.mark.parametrize("alias", ["", "pycni:", "net/c1/eth0", "pycni:net/c1", "pycni:net/c1/eth0/x", "cni:net/c1/eth0", "uplink to net/c1/eth0"])  # fmt: skip
def test_aliases_that_name_no_attachment(alias: str) -> None:
    assert owner.parse_alias(alias) is None


@pytest.mark.parametrize("length", [99, 100, 101, 255, 4000])
def test_names_in_comments(length: int) -> None:
    """A long name is cut, and differs for each name that begins alike."""
    name = "n" * length
    short = shortened(name)
    assert (short == name) == (length <= LONGEST_NAME) and len(short) <= LONGEST_NAME
    assert name.startswith(short[:80])
    assert len({shortened(name + ending) for ending in ("", "a", "b")}) == 3
