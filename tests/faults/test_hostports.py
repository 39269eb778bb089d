"""Rows 1, 2, 3, 11, 15 and 19 for portmap: after a killed or refused call, DEL leaves nothing of the attachment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PATH, Answer, PretendHost
from tests.system.hostport_nodes import BY_IPTABLES, HOST, Plain, elements, left, ports, rules

KEYS = ports((8080, 80, "tcp"), (8080, 80, "udp"), (8081, 81, "udp", HOST), conditionsV4=["!", "-i", "x"])
ENDS: tuple[dict[str, Any], ...] = ({}, {"netns": "/run/netns/gone"}, {"netns": ""})


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", ""))


@pytest.fixture
def plain(host: PretendHost, backend: str) -> Plain:
    found = Plain(host, backend)
    found.add(ports((9000, 80), (9000, 80, "udp")), "kept", 9)
    return found


def count_calls(plain: Plain, verb: str, system_call: str) -> int:
    """Return how often a verb makes a system call."""
    answer = plain.call(verb, KEYS, prefix=("strace", "-qq", "-o", "/run/trace", "-e", f"trace={system_call}"))
    assert answer.status == 0, answer.stdout
    return len(plain.host.run("cat", "/run/trace").stdout.splitlines())


def call_struck(plain: Plain, verb: str, system_call: str, number: int, how: str) -> Answer:
    """Make a call whose n-th system call of that name is struck."""
    strike = f"inject={system_call}:{how}:when={number}"
    return plain.call(verb, KEYS, prefix=("strace", "-qq", "-o", "/dev/null", "-e", strike))


def is_whole(plain: Plain) -> bool:
    return plain.problems(KEYS) == ""


SEND = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', ('{HOST}', 8080))"


def tracked_flows(plain: Plain) -> list[str]:
    """Return the conntrack entries of the mapped UDP port, which lead to a pod that does not answer."""
    connections = plain.host.run("cat", "/proc/net/nf_conntrack").stdout.splitlines()
    return [line for line in connections if " udp " in line and "dport=8080 " in line]


def prepare(plain: Plain, what: str) -> None:
    """Create the things that must be there before a call, and delete the others."""
    if what == "DEL":
        plain.add(KEYS)
        plain.host.python(SEND)
        assert len(tracked_flows(plain)) == 1
    elif what == "first ADD":
        flush = (
            [f"ip{six}tables -t nat -{verb}" for six in ("", "6") for verb in "FX"]
            if plain.keys
            else ["nft flush ruleset"]
        )
        plain.host.run("sh", "-ec", "; ".join(flush), env=plain.environment.get("env"))


WHAT = pytest.mark.parametrize("what", ["first ADD", "ADD", "DEL"])


@WHAT
@pytest.mark.row(1, 2, 3)
def test_killed_at_every_message(plain: Plain, what: str) -> None:
    """SIGKILL comes before each message to the kernel and each write.

    Then DEL deletes everything, without prevResult, with the namespace or without.
    """
    verb = what.rpartition(" ")[2]
    plain.add(KEYS)
    assert plain.call("DEL", KEYS).status == 0
    before = {} if what == "first ADD" else elements(plain.host)
    halves = set()
    for system_call in ("sendto", "write"):
        prepare(plain, what)
        count = count_calls(plain, verb, system_call)
        assert plain.call("DEL", KEYS).status == 0
        assert system_call == "write" or count > 5
        for number in range(1, count + 1):
            prepare(plain, what)
            call_struck(plain, verb, system_call, number, "signal=KILL")
            halves.add(is_whole(plain))
            for _ in range(2):
                answer = plain.call("DEL", {"prevResult": None}, **ENDS[number % 3])
                assert (answer.status, answer.stdout) == (0, ""), (system_call, number, answer)
            assert elements(plain.host) == before and not tracked_flows(plain), (system_call, number)
    assert halves == {True, False}  # some struck before the change, some behind it


def strike_one_by_one(plain: Plain, what: str, how: str, steps: str, *options: str) -> None:
    """Strike each of a call's steps, or of its programs' with the option -f. Then DEL must leave nothing."""
    verb = what.rpartition(" ")[2]
    plain.add(KEYS)
    assert plain.call("DEL", KEYS).status == 0
    before = {} if what == "first ADD" else left(plain.host)
    halves = set()
    for step in steps.split(","):
        for number in range(1, 60):
            prepare(plain, what)
            strike = ("-e", f"trace={step}", "-e", f"inject={step}:signal={how}:when={number}")
            answer = plain.call(verb, KEYS, prefix=("strace", *options, "-qq", "-o", "/dev/null", *strike))
            if verb == "ADD" and answer.status == 1:
                # whether the switch is needed cannot be told without the programs: it stays, behind its rules
                others = answer.stderr.replace("could not set route_localnet back", "")
                assert left(plain.host) == before and "could not" not in others, (step, number, answer)
            halves.add(is_whole(plain))
            for _ in range(2):
                end = plain.call("DEL", {"prevResult": None}, **ENDS[number % 3])
                assert (end.status, end.stdout) == (0, ""), (step, number, end)
            assert left(plain.host) == before and not tracked_flows(plain), (step, number, answer)
            if answer.status == 0:
                break
        else:
            pytest.fail(f"no call got through at {step}")
    assert halves == {True, False}  # some struck before the change, some behind it


@WHAT
@pytest.mark.parametrize(
    ("backend", "how"), [("iptables", "KILL"), ("iptables", "TERM"), ("legacy", "KILL")], indirect=["backend"]
)
def test_killed_at_every_step(plain: Plain, what: str, how: str) -> None:
    """It is killed before, between and while its programs run. A call that gets SIGTERM rolls back, and says so."""
    strike_one_by_one(
        plain, what, how, "write,clone,wait4,flock" if how == "TERM" else "sendto,write,clone,wait4,flock"
    )


@WHAT
@BY_IPTABLES
def test_its_programs_are_killed_at_every_step(plain: Plain, what: str) -> None:
    """Each program is killed in turn, or the call itself if it does as much."""
    strike_one_by_one(plain, what, "KILL", "execve,sendmsg" if plain.environment == {} else "execve,setsockopt", "-f")


@WHAT
@pytest.mark.row(11)
def test_every_message_fails_in_turn(plain: Plain, what: str) -> None:
    """An ADD that fails leaves nothing without any DEL. A DEL reports its failure, and the next one does the rest."""
    verb = what.rpartition(" ")[2]
    plain.add(KEYS)
    assert plain.call("DEL", KEYS).status == 0
    before = {} if what == "first ADD" else elements(plain.host)
    prepare(plain, what)
    count = count_calls(plain, verb, "sendto")
    assert plain.call("DEL", KEYS).status == 0
    for number in range(1, count + 1):
        prepare(plain, what)
        answer = call_struck(plain, verb, "sendto", number, "error=EPERM")
        assert answer.code == 999 and "could not" not in answer.stderr, (number, answer)
        if verb == "DEL":
            assert plain.call("DEL", KEYS).status == 0
        assert elements(plain.host) == before and not tracked_flows(plain), number


@BY_IPTABLES
def test_the_second_family_fails(plain: Plain) -> None:
    """The first family's rules are rolled back."""
    before = left(plain.host)
    plain.host.run(
        "sh",
        "-ec",
        "mkdir /run/broken; cd /run/broken; printf '#!/bin/sh\necho broken >&2\nexit 1' >ip6tables-restore; chmod +x *",
    )
    path = plain.environment.get("env", {"PATH": PATH})["PATH"]
    answer = plain.call("ADD", KEYS, env={"PATH": f"/run/broken:{path}"})
    assert answer.code == 999 and "ip6tables-restore failed" in answer.json["msg"], answer
    assert "could not" not in answer.stderr, answer
    assert left(plain.host) == before
    assert plain.host.run("cat", "/proc/sys/net/ipv4/conf/br0/route_localnet").stdout == "1\n"  # the other pod's
    plain.add(KEYS)


