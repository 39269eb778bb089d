"""shared/nft by effect: the kernel shows its rules as it shows nft's; the registry on a real rule set."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pretend import PretendHost
from tests.system import nft_rules

OWN = ("handle", "table", "comment")  # keys that must differ


@pytest.fixture
def plain() -> Any:
    with PretendHost() as host:
        yield host


def listed(host: PretendHost, table: str) -> dict[str, list[Any]]:
    """Return the objects of a table in `nft --json`, by kind; rules as their expressions, in order."""
    found: dict[str, list[Any]] = {}
    for entry in json.loads(host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]:
        for kind, thing in entry.items():
            if thing.get("table") == table:
                found.setdefault(kind, []).append({key: value for key, value in thing.items() if key not in OWN})
    return found


def test_rules_and_sets_are_what_nft_makes_of_them(plain: PretendHost) -> None:
    """nft shows each rule, of each prefix length, and each set with its elements the same way."""
    plain.run("nft", "-f", "-", input=nft_rules.in_nfts_words())
    plain.python("from tests.system.nft_rules import main; main()")
    ours, theirs = listed(plain, "ours"), listed(plain, "theirs")
    assert sum(map(len, nft_rules.RULES.values())) == len(ours["rule"]) > 340
    words = [rule for rules in nft_rules.RULES.values() for rule, _ in rules]
    order = [
        (table.family == 7, place) for place, ((table, _), rules) in enumerate(nft_rules.RULES.items()) for _ in rules
    ]
    assert order == sorted(order)  # as nft shows them
    wrong = [
        f"{text}: {rule['expr']} is not {wanted['expr']}"
        for text, rule, wanted in zip(words, ours["rule"], theirs["rule"], strict=True)
        if rule != wanted
    ]
    assert not wrong, "\n".join(wrong)
    for kind in ("chain", "set", "map"):
        assert sorted(ours[kind], key=str) == sorted(theirs[kind], key=str)


# -- the registry, with a rule set as a mechanism has it

MECHANISM = """
import os, sys
from shared.cni.ip import Prefix
from shared.net.owner import Owner
from shared.nft import registry, wire
from shared.nft.expressions import *
from shared.nft.ruleset import *
from shared.nft.transaction import Nfnetlink

T = Table(wire.NFPROTO_INET, "pycni")
PODS = Set(T, "pods", (IPV4_ADDR,), (VERDICT,))
PORTS = Set(T, "ports", (INET_PROTO, INET_SERVICE), (IPV4_ADDR, INET_SERVICE))
POST = Chain(T, "post", (Rule("pods", family(4), payload("ip saddr"), lookup(PODS)),), ("nat", wire.NF_INET_POST_ROUTING, 100))
PRE = Chain(T, "pre", (
    Rule("ports", family(4), is_local(), meta("l4proto"), payload("th dport", 1), lookup(PORTS), dnat(4, 0, 1)),
    Rule("none", address("daddr", Prefix.parse("192.0.2.0/24")), drop()),
), ("nat", wire.NF_INET_PRE_ROUTING, -100))
R = registry.Ruleset(T, "test", (PODS, PORTS), (POST, PRE), ("masq",))
kernel = Nfnetlink()

def chain(subnet="10.1.0.0/16"):
    return addressed(T, "masq", (Rule("subnet", address("daddr", Prefix.parse(subnet)), return_()), Rule("rest", masquerade())))

def elements(*addresses, ports=()):
    return [*(PODS.element(one, to=verdict("goto", chain().name)) for one in addresses),
            *(PORTS.element("tcp", str(port), to=(addresses[0], "80")) for port in ports)]

def owner(name, network="net", ifname="eth0"):
    return Owner(network, name, ifname)

def add(name, *addresses, ports=(), network="net", **how):
    registry.add(kernel, R, owner(name, network), elements(*addresses, ports=ports), chains=[chain()], **how)

def problems(name, *addresses, ports=()):
    return registry.problems(kernel, R, owner(name), elements(*addresses, ports=ports), [chain()])

def remove(name):
    registry.remove(kernel, R, owner(name))
