"""Calls for one attachment wait for each other; others never wait."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any

import pytest

from shared.cni import turn
from shared.cni.call import Call
from tests.node import Network
from tests.pretend import PATH, TREE, TURNS, PretendHost, read_line, until
from tests.system.repair_node import Repairs

BIN = "/run/plugins"
# An IPAM plugin: its ADD waits for a line in a FIFO, its other verbs do nothing.
SLOW_IPAM = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
read -r line </run/go
echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}'
"""
PLAIN: dict[str, Any] = {"ipam": {"type": "slow"}, "isGateway": True}
# Has the slot of the attachment in argv until its stdin ends, with a limit that is shorter than a call's.
TAKE = """
import sys
from shared import signals
from shared.cni import turn
from shared.cni.call import Call
from shared.cni.errors import CniError
signals.install()
call = Call({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": sys.argv[1], "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"})
call.network = "net"
try:
    with turn.take(call, sys.argv[2], seconds=0.2):
        print("taken", flush=True)
        sys.stdin.read()
except CniError as error:
    print(error.code, error.msg)
"""


class Node(Network):
    """A node whose IPAM plugin `slow` makes an ADD wait."""

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        script = f"mkdir {BIN}; mkfifo /run/go; cat >{BIN}/slow; chmod +x {BIN}/slow"
        host.run("sh", "-ec", script, input=SLOW_IPAM)

    def start(self, verb: str, pod: str) -> Any:
        """Start a call with the slow IPAM plugin; return the process."""
        env = {
            "PATH": PATH, "CNI_COMMAND": verb, "CNI_CONTAINERID": pod, "CNI_NETNS": self.netns(pod),
            "CNI_IFNAME": "eth0", "CNI_PATH": BIN,
        }  # fmt: skip
        process = self.host.popen(f"{self.host.bin_dir}/bridge", env=env)
        assert process.stdin
        process.stdin.write(json.dumps({**self.config, **PLAIN}).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def start_waiting_add(self, pod: str) -> Any:
        """Start an ADD; return it when its IPAM plugin waits."""
        process = self.start("ADD", pod)
        until(lambda: bool(self.host.run("pgrep", "-f", f"{BIN}/slow", check=False).stdout))
        return process

    def waits(self) -> bool:
        """Return True if a call waits for a slot, as the kernel's list of locks shows."""
        inode = (self.host.root / TURNS[1:]).stat().st_ino
        return bool(re.search(rf"-> POSIX .*:{inode} ", self.host.run("cat", "/proc/locks").stdout))

    def answer(self, process: Any) -> tuple[int, str]:
        output, _ = process.communicate(timeout=60)
        return process.returncode, output.decode()


def test_a_del_waits_for_an_add_that_rolls_back(node: Node) -> None:
    before = node.host.snapshot()
    add = node.start_waiting_add("a")
    delete = node.start("DEL", "a")
    until(node.waits)
    assert node.links("veth")  # the ADD's
    add.send_signal(signal.SIGTERM)
    assert node.answer(add)[0] == 1
    assert node.answer(delete) == (0, "")
    assert node.host.snapshot() == before


def test_a_killed_holder_frees_the_slot(node: Node) -> None:
    before = node.host.snapshot()
    add = node.start_waiting_add("a")
    delete = node.start("DEL", "a")
    until(node.waits)
    add.kill()
    assert node.answer(delete) == (0, "")
    assert node.host.snapshot()["files"] == before["files"] and not node.links("veth")


def test_another_attachment_does_not_wait(node: Node) -> None:
    add = node.start_waiting_add("a")
    node.add("b", {"ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}, "isGateway": False})
    node.delete("b")
    assert add.poll() is None
    node.host.run("sh", "-c", "echo >/run/go")
    assert node.answer(add)[0] == 0


def test_a_waiting_call_answers_a_signal(node: Node) -> None:
    add = node.start_waiting_add("a")
    delete = node.start("DEL", "a")
    until(node.waits)
    delete.send_signal(signal.SIGTERM)
    status, output = node.answer(delete)
    assert status == 1 and "terminated by signal 15" in json.loads(output)["msg"]
    node.host.run("sh", "-c", "echo >/run/go")
    assert node.answer(add)[0] == 0


def test_a_bridge_does_not_wait_for_its_own_ipam_plugin(node: Node) -> None:
    """The executed plugin is this suite's, for the same attachment."""
    script = f"printf '#!/bin/sh\\nexec {node.host.bin_dir}/host-local\\n' >{BIN}/other; chmod +x {BIN}/other"
    node.host.run("sh", "-ec", script)
    keys = {"ipam": {"type": "other", "subnet": "10.1.0.0/24"}}
    node.add("a", keys, path=BIN)
    node.delete("a", keys, path=BIN)
    assert not [path for path in node.host.snapshot()["files"] if path.endswith("/10.1.0.2")]


def take(host: PretendHost, pod: str, module: str = "plugins.bridge") -> str:
    return host.python(TAKE, pod, module).strip()


def test_the_holder_is_named(host: PretendHost) -> None:
    """The message has the holder's program and process; a plugin and an IPAM plugin have slots of their own."""
    script = ("python3", "-c", TAKE, "a", "plugins.bridge")
    holder = host.popen(*script, env={"PATH": PATH, "PYTHONPATH": TREE})
    assert read_line(holder) == b"taken\n"
    code, _, message = take(host, "a").partition(" ")
    assert code == "11" and re.search(
        r"eth0 of container a in network net .* 0\.2 seconds: python3\S* \(process \d+\)", message
    )
    assert take(host, "a", "ipam.static") == take(host, "b") == "taken"
    holder.kill()
    holder.wait()
    assert take(host, "a") == "taken"


SPOILT = ["mount -t tmpfs -o ro tmpfs /run/cni", "chmod 644 {0}", "rm {0}; mkdir {0}", "rm {0}; ln -s /run/x {0}"]


@pytest.mark.parametrize("spoil", SPOILT)
def test_calls_go_on_without_the_file(net: Network, spoil: str) -> None:
    """The file system is read-only, or the file is one that others could lock, or no file."""
    net.add("a")
    net.host.run("sh", "-ec", spoil.format(TURNS))
    net.delete("a")
    net.add("b")
    assert not (net.host.root / "run/x").exists()


def repair_of_a(net: Network, repairs: Repairs) -> Any:
    """Return the answer to a repair of the pod `a`."""
    environment = {"CNI_CONTAINERID": "a", "CNI_NETNS": "/run/netns/a", "CNI_IFNAME": "eth0", "CNI_PATH": "/none"}
    config = {**net.config, "prevResult": net.results["a"]}
    return repairs.ask({"plugin": "bridge", "environment": environment, "config": config})


@pytest.mark.parametrize("spoil", SPOILT)
def test_no_repair_without_the_file(net: Network, spoil: str) -> None:
    """It would not wait for a DEL."""
    net.add("a")
    net.host.run("sh", "-ec", spoil.format(TURNS))
    net.host.run("ip", "link", "set", net.config["bridge"], "down")
    error = repair_of_a(net, Repairs(net.host))["error"]
    assert error["code"] == 999 and TURNS in error["msg"]
    assert "UP" not in net.host.ip("link", "show", net.config["bridge"])[0]["flags"]


def test_a_busy_attachment_costs_no_descriptor(net: Network) -> None:
    repairs = Repairs(net.host)
    net.add("a")
    assert repair_of_a(net, repairs) == {"repaired": []}
    open_files = f"/proc/{repairs.process.pid}/fd"
    before = len(os.listdir(open_files))
    holder = net.host.popen(sys.executable, "-c", TAKE, "a", "bridge", env={"PATH": PATH, "PYTHONPATH": TREE})
    assert read_line(holder) == b"taken\n"
    assert [repair_of_a(net, repairs)["error"]["code"] for _ in range(3)] == [11, 11, 11]
    assert len(os.listdir(open_files)) == before


def test_a_deleted_attachment_is_not_repaired(net: Network) -> None:
    """A new ADD ends that."""
    repairs = Repairs(net.host)
    net.add("a")

    def repair() -> Any:
        return repair_of_a(net, repairs)

    assert repair() == {"repaired": []}
    take(net.host, "a")  # a DEL that was killed
    assert repair()["error"]["code"] == 3
    net.delete("a")
    assert repair()["error"]["code"] == 3
    net.add("a")
    assert repair() == {"repaired": []}


def test_a_plugin_never_waits_for_its_own_ipam_plugin() -> None:
    """The two have slots in different halves of the file, with all names."""
    call = Call({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"})
    for number in range(1000):
        call.network = f"net{number}"
        main, ipam = (turn.take(call, module) for module in ("plugins.bridge", "ipam.host_local"))
        assert main.place < turn.SLOTS * turn.SLOT_BYTES <= ipam.place < 2 * turn.SLOTS * turn.SLOT_BYTES