@pytest.mark.row(10)
def test_the_sysctl_cannot_be_set(plain: Plain) -> None:
    before = elements(plain.host)
    count = count_calls(plain, "ADD", "openat")
    plain.call("DEL", KEYS)
    answer = call_struck(plain, "ADD", "openat", count, "error=EROFS")
    assert answer.code == 999 and "route_localnet" in answer.json["msg"], answer
    assert elements(plain.host) == before
    plain.add(KEYS)
    assert is_whole(plain)


@pytest.mark.row(19)
def test_nothing_is_pasted(plain: Plain) -> None:
    """Names are rules, or comments' ends, elsewhere. The ruleset is the same as with plain names."""
    plain.add(KEYS)
    shape = rules(plain.host).count("\n")
    assert plain.call("DEL", KEYS).status == 0
    odd = 'e"th~};x'
    plain.add(KEYS, ifname=odd)
    assert rules(plain.host).count("\n") == shape
    plain.host.run("nft", "-c", "-f", "-", input=rules(plain.host))
    assert plain.problems(KEYS, ifname=odd) == ""
    assert plain.call("DEL", KEYS, ifname=odd).status == 0
    for number, words in enumerate(("tcp dport 22 accept; flush ruleset", 'x" ; add rule', "80 : 1.2.3.4 . 80 }")):
        for place in range(4):
            entry: list[Any] = [80, 80, "tcp", HOST]
            entry[place] = words
            answer = plain.call("ADD", ports(entry), f"x{number}")
            assert answer.code == 7, answer
        answer = plain.call("ADD", ports((80, 80), conditionsV4=[words], conditionsV6=[words]), f"x{number}")
        assert answer.code == 7, answer
    assert set(elements(plain.host)["hostports4"]) == {"net/kept/eth0"}


