"""Rows 6, 11, 12: an IPAM plugin that fails, lies, talks without end, dies or is slow; nothing is left and no lease is lost."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.faults import batch, fake_ipam
from tests.faults.batch import Call
from tests.faults.fake_ipam import GOOD, says
from tests.pretend import PATH, PATIENCE, PretendHost

NETWORK = "net"
IP = GOOD["ips"][0]
CODES = {*range(1, 9), 11, 50, 51, 999}


def _config(kind: str, **keys: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "type": "bridge",
        "bridge": "br0",
        "isGateway": True,
        "ipam": {"type": kind, **keys},
    }


def _result(**members: Any) -> str:
    return says({**GOOD, **members})


FAILURES: dict[str, str] = {
    "exits 1 without a word": "exit 1",
    "exits 77": "exit 77",
    "says why": says({"cniVersion": "1.1.0", "code": 11, "msg": "come again"}, 1),
    "error with code 0": says({"cniVersion": "1.1.0", "code": 0, "msg": "nothing wrong"}, 1),
    "error with code true": says({"cniVersion": "1.1.0", "code": True, "msg": "x"}, 1),
    "error with a code in words": says({"cniVersion": "1.1.0", "code": "eleven", "msg": "x"}, 1),
    "error with a huge code": says({"cniVersion": "1.1.0", "code": 2**70, "msg": "x"}, 1),
    "error with a negative code": says({"cniVersion": "1.1.0", "code": -1, "msg": "x"}, 1),
    "error without msg": says({"cniVersion": "1.1.0", "code": 7}, 1),
    "error with objects": says({"cniVersion": "1.1.0", "code": 7, "msg": {"a": 1}, "details": [1]}, 1),
    "error that is a list": says("[]", 1),
    "garbage, status 1": says("Segmentation fault", 1),
    "says nothing": "exit 0",
    "garbage": says("hello"),
    "truncated": says(json.dumps(GOOD)[:-5]),
    "two documents": says(json.dumps(GOOD) * 2),
    "not UTF-8": "printf '\\377\\376{}'",
    "NaN": says(json.dumps(GOOD)[:-1] + ', "x": NaN}'),
    "nested deep": "head -c 200000 /dev/zero | tr '\\0' '['",
    "null": says("null"),
    "a list": says("[]"),
    "a number": says("5"),
    "no addresses": says({"cniVersion": "1.1.0"}),
    "an error, status 0": says({"cniVersion": "1.1.0", "code": 7, "msg": "x"}),
    "unknown version": _result(cniVersion="7.0.0"),
    "version a number": _result(cniVersion=1),
    "ips an object": _result(ips={"address": "10.7.0.5/24"}),
    "ips of null": _result(ips=[None]),
    "ip without address": _result(ips=[{}]),
    "address a number": _result(ips=[{"address": 5}]),
    "address without length": _result(ips=[{"address": "10.7.0.5"}]),
    "address too long": _result(ips=[{"address": "10.7.0.5/33"}]),
    "gateway garbage": _result(ips=[IP | {"gateway": "there"}]),
    "gateway a number": _result(ips=[IP | {"gateway": 1}]),
    "interface that is not listed": _result(interfaces=[{"name": "x"}], ips=[IP | {"interface": 5}]),
    "interface in words": _result(ips=[IP | {"interface": "eth0"}]),
    "the same address twice": _result(ips=[IP, IP]),
    "routes a word": _result(routes="x"),
    "route without dst": _result(routes=[{}]),
    "route by a number": _result(routes=[{"dst": 1}]),
    "route by nobody's gateway": _result(routes=[{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]),
    "dns a list": _result(dns=["10.0.0.1"]),
    "killed": "kill -KILL $$",
    "crashes": "ulimit -c 0; kill -SEGV $$",
    "terminated": "kill -TERM $$",
    "talks without end": "exec yes",
    "zeros without end": "exec cat /dev/zero",
    "error without end": '{ printf \'{"code": 7, "msg": "\'; exec yes; }',
    "leaves the input unread": "exec <&-; exit 1",
}
NOT_BEGUN = ("not executable", "bad interpreter", "missing", "a directory")


@pytest.mark.row(11, 12)
def test_an_add_whose_ipam_fails_leaves_nothing(host: PretendHost, tmp_path: Path) -> None:
    batch.make_pods(host, 2)
    for number, body in enumerate(FAILURES.values()):
        fake_ipam.write(host, tmp_path, f"fake{number}", body)
    cases = dict.fromkeys(FAILURES, 0) | dict.fromkeys(NOT_BEGUN, 0)
    cases = {name: number for number, name in enumerate(cases)}
    path = fake_ipam.write(host, tmp_path, f"fake{cases['not executable']}", "", mode=0o644)
    (tmp_path / f"fake{cases['bad interpreter']}").write_text("#!/does/not/exist\n")
    (tmp_path / f"fake{cases['bad interpreter']}").chmod(0o755)
    (tmp_path / f"fake{cases['a directory']}").mkdir()
    host.run(
        "ip", "link", "add", "br0", "up", "type", "bridge"
    )  # otherwise one call rolls back a bridge that another has come to use
    before = host.snapshot(["pod0", "pod1"])

    outcomes = batch.run(
        host,
        [
            Call(
                "bridge",
                "ADD",
                _config(f"fake{number}"),
                {"CNI_CONTAINERID": f"c{number}", "CNI_PATH": path},
                observe=("/sys/class/net",),
            )
            for number in cases.values()
        ],
    )

    complaints = []
    for (name, number), answer in zip(cases.items(), outcomes, strict=True):
        said = f"{name}: status {answer.status}, {answer.stdout[:300]!r}, {answer.stderr[:300]!r}"
        if answer.status != 1 or answer.code not in CODES:
            complaints.append(f"no CNI error: {said}")
        elif answer.json["msg"].startswith("unexpected ") or "Traceback" in answer.stderr:
            complaints.append(f"not foreseen: {said}")
        if name == "says why" and (answer.code != 11 or answer.json["msg"] != "come again"):
            complaints.append(f"another error than the IPAM plugin's: {said}")
        if Owner(NETWORK, f"c{number}", "eth0").host_link in answer.seen["/sys/class/net"]:
            complaints.append(f"link left: {said}")
        verbs = fake_ipam.calls(host, f"c{number}")
        if verbs != ([] if name in NOT_BEGUN else ["ADD", "DEL"]):
            complaints.append(f"called {verbs}: {said}")
    assert not complaints, "\n".join(complaints)
    assert fake_ipam.leases(host) == []
    assert host.snapshot(["pod0", "pod1"]) == before
    assert _fakes_running(host) == ""


@pytest.mark.row(11)
def test_a_bridge_made_for_nothing_is_taken_back(host: PretendHost, tmp_path: Path) -> None:
    netns = host.netns("pod")
    path = fake_ipam.write(host, tmp_path, "fails", "exit 1")
    before = host.snapshot(["pod"])
    assert host.cni("bridge", "ADD", _config("fails"), netns=netns, path=path).code == 999
    assert host.snapshot(["pod"]) == before


def _fakes_running(host: PretendHost) -> str:
    return host.run(
        "sh",
        "-c",
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done | grep -E 'fake[0-9]|^yes|[z]ero' || :",
    ).stdout


@pytest.mark.row(12)
def test_other_verbs_pass_on_what_ipam_says(host: PretendHost, tmp_path: Path) -> None:
    """DEL and CHECK report that IPAM failed, DEL after its own work; a plugin without GC and STATUS is no failure."""
    netns = host.netns("pod")
    body = (
        'case $CNI_COMMAND in ADD) :;; GC|STATUS) echo \'{"cniVersion": "1.0.0", "code": 4, "msg": "unknown CNI_COMMAND"}\'; exit 1;;'
        ' *) echo \'{"cniVersion": "1.1.0", "code": 11, "msg": "not now"}\'; exit 1;; esac\n'
    )
    path = fake_ipam.write(host, tmp_path, "refuses", body + says(GOOD), release="")
    config = _config("refuses")
    added = host.cni("bridge", "ADD", config, netns=netns, path=path)
    assert added.status == 0, added
    for verb in ("CHECK", "DEL"):
        answer = host.cni("bridge", verb, {**config, "prevResult": added.json}, netns=netns, path=path)
        assert (answer.status, answer.code) == (1, 11 if verb == "DEL" else 999), answer
        assert "not now" in answer.stdout
    assert [link["ifname"] for link in host.ip("link")] == ["lo", "br0"]
    for verb in ("GC", "STATUS"):
        answer = host.cni("bridge", verb, {**config, "cni.dev/valid-attachments": []}, path=path)
        assert answer.status == 0, answer
    assert fake_ipam.calls(host, "c1") == ["ADD", "CHECK", "DEL", "GC", "STATUS"]


@pytest.mark.row(12)
@pytest.mark.parametrize("verb", ["GC", "STATUS"])
@pytest.mark.parametrize(("code", "is_error"), [(4, False), (5, True), (11, True), (50, True), (999, True)])
def test_the_error_of_another_ipam_plugin_is_heard(
    host: PretendHost, tmp_path: Path, verb: str, code: int, is_error: bool
) -> None:
    """Code 4 alone says that the plugin does not know the verb."""
    error = {"cniVersion": "1.1.0", "code": code, "msg": "no such luck"}
    path = fake_ipam.write(host, tmp_path, "refuses", says(error, 1))
    answer = host.cni("bridge", verb, {**_config("refuses"), "cni.dev/valid-attachments": []}, path=path)
    assert (answer.status, answer.code) == (1, code) if is_error else answer.status == 0, answer
    assert ("no such luck" in answer.stdout) == is_error


@pytest.mark.row(12)
def test_an_ipam_plugin_that_knows_no_del(host: PretendHost, tmp_path: Path) -> None:
    """It has released nothing: the runtime must learn it, although bridge has done its own part."""
    body = '[ "$CNI_COMMAND" = ADD ] || ' + f"{{ {says({'code': 4, 'msg': 'unknown command'}, 1)} }}\n"
    path = fake_ipam.write(host, tmp_path, "old", body + says(GOOD), release="")
    netns = host.netns("pod")
    assert host.cni("bridge", "ADD", _config("old"), netns=netns, path=path).status == 0
    answer = host.cni("bridge", "DEL", _config("old"), netns=netns, path=path)
    assert (answer.status, answer.code) == (1, 4) and "unknown command" in answer.stdout, answer
    assert [link["ifname"] for link in host.ip("link")] == ["lo", "br0"]


@pytest.mark.row(12)
def test_a_script_that_speaks_of_a_launcher_is_executed(host: PretendHost, tmp_path: Path) -> None:
    """A launcher's mark is its second line; in any other line it is a comment."""
    mark = host.run("sed", "-n", "2p", f"{host.bin_dir}/host-local").stdout
    path = fake_ipam.write(host, tmp_path, "speaks", f"# a wrapper of this file:\n{mark}" + says(GOOD))
    added = host.cni("bridge", "ADD", _config("speaks", subnet="10.9.0.0/24"), netns=host.netns("pod"), path=path)
    assert added.status == 0 and added.json["ips"][0]["address"] == IP["address"], added
    assert fake_ipam.calls(host, "c1") == ["ADD"]


