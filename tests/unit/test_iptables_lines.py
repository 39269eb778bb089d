"""Comparing thousands of rules with thousands of lines: the cost grows with the lines, not with the pairs."""

# ruff: noqa: SLF001  (the commands are made inside)

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from shared.cni.ip import Prefix
from shared.hostports import iptables as hostports
from shared.hostports.iptables_rules import Forwarding, interface_words
from shared.hostports.mappings import HostPort
from shared.iptables import programs
from shared.masquerade import iptables as masquerade
from shared.net.owner import Owner

OWNER = Owner("net", "c1", "eth0")
POD = Prefix.parse("10.1.0.5/24")


class Line(str):
    """A line of iptables-save that counts its comparisons."""

    __slots__ = ()
    __hash__ = str.__hash__
    compared = 0

    def __eq__(self, other: object) -> bool:
        Line.compared += 1
        return str.__eq__(self, other)


def forwarding(count: int, host: str = "") -> Forwarding:
    ports = [HostPort(host, "tcp", 10_000 + number, POD.address, 80) for number in range(count)]
    return Forwarding(OWNER, ports, {4: POD}, {}, snat=True, masq_all=False, localnet=False)


def exempt(count: int) -> list[Prefix]:
    return [Prefix.parse(f"172.{16 + (number >> 8)}.{number & 255}.0/24") for number in range(count)]


def of_host_ports(count: int, host: str = "") -> tuple[list[str], Callable[[], list[str]]]:
    """Return the lines of so many host ports, and CHECK of them."""
    one = forwarding(count, host)
    lines = [*one.shared(), *(line for is_at in (True, False) for line in one.entries(4, is_at=is_at))]
    lines += [line for is_at in (True, False) for line in one.inside(4, is_at=is_at)]
    return lines, lambda: hostports.problems(one)


def of_networks(count: int) -> tuple[list[str], Callable[[], list[str]]]:
    """Return the lines of so many networks, and CHECK of them."""
    networks = exempt(count)
    return masquerade._rules(OWNER, 4, [POD], networks), lambda: masquerade.problems(OWNER, [POD], networks)


def of_a_repeated_add(count: int) -> tuple[list[str], Callable[[], list[str]]]:
    """Return the same lines, and an ADD that finds them."""
    wanted = masquerade._rules(OWNER, 4, [POD], exempt(count))
    return wanted, lambda: masquerade._completion_commands(
        [Line(line) for line in wanted], OWNER, wanted, [POD.address]
    )


@pytest.mark.row(28)
@pytest.mark.parametrize("of", [of_host_ports, of_networks, of_a_repeated_add])
def test_lines_are_looked_up(monkeypatch: pytest.MonkeyPatch, of: Callable[[int], Any]) -> None:
    found = []
    for count in (500, 1_000):
        lines, look = of(count)
        there = [Line(line) for line in lines]
        monkeypatch.setattr(programs.Tables, "__init__", lambda *_: None)
        monkeypatch.setattr(programs.Tables, "lines", lambda _, there=there: {"nat": there})
        Line.compared = 0
        assert look() == []
        found.append(Line.compared)
    assert found[1] <= 2.2 * found[0] + 10, found


@pytest.mark.row(28)
def test_rules_for_one_address_are_put_in_front_without_counting() -> None:
    """Each rule is inserted at the front, the last first: iptables would walk to a numbered place."""
    one = forwarding(40, "192.0.2.1")
    commands = hostports._plan_rules(4, {"nat": []}, one)["nat"]
    inserted = [command for command in commands if command.startswith("-I CNI-")]
    assert len(inserted) == 3 * 40 + 3 and not [line for line in inserted if re.match(r"-I \S+ \d", line)]
    first = [line for line in reversed(inserted) if f"-I {one.chain} " in line]
    assert [f"-A{line.removeprefix('-I')}" for line in first] == one.inside(4, is_at=True)


def test_a_chain_to_which_another_address_leads_stays() -> None:
    """If a new pod gets an address, the former pod's rules go, and its chain with the last of them."""
    own = masquerade.chain_of("net", "c1")
    to = f'-m comment --comment "x" -j {own}'
    others = "CNI-" + "a" * 24
    lines = [
        f":{own} - [0:0]", f":{others} - [0:0]", f"-A POSTROUTING -s 10.1.0.5/32 {to}", f"-A POSTROUTING -s 10.1.0.6/32 {to}",
        f"-A POSTROUTING -s 10.1.0.50/32 -j {others}", "-A POSTROUTING -s 10.1.0.5/32 -j KUBE-POSTROUTING",
    ]  # fmt: skip
    assert masquerade._eviction_commands(lines, [POD.address]) == [f"-D POSTROUTING -s 10.1.0.5/32 {to}"]
    del lines[3]
    assert masquerade._eviction_commands(lines, [POD.address]) == [
        f"-D POSTROUTING -s 10.1.0.5/32 {to}", f"-F {own}", f"-X {own}",
    ]  # fmt: skip


@pytest.mark.parametrize("refusals", [0, 1, programs.TRIES - 1])
def test_a_table_is_read_anew_after_a_refusal(monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    """Another program may have changed the table since it was read."""
    tried: list[object] = []

    def commit(_tables: object, wanted: object) -> None:
        tried.append(wanted)
        if len(tried) <= refusals:
            raise programs.Refused("no")

    monkeypatch.setattr(programs.Tables, "__init__", lambda *_: None)
    monkeypatch.setattr(programs.Tables, "lines", lambda _: {"nat": ["now"]})
    monkeypatch.setattr(programs.Tables, "_commit", commit)
    tables = programs.Tables(4, "", "nat")
    tables.change(lambda lines: lines, {"nat": ["before"]})
    assert tried == [{"nat": ["before"]}] + [{"nat": ["now"]}] * refusals


@pytest.mark.parametrize("ifname", ['e"th', "e'th", "e\\", "-j", "e;th", "!", 'x" -j ACCEPT'])
def test_an_interfaces_name_adds_no_words_to_a_rule(ifname: str) -> None:
    """A name that iptables would not accept as it is has a digest, another for each name."""
    assert re.fullmatch(r'if: \\"[0-9a-f]{12}\\"', interface_words(ifname))
    assert interface_words(ifname) != interface_words(ifname + "x")


def test_an_interfaces_plain_name() -> None:
    assert interface_words("eth0") == 'if: \\"eth0\\"'