# Each would be a target, a command, another rule or another table, if a word became more than a word.
INJECTIONS = (
    ["-m", "comment", "--comment", 'x" -j ACCEPT -m comment --comment "'], ["-m", "comment", "--comment", "x\\"], ["-m", "comment", "--comment", 'x\\" -j DROP'],
    ["-m", "comment", "--comment", "COMMIT"], ["-m", "comment", "--comment", "*filter"], ["-m", "comment", "--comment", "# -j DROP"], ["-m", "comment", "--comment", "':'"],
    ["-m", "string", "--algo", "bm", "--string", 'if: \\"eth9\\"" -j CNI-DN-0'], ["-m", "comment", "--comment", 'dnat name: "net" id: "kept" if: "eth0"'],
)  # fmt: skip
REFUSED = (
    ["-m", "mark", "--mark", "1\n-A INPUT -j DROP"], ["-m", "mark", "--mark", "1", "--jum", "DROP"], ["-m", "mark", "--mark", "1", "-jDROP"], ["-m", "mark", "-gX"],
    ["-m", "comment", "--comment", "-j DROP"], ["-m", "mark", "--mark", "1", "!"], ["-m", "/tmp/x"], ["--modprobe", "/tmp/x"], ["-m", "mark", "-P", "INPUT"],
)  # fmt: skip


@pytest.mark.row(19)
@pytest.mark.parametrize("six", ["", "6"])
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_words_of_iptables_stay_words(host: PretendHost, variant: str, six: str) -> None:
    """The shared chain gets one rule of a condition, to the container's chain, and no other chain gets anything."""
    plain = Plain(host, "iptables" if variant == "nft" else "legacy")
    kept = ports((8099, 80, "tcp"))
    plain.add(kept, "kept", 7)
    key = f"conditionsV{six or 4}"

    def saved() -> list[str]:
        text = host.run(f"ip{six}tables-save", env=plain.environment.get("env")).stdout
        return [line.partition(" [")[0] for line in text.splitlines() if line.startswith((":", "-A", "*"))]

    before = saved()
    for words in INJECTIONS:
        mapped = ports((80, 80, "tcp"), **{key: words})
        answer = plain.call("ADD", mapped)
        if answer.status:  # this kernel may lack the match
            assert saved() == before and "string" in words, answer
            continue
        more = [line for line in saved() if line not in before]
        (chain,) = {line for line in more if line.startswith(":")}
        entries = [line for line in more if line.startswith("-A CNI-HOSTPORT-DNAT ")]
        assert len(entries) == 1 and entries[0].endswith(f" --dports 80 -j {chain[1:].split()[0]}"), entries
        assert [line for line in more if not line.startswith((":", "-A CNI-HOSTPORT-DNAT ", "-A CNI-DN-"))] == []
        assert plain.problems(mapped) == "" and plain.problems(kept, "kept", 7) == ""
        assert plain.call("DEL", mapped).status == 0
        assert saved() == before, words
    for words in REFUSED:
        plain.refused(ports((80, 80), **{key: words}), 7, key)