@pytest.mark.row(12)
def test_an_ipam_plugin_is_started_with_the_signals_of_any_program(host: PretendHost, tmp_path: Path) -> None:
    """The undo of an ADD ignores signals itself, but the program can be ended."""
    body = "grep SigIgn /proc/self/status >/run/ignored-$CNI_COMMAND\n"
    path = fake_ipam.write(host, tmp_path, "looks", body + says({**GOOD, "ips": [{}]}), release="")
    assert host.cni("bridge", "ADD", _config("looks"), netns=host.netns("pod"), path=path).status == 1
    assert fake_ipam.calls(host, "c1") == ["ADD", "DEL"]
    for verb in ("ADD", "DEL"):
        ignored = int(host.run("cat", f"/run/ignored-{verb}").stdout.split()[1], 16)
        assert not ignored & sum(1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE))


@pytest.mark.row(12)
def test_a_missing_plugin_does_not_stop_del_from_removing_the_link(host: PretendHost, tmp_path: Path) -> None:
    netns = host.netns("pod")
    path = fake_ipam.write(host, tmp_path, "goes", says(GOOD))
    assert host.cni("bridge", "ADD", _config("goes"), netns=netns, path=path).status == 0
    (tmp_path / "goes").unlink()
    answer = host.cni("bridge", "DEL", _config("goes"), netns=netns, path=path)
    assert (answer.status, answer.code) == (1, 7), answer
    assert [link["ifname"] for link in host.ip("link")] == ["lo", "br0"]


