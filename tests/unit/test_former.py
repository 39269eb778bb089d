"""The owner of an element or a label: one's own attachment, another's, or a dead one's."""

from __future__ import annotations

from typing import Any

import pytest

from shared.cni.ip import Address
from shared.net import liveness
from shared.net.owner import Owner
from shared.nft import former, labels
from shared.nft.registry import INET

OWNER = Owner("net", "c1", "eth0")
POD = Address.parse("10.1.0.5")
LONG = "n" * 40


@pytest.mark.parametrize(("holder", "is_anothers"), [
    ("", False), ("net/c1/eth0", False), ("net/c2/eth0", True), ("net/c1/eth1", True), ("net2/c1/eth0", True),
    ("somebody", True),
])  # fmt: skip
def test_elements_of_others(monkeypatch: pytest.MonkeyPatch, holder: str, is_anothers: bool) -> None:
    """An absent element, and one's own, are not evicted."""
    kernel: Any = None
    monkeypatch.setattr(former, "holders", lambda _kernel, elements: [holder] * len(elements))
    found = former.others(kernel, INET, ["masq", "admitted"], [POD], OWNER)
    assert [(str(element), label) for element, label in found] == (
        [(f"{name}4 {POD}", holder) for name in ("masq", "admitted")] if is_anothers else []
    )


@pytest.mark.parametrize(("label", "links", "expected"), [
    ("net/c1/eth0", [], True), ("net/c1/eth0", [OWNER.host_link], False), ("net/c1/eth0", ["eth0"], True),
    ("net/c1", [], False), ("shared", [], False), ("", [], False), ("a/b/c/d", [], False),
    (labels.of(Owner(LONG, "c1", "eth0")), [], False), (labels.of(Owner("net", "c" * 90, "eth0")), [], False),
])  # fmt: skip
def test_labels_of_the_dead(monkeypatch: pytest.MonkeyPatch, label: str, links: list[str], expected: bool) -> None:
    """A cut label, or none, does not tell the link's name."""
    monkeypatch.setattr(liveness, "is_link", lambda name: name in links)
    assert former.has_lost_link(label) == expected


@pytest.mark.parametrize(("label", "expected"), [
    ("other/c1/eth0", True), ("net/c1/eth0", False), ("other/c2/eth0", False), ("other/c1/eth1", False),
    ("other/c1/eth0/x", False), ("shared", False),
])  # fmt: skip
def test_namesakes(label: str, expected: bool) -> None:
    """A namesake is the same container and interface in another network, and nothing else."""

    class Kernel:
        def dump_elements(self, _of: object) -> list[dict[str, bytes]]:
            text = f"{label} masquerade 1: masq4 10.1.0.5".encode()
            return [{"NFTA_SET_ELEM_USERDATA": bytes([0, len(text) + 1]) + text + b"\0"}]

    kernel: Any = Kernel()
    assert former.namesakes(kernel, INET, OWNER) == ({label} if expected else set())