"""
EMPTY: dict[str, list[str]] = {"attachments": [], "pods": [], "ports": []}


def mechanism(host: PretendHost, script: str) -> str:
    return host.python(MECHANISM + script)


def held(host: PretendHost) -> dict[str, list[str]]:
    """Return the comments of the elements of each set and map, sorted."""
    tables = listed(host, "pycni")
    return {
        one["name"]: sorted(element["elem"]["comment"] if "elem" in element else element[0]["elem"]["comment"] for element in one.get("elem", []))
        for one in (*tables.get("set", []), *tables.get("map", []))
    }  # fmt: skip


def text(host: PretendHost) -> str:
    return host.run("nft", "list", "ruleset").stdout


def test_an_attachments_life(plain: PretendHost) -> None:
    said = mechanism(plain, """
add("c1", "10.1.0.5", "10.1.0.6", ports=(80, 81))
print(problems("c1", "10.1.0.5", "10.1.0.6", ports=(80, 81)))
""")  # fmt: skip
    assert said == "[]\n"
    assert held(plain) == {
        "attachments": ["net/c1/eth0 test 1: pods 10.1.0.5, pods 10.1.0.6, ports tcp 80, ports tcp 81"],
        "pods": ["net/c1/eth0"] * 2, "ports": ["net/c1/eth0"] * 2,
    }  # fmt: skip
    assert len(listed(plain, "pycni")["rule"]) == 5
    mechanism(plain, "remove('c1'); remove('c1'); remove('c9')")
    assert held(plain) == EMPTY


def test_what_never_was(plain: PretendHost) -> None:
    """Asking and removing create nothing."""
    said = mechanism(plain, """
remove("c1")
registry.collect(kernel, R, "net", set())
registry.try_out(kernel, R, [chain()])
print("\\n".join(problems("c1", "10.1.0.5")))
""").splitlines()  # fmt: skip
    assert text(plain) == ""
    assert [line.partition(" is")[0] for line in said] == [
        "chain post of table inet pycni", "chain pre of table inet pycni", said[2].partition(" is")[0],
        "10.1.0.5 in map pods of table inet pycni", "net/c1/eth0",
    ]  # fmt: skip
    assert said[2].startswith("chain masq-")


def test_trying_out_changes_nothing(plain: PretendHost) -> None:
    mechanism(plain, "add('c1', '10.1.0.5')")
    before = text(plain)
    mechanism(plain, "registry.try_out(kernel, R, [chain(), chain('10.2.0.0/16')])")
    assert text(plain) == before


def test_a_second_time_is_an_error(plain: PretendHost) -> None:
    mechanism(plain, "add('c1', '10.1.0.5')")
    before = text(plain)
    said = mechanism(plain, """
for addresses in (["10.1.0.5"], ["10.1.0.6"]):
    try:
        add("c1", *addresses, replace=True)
    except registry.InternalError as error:
        print(error)
""")  # fmt: skip
    assert said.count("net/c1/eth0 is in set attachments of table inet pycni already") == 2
    assert text(plain) == before


def test_a_conflict(plain: PretendHost) -> None:
    """The error names the holder, and nothing changes; with `replace` the new owner keeps it after the old DEL."""
    mechanism(plain, "add('c1', '10.1.0.5', '10.1.0.7', ports=(80,))")
    before = text(plain)
    conflict = mechanism(plain, """
try:
    add("c2", "10.1.0.6", ports=(81, 80))
except registry.Conflict as error:
    print(error, error.holder, error.element, sep="|")
""")  # fmt: skip
    assert conflict.strip().split("|") == ["ports tcp 80 in table inet pycni belongs to net/c1/eth0", "net/c1/eth0", "ports tcp 80"]  # fmt: skip
    assert text(plain) == before
    said = mechanism(plain, """