@pytest.mark.row(6)
def test_killed_while_ipam_is_slow(host: PretendHost, tmp_path: Path) -> None:
    """Row 6: the IPAM plugin that outlives a killed bridge would lease an address after DEL, to nobody.

    Three plugins, each slow at another moment: before the lease, after it, and the suite's own behind a delay.
    """
    batch.make_pods(host, 4)
    fake_ipam.write(
        host,
        tmp_path,
        "slow0",
        f'sleep {0.5 * PATIENCE}; : >"$lease"\n' + says(GOOD),
        release='[ "$CNI_COMMAND" != DEL ] || { rm -f "$lease"; exit 0; }\n',
    )
    fake_ipam.write(host, tmp_path, "slow1", f"sleep {0.5 * PATIENCE}\n" + says(GOOD))
    pause = f'[ "$CNI_COMMAND" != ADD ] || sleep {0.3 * PATIENCE}\n'
    slow = f"{pause}answer=$({host.bin_dir}/host-local) || exit 1\n"
    path = fake_ipam.write(host, tmp_path, "slow2", slow + pause + 'echo "$answer"\n', release="")

    def call(verb: str, number: int, death: tuple[int, float] | None = None) -> Call:
        config = _config(f"slow{number % 3}", subnet="10.7.0.0/24")
        return Call(
            "bridge",
            verb,
            config,
            {"CNI_CONTAINERID": f"c{number}", "CNI_IFNAME": f"eth{number}", "CNI_PATH": path},
            signal=death,
        )

    adds = batch.run(
        host,
        [call("ADD", number, (signal.SIGKILL, (0.15 + 0.02 * number) * PATIENCE)) for number in range(15)],
        at_once=4,
    )
    dels = batch.run(host, [call("DEL", number) for number in range(15)], at_once=4)
    host.run("sleep", f"{0.7 * PATIENCE}")  # a fake that still ran would have its lease by now
    assert {answer.status for answer in adds} == {-signal.SIGKILL}, adds
    assert [answer.status for answer in dels] == [0] * 15, dels
    assert fake_ipam.leases(host) == []
    state = host.snapshot()
    assert not [name for name in state["files"] if "/10.7." in name], state["files"]
    assert set(state["host"]["links"]) <= {"lo", "br0"}


