"""Rows 9, 14: many calls at the same moment get each address exactly once, and make a bridge exactly once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults import batch, fake_ipam
from tests.faults.batch import Call, Outcome
from tests.pretend import PretendHost

NETWORK = "net"
STORE = f"/var/lib/cni/networks/{NETWORK}"
MANY = 32
ROUNDS = 8
FIRST = 16


def _config(subnet: str) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": NETWORK, "type": "bridge", "ipam": {"type": "host-local", "subnet": subnet}}


def _calls(verb: str, subnet: str, first: int, number: int) -> list[Call]:
    return [
        Call("host-local", verb, _config(subnet), {"CNI_CONTAINERID": f"c{n}"}) for n in range(first, first + number)
    ]


def _leases(host: PretendHost) -> dict[str, str]:
    files = host.snapshot()["files"]
    return {name.removeprefix(f"{STORE}/"): text for name, text in files.items() if name.startswith(f"{STORE}/10.")}


def _addresses(answers: list[Outcome]) -> list[str]:
    return [answer.json["ips"][0]["address"].partition("/")[0] for answer in answers if answer.status == 0]


@contextmanager
def _lock_removed_all_the_time(host: PretendHost) -> Iterator[None]:
    """Remove the lock file every few milliseconds while calls hold it or wait for it."""
    lock = host.root / STORE.lstrip("/") / "lock"
    done = threading.Event()

    def remove() -> None:
        while not done.wait(0.003):
            lock.unlink(missing_ok=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _undisturbed(_host: PretendHost) -> Iterator[None]:
    yield


disturbances = pytest.mark.parametrize(
    "disturbance", [_undisturbed, _lock_removed_all_the_time], ids=["", "lock removed"]
)


@disturbances
@pytest.mark.row(9)
def test_no_address_is_given_out_twice(host: PretendHost, disturbance: Any) -> None:
    with disturbance(host):
        answers = batch.run(host, _calls("ADD", "10.7.0.0/24", 0, MANY), at_once=MANY)
    assert [answer.status for answer in answers] == [0] * MANY, [answer for answer in answers if answer.status]
    given = _addresses(answers)
    assert len(set(given)) == MANY
    assert _leases(host) == {address: f"c{number}\r\neth0" for number, address in enumerate(given)}
    with disturbance(host):
        answers = batch.run(host, _calls("DEL", "10.7.0.0/24", 0, MANY), at_once=MANY)
    assert [answer.status for answer in answers] == [0] * MANY, [answer for answer in answers if answer.status]
    assert _leases(host) == {}


@disturbances
@pytest.mark.row(9)
def test_a_range_is_used_up_exactly(host: PretendHost, disturbance: Any) -> None:
    """A /28 has 13 addresses for pods; 10 are leased, so 3 of 32 calls get one."""
    before = batch.run(host, _calls("ADD", "10.7.0.0/28", 100, 10))
    assert [answer.status for answer in before] == [0] * 10
    with disturbance(host):
        answers = batch.run(host, _calls("ADD", "10.7.0.0/28", 0, MANY), at_once=MANY)
    assert Counter(answer.code for answer in answers) == {None: 3, 11: MANY - 3}, answers
    assert len(_leases(host)) == 13
    assert set(_addresses(before)) | set(_addresses(answers)) == {f"10.7.0.{n}" for n in range(2, 15)}
    for answer in answers:
        if answer.status:
            said = f"{answer.json['msg']} {answer.json.get('details')}"
            assert "10.7.0.1-10.7.0.14" in said and "13" in said, said


@pytest.mark.row(9)
def test_adds_and_dels_at_the_same_time(host: PretendHost) -> None:
    """Half as many addresses as calls: each call gets one or code 11, and at the end all are free."""
    calls = []
    for number in range(60):
        calls += _calls("ADD", "10.7.0.0/28", number, 1) + (
            _calls("DEL", "10.7.0.0/28", number - 4, 1) if number >= 4 else []
        )
    answers = batch.run(host, calls, at_once=8)
    adds = [answer for call, answer in zip(calls, answers, strict=True) if call.command == "ADD"]
    assert {answer.code for answer in adds} <= {None, 11}
    # at most 4 + 8 are up at once, and 13 addresses are there
    assert sum(answer.status == 0 for answer in adds) > 50, Counter(answer.code for answer in adds)
    assert {answer.status for call, answer in zip(calls, answers, strict=True) if call.command == "DEL"} == {0}
    held = _leases(host)
    assert len(set(held.values())) == len(held)
    batch.run(host, _calls("DEL", "10.7.0.0/28", 0, 60), at_once=8)
    assert _leases(host) == {}
    index = host.root / "var/lib/cni/networks/.pycni" / NETWORK
    assert [path.name for path in index.iterdir()] == ["boot"]


def _bridge_config() -> dict[str, Any]:
    subnets = [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]
    return {**_config(""), "bridge": "br0", "isDefaultGateway": True, "ipam": {"type": "host-local", "ranges": subnets}}


def _bridge_calls(verb: str, config: dict[str, Any], number: int, **env: str) -> list[Call]:
    return [
        Call("bridge", verb, config, {"CNI_CONTAINERID": f"c{n}", "CNI_NETNS": f"/run/netns/pod{n}", **env})
        for n in range(number)
    ]


BACKENDS: dict[str, dict[str, Any]] = {
    "no rules": {},
    "nftables": {"ipMasq": True, "macspoofchk": True},
    "iptables": {"ipMasq": True, "ipMasqBackend": "iptables"},
}


@pytest.mark.row(14)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rounds", [1, pytest.param(ROUNDS, marks=pytest.mark.faults)])
def test_first_pods_of_a_node(host: PretendHost, backend: str, rounds: int) -> None:
    """Row 14: 16 first ADDs make one bridge with one gateway address, and each result has the MAC that it keeps."""
    batch.make_pods(host, FIRST)
    config = _bridge_config() | BACKENDS[backend]
    complaints = []
    for turn in range(rounds):
        adds = batch.run(host, _bridge_calls("ADD", config, FIRST), at_once=FIRST)
        complaints += [f"round {turn}: {answer}" for answer in adds if answer.status]
        [bridge] = host.ip("address", "show", "dev", "br0")
        given = sorted(
            f"{address['local']}/{address['prefixlen']}"
            for address in bridge["addr_info"]
            if address["scope"] == "global"
        )
        if given != ["10.7.0.1/24", "fd00:7::1/64"]:
            complaints.append(f"round {turn}: the bridge has {given}")
        told = {answer.json["interfaces"][0]["mac"] for answer in adds if answer.status == 0}
        if told != {bridge["address"]}:
            complaints.append(f"round {turn}: the bridge has MAC {bridge['address']}, results say {told}")
        if len({ip["address"] for answer in adds if answer.status == 0 for ip in answer.json["ips"]}) != 2 * FIRST:
            complaints.append(f"round {turn}: an address twice")
        dels = batch.run(host, _bridge_calls("DEL", config, FIRST), at_once=FIRST)
        complaints += [f"round {turn}: {answer}" for answer in dels if answer.status]
        left = host.run("sh", "-c", "nft list ruleset | grep -E 'net/c|CNI-[0-9a-f]{8}' || :").stdout
        complaints += [f"round {turn}: left {left}"] if left else []
        host.run("sh", "-ec", "ip link del br0; nft flush ruleset")
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:40])
    assert set(host.snapshot()["host"]["links"]) == {"lo"}


@pytest.mark.row(11, 14)
def test_first_pods_that_all_fail(host: PretendHost, tmp_path: Path) -> None:
    """A failed ADD deletes the bridge that it made, but not while another call needs it.

    That other call comes to its IPAM, too.
    """
    batch.make_pods(host, 3)
    path = fake_ipam.write(host, tmp_path, "fails", "exit 1\n")
    calls = [
        Call(
            "bridge", "ADD", {**_bridge_config(), "bridge": f"br{number // 3}", "ipam": {"type": "fails"}},
            {"CNI_CONTAINERID": f"c{number}", "CNI_PATH": path},
        )
        for number in range(240)
    ]  # fmt: skip
    answers = batch.run(host, calls, at_once=3)
    complaints = [
        f"call {number}: {answer}"
        for number, answer in enumerate(answers)
        if "IPAM" not in answer.stdout and "plugin" not in answer.stdout
    ]
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:40])
    assert {answer.status for answer in answers} == {1}
    assert set(host.snapshot()["host"]["links"]) == {"lo"}