add("c2", "10.1.0.5", "10.1.0.6", replace=True)
print(problems("c2", "10.1.0.5", "10.1.0.6"), problems("c1", "10.1.0.5", "10.1.0.7", ports=(80,)))
remove("c1")
print(problems("c2", "10.1.0.5", "10.1.0.6"))
""").splitlines()  # fmt: skip
    assert said == ["[] ['10.1.0.5 in map pods of table inet pycni belongs to net/c2/eth0']", "[]"]
    assert held(plain)["pods"] == ["net/c2/eth0"] * 2


def test_an_element_that_leads_elsewhere(plain: PretendHost) -> None:
    mechanism(plain, "add('c1', '10.1.0.5')")
    plain.run("nft", "delete element inet pycni pods { 10.1.0.5 }")
    plain.run("nft", 'add element inet pycni pods { 10.1.0.5 comment "net/c1/eth0" : accept }')
    assert "does not lead to its chain or value" in mechanism(plain, "print(problems('c1', '10.1.0.5'))")
    plain.run("nft", "flush set inet pycni attachments")
    mechanism(plain, "add('c1', '10.1.0.5')")  # its own, from before
    assert mechanism(plain, "print(problems('c1', '10.1.0.5'))") == "[]\n"


@pytest.mark.parametrize("damage", [
    "flush ruleset", "delete table inet pycni", "flush table inet pycni", "flush chain inet pycni post", "flush chain inet pycni pre",
    "flush chain inet pycni {chain}", "add rule inet pycni post drop", "insert rule inet pycni {chain} accept",
    "flush set inet pycni attachments", "flush map inet pycni pods", "delete rule inet pycni pre handle {handle}",
    "flush chain inet pycni pre; delete chain inet pycni pre; flush chain inet pycni post; delete map inet pycni ports",
])  # fmt: skip
def test_a_damaged_rule_set(plain: PretendHost, damage: str) -> None:
    """CHECK reports it, and the next ADD leaves the rule set of a first one."""
    mechanism(plain, "add('c2', '10.1.0.6')")
    whole = {
        kind: sorted(map(str, things)) for kind, things in listed(plain, "pycni").items() if kind in ("chain", "rule")
    }
    mechanism(plain, "add('c1', '10.1.0.5')")
    shown = json.loads(plain.run("nft", "--json", "list", "ruleset").stdout)["nftables"]
    handle = next(entry["rule"]["handle"] for entry in shown if entry.get("rule", {}).get("chain") == "pre")
    name = mechanism(plain, "print(chain().name)").strip()
    for command in damage.format(chain=name, handle=handle).split("; "):
        plain.run("nft", *command.split())
    assert mechanism(plain, "print(problems('c1', '10.1.0.5'))") != "[]\n"
    mechanism(plain, "add('c3', '10.1.0.7')")
    assert mechanism(plain, "print(problems('c3', '10.1.0.7'))") == "[]\n"
    assert whole == {kind: sorted(map(str, things)) for kind, things in listed(plain, "pycni").items() if kind in whole}
    mechanism(plain, "remove('c1'); remove('c2'); remove('c3')")
    mechanism(plain, "registry.collect(kernel, R, 'net', set())")
    assert held(plain) == EMPTY


def test_many_elements(plain: PretendHost) -> None:
    """An entry of several parts is removed even if a stranger removed some of its elements."""
    script = "addresses = [f'10.1.{n // 250}.{n % 250}' for n in range(300)]\n"
    mechanism(plain, script + "add('c1', *addresses); print(problems('c1', *addresses))")
    texts = held(plain)["attachments"]
    assert len(texts) > 20 and max(map(len, texts)) <= 128
    plain.run("nft", "delete element inet pycni pods { 10.1.0.7, 10.1.1.9 }")
    mechanism(plain, "remove('c1')")
    assert held(plain) == EMPTY


def test_long_names(plain: PretendHost) -> None:
    mechanism(plain, """
long = Owner("n" * 3000, "c" * 4000, 'e"th~')
registry.add(kernel, R, long, elements("10.1.0.5"), chains=[chain()])
assert registry.problems(kernel, R, long, elements("10.1.0.5"), [chain()]) == []
""")  # fmt: skip
    plain.run("nft", "-c", "-f", "-", input=text(plain))  # nft can read its own output
    mechanism(plain, "registry.collect(kernel, R, 'n' * 3000, {('c' * 4000, 'eth0')})")
    assert held(plain) == EMPTY


def test_collect(plain: PretendHost) -> None:
    """GC deletes this network's and this mechanism's entries, orphans included; chains in use stay, the others go."""
    mechanism(plain, """