@pytest.mark.row(6)
def test_no_ipam_plugin_outlives_a_killed_bridge(host: PretendHost, tmp_path: Path) -> None:
    """It would lease its address when DEL has been there: it waits until then."""
    release = '[ "$CNI_COMMAND" != DEL ] || { rm -f "$lease"; exit 0; }\n'
    body = ': >/run/begun; until [ -e /run/after-del ]; do sleep 0.02; done; : >"$lease"\n' + says(GOOD)
    path = fake_ipam.write(host, tmp_path, "patient", body, release=release)
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": path}
    env = {"PATH": PATH, **variables, "CNI_NETNS": host.netns("pod")}
    with host.popen(f"{host.bin_dir}/bridge", env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as add:
        assert add.stdin is not None
        add.stdin.write(json.dumps(_config("patient")).encode())
        add.stdin.close()
        host.run("sh", "-ec", "until [ -e /run/begun ]; do sleep 0.02; done")
        add.kill()
    answer = host.cni("bridge", "DEL", _config("patient"), netns="/run/netns/pod", path=path)
    assert answer.status == 0, answer
    host.run("sh", "-ec", ": >/run/after-del; while grep -qsz [/]patient /proc/[0-9]*/cmdline; do sleep 0.02; done")
    assert fake_ipam.leases(host) == []


@pytest.mark.row(6, 12)
def test_terminated_while_ipam_is_slow(host: PretendHost, tmp_path: Path) -> None:
    """SIGTERM ends the wait: the plugin is stopped, its lease given back, and nothing is left, without any DEL."""
    batch.make_pods(host, 2)
    host.run("ip", "link", "add", "br0", "up", "type", "bridge")
    path = fake_ipam.write(host, tmp_path, "slow", f"sleep {30 * PATIENCE}\n" + says(GOOD))
    before = host.snapshot(["pod0", "pod1"])
    calls = [
        Call(
            "bridge",
            "ADD",
            _config("slow"),
            {"CNI_CONTAINERID": f"c{number}", "CNI_PATH": path},
            signal=(signal.SIGTERM, 0.4 * PATIENCE),
        )
        for number in range(4)
    ]
    for number, answer in enumerate(batch.run(host, calls)):
        assert (answer.status, answer.code) == (1, 999), answer
        assert answer.seconds < 10 * PATIENCE
        assert fake_ipam.calls(host, f"c{number}") == ["ADD", "DEL"]
    assert fake_ipam.leases(host) == []
    assert host.snapshot(["pod0", "pod1"]) == before
