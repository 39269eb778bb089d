"""The record of a lent device identifies it among the links that a host has by then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.net import lent
from shared.net.lent import Record

PLACE = "pci0000:00/0000:00:05.0"
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
OWN = (bytes.fromhex("020000000001"), bytes.fromhex("020000000002"))


class Host:
    """A host's network cards: sysfs as files, and links as the kernel shows them."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        self.links: list[dict[str, Any]] = []

    def plug(
        self, name: str, index: int, *, mac: str, port: str = "0", place: str = PLACE, **more: Any
    ) -> dict[str, Any]:
        """Add a port of a card, and return its link."""
        held = self.sysfs / "devices" / place / "net" / name
        held.mkdir(parents=True)
        (held / "dev_port").write_text(f"{port}\n")
        (self.sysfs / "class" / name).symlink_to(f"../devices/{place}/net/{name}")
        link = {"index": index, "flags": 0, "IFLA_IFNAME": name, "IFLA_ADDRESS": mac, **more}
        self.links.append(link)
        return link

    def unplug(self, link: dict[str, Any]) -> None:
        (self.sysfs / "class" / link["IFLA_IFNAME"]).unlink()
        self.links.remove(link)

    def find(self, kept: Record) -> str:
        """Return the name of the link that the host takes for the lent device, "" for none."""

        class Socket:
            def scan(self, _kind: int, _message: None, look: Any) -> Any:
                return look(shown())

        def shown() -> Iterator[dict[str, Any]]:
            yield from self.links

        found = kept.find(Socket())  # type: ignore[arg-type]
        return str(found["IFLA_IFNAME"]) if found else ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "class").mkdir()
    monkeypatch.setattr(lent, "CLASS", str(tmp_path / "class"))
    return Host(tmp_path)


def lend(host: Host, link: dict[str, Any]) -> Record:
    """Return the record of a link that leaves the host."""
    kept = lent.describe(link)
    host.unplug(link)
    return Record("/nowhere", kept)


PORTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "numbers": ({"port": "0"}, {"port": "1"}),
    "names": ({"IFLA_PHYS_PORT_NAME": "p0"}, {"IFLA_PHYS_PORT_NAME": "p1"}),
    "MACs": ({"IFLA_PERM_ADDRESS": OWN[0]}, {"IFLA_PERM_ADDRESS": OWN[1]}),
    "nothing": ({}, {}),
    "a number, one MAC": ({"port": "1", "IFLA_PERM_ADDRESS": OWN[0]}, {"port": "2", "IFLA_PERM_ADDRESS": OWN[0]}),
}


@pytest.mark.parametrize("told_by", PORTS)
def test_another_port_of_the_card_is_not_the_device(host: Host, told_by: str) -> None:
    """The other port stays as it is, also if the pod's port comes home with nothing of its own."""
    own, other = PORTS[told_by]
    first = host.plug("p1", 3, mac=MACS[0], **own)
    host.plug("p2", 4, mac=MACS[1], **other)
    kept = lend(host, first)
    assert host.find(kept) == ""
    host.plug("dev9", 9, mac="02:00:00:00:00:42", **own)
    assert host.find(kept) == ("" if told_by in ("numbers", "nothing") else "dev9")
    host.unplug(host.links[-1])
    host.plug("dev3", 3, mac=MACS[0], **own)  # as the kernel brings it
    assert host.find(kept) == "dev3"


@pytest.mark.parametrize(("own", "found"), [({"IFLA_PERM_ADDRESS": OWN[0]}, "dev9"), ({}, "")])
def test_a_card_that_the_pod_has_changed(host: Host, own: dict[str, Any], found: str) -> None:
    """Index, MAC and alias are other ones: its permanent MAC tells it, if it has one."""
    kept = lend(host, host.plug("eth0", 3, mac=MACS[0], **own))
    host.plug("eth1", 5, mac=MACS[1], place="pci0000:00/0000:00:06.0", **own)
    host.plug("dev9", 9, mac="02:00:00:00:00:42", IFLA_IFALIAS="mine", **own)
    assert host.find(kept) == found


def test_a_virtual_link_is_no_card(host: Host) -> None:
    kept = lend(host, host.plug("eth0", 3, mac=MACS[0], IFLA_PERM_ADDRESS=OWN[0]))
    host.links.append({"index": 3, "flags": 0, "IFLA_IFNAME": "vlan0", "IFLA_ADDRESS": MACS[0],
                       "IFLA_LINKINFO": {"IFLA_INFO_KIND": "vlan"}})  # fmt: skip
    assert host.find(kept) == ""