for name, pod in (("a", "10.1.0.5"), ("b", "10.1.0.6"), ("c", "10.1.0.7")):
    add(name, pod)
add("d", "10.1.0.8", network="net2")
kernel.commit(chain("10.9.0.0/16").create_requests())
other = registry.Ruleset(T, "other", (PODS, PORTS), (POST, PRE))
registry.add(kernel, other, owner("z"), elements("10.1.0.9"))
""")  # fmt: skip
    entries = mechanism(plain, "print(registry._part(R, 'net/c/eth0', 0).of.show(registry._part(R, 'net/c/eth0', 0).key))")  # fmt: skip
    plain.run("nft", f"delete element inet pycni attachments {{ {entries.strip()} }}")
    mechanism(plain, "registry.collect(kernel, R, 'net', {('a', 'eth0'), ('z', 'eth0'), ('b', 'eth1')})")
    assert held(plain) == {
        "attachments": ["net/a/eth0 test 1: pods 10.1.0.5", "net/z/eth0 other 1: pods 10.1.0.9", "net2/d/eth0 test 1: pods 10.1.0.8"],
        "pods": ["net/a/eth0", "net/z/eth0", "net2/d/eth0"], "ports": [],
    }  # fmt: skip
    names = {chain["name"] for chain in listed(plain, "pycni")["chain"]}
    assert names == {"post", "pre", mechanism(plain, "print(chain().name)").strip()}


def test_a_transaction_is_whole_or_nothing(plain: PretendHost) -> None:
    mechanism(plain, "add('c1', '10.1.0.5')")
    before = text(plain)
    said = mechanism(plain, """
from shared.net.netlink import NetlinkError
good, bad = elements("10.1.0.6")[0], PODS.element("10.1.0.7", to=verdict("goto", "nowhere"))
for requests in ([good.add_request("x"), bad.add_request("x")], [bad.add_request("x"), good.add_request("x")], [good.add_request("x"), good.remove_request(), good.remove_request()]):
    try:
        kernel.commit(requests)
    except NetlinkError as error:
        print(error.errno, [error.message is request.message for request in requests].index(True))
""")  # fmt: skip
    assert said.split() == ["2", "1", "2", "0", "2", "2"]
    assert text(plain) == before


def test_first_ones_at_once(plain: PretendHost) -> None:
    """16 processes start on a host without the table, again and again: each succeeds, and no object appears twice."""
    said = mechanism(plain, """
import subprocess
for round in range(12):
    ready, go = os.pipe()
    children = []
    for number in range(16):
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(ready, 1)
            status = 1
            try:
                kernel = Nfnetlink()
                add(f"c{number}", f"10.1.0.{number + 1}", ports=(number + 80,))
                status = 0 if problems(f"c{number}", f"10.1.0.{number + 1}", ports=(number + 80,)) == [] else 2
            except BaseException as error:
                print(repr(error), file=sys.stderr)
            os._exit(status)
        children.append(pid)
    os.close(go)
    print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
    os.close(ready)
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout
    print(rules.count("comment \\"none"), rules.count("comment \\"pods"), rules.count("comment \\"rest"), rules.count("/eth0\\""))
    subprocess.run(["nft", ["flush ruleset", "flush table inet pycni", "delete table inet pycni"][round % 3]], check=True)
    if round % 3 == 1:
        for number in range(16):
            remove(f"c{number}")
""")  # fmt: skip
    assert said.splitlines() == ["0 " * 15 + "0", "1 1 1 32"] * 12


def test_a_flush_during_adds(plain: PretendHost) -> None:
    """While another process flushes everything, an ADD succeeds, or fails without hanging and without partial state."""
    said = mechanism(plain, """
import subprocess
flusher = os.fork()
if not flusher:
    while True:
        subprocess.run(["nft", "flush ruleset"])
for number in range(100):
    add("c1", "10.1.0.5", ports=(80,))
    remove("c1")
os.kill(flusher, 9)
os.waitpid(flusher, 0)
print("done")
""")  # fmt: skip
    assert said == "done\n"
    assert held(plain) in ({}, EMPTY)
