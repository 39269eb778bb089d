"""The dhcp daemon's work for one attachment, by requests and by itself, goes in turns: none takes another one's lease."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from tests.pretend import until
from tests.system.dhcp_node import Node

# The end of a tenancy, when it has ended its task, waits for the file /run/go. It says that it has begun.
SLOW_END = """
import asyncio, os
import shared.cli.dhcp.tenancy
class Slow:
    def __getattr__(self, name):
        return getattr(asyncio, name)
    async def gather(self, *tasks, **keys):
        open("/run/ending", "w").close()
        while not os.path.exists("/run/go"):
            await asyncio.sleep(0.02)
        return await asyncio.gather(*tasks, **keys)
shared.cli.dhcp.tenancy.asyncio = Slow()
"""
# The end of an ADD that nobody waits for any more waits for the file /run/go.
SLOW_CANCEL = """
import asyncio, os
from shared.cli.dhcp.tenancy import Tenancy
acquire = Tenancy.acquire
async def slow(self, *arguments):
    try:
        return await acquire(self, *arguments)
    except asyncio.CancelledError:
        open("/run/ending", "w").close()
        while not os.path.exists("/run/go"):
            await asyncio.sleep(0.02)
        raise
Tenancy.acquire = slow
"""
# Counts the requests for a lease that have arrived.
COUNTED = """
from shared.cli.dhcp.service import Service
serve = Service._acquire
async def counted(self, *arguments):
    with open("/run/asked", "a") as file:
        file.write("x")
    return await serve(self, *arguments)
Service._acquire = counted
"""
LINK = ("up", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", "a")
SOON_SECONDS = 4.0  # after its request, an ADD that does not wait for its turn is done by then


def kept(node: Node) -> list[str]:
    """Return the files of the leases that the daemon keeps."""
    return [path.name for path in (node.host.root / "var/lib/cni/dhcp/leases").glob("*.json")]


def make_pod(node: Node, port: str = "port") -> None:
    """Create the pod's namespace, with a link to the LAN."""
    node.config["type"] = "dhcp"
    node.netns("a")
    node.host.run("ip", "link", "add", port, *LINK)


def test_an_add_during_the_release_of_a_dead_pod(node: Node) -> None:
    """The same attachment is there again while the daemon gives back the lease of its dead pod."""
    node.serve_lan()
    node.start(prelude=SLOW_END + COUNTED)
    make_pod(node)
    node.add("a")
    node.host.drop_netns("a")
    until((node.host.root / "run/ending").exists)
    make_pod(node, "port2")  # the daemon still holds the namespace of the other one
    with ThreadPoolExecutor() as pool:
        adding = pool.submit(node.call, "ADD", "a")
        until(lambda: len((node.host.root / "run/asked").read_text()) > 1)
        done, _ = wait([adding], SOON_SECONDS)
        (node.host.root / "run/go").touch()
        answer = adding.result()
    assert answer.status == 0, answer
    assert not done and len(kept(node)) == 1
    until(lambda: "the pod is gone without a DEL" in node.log.read_text())
    assert "no lease" not in node.check("a", {"prevResult": ...})
    node.stop()
    node.start()
    assert len(kept(node)) == 1 and len(node.leases()) == 1
    assert "no lease" not in node.check("a", {"prevResult": ...})


def test_an_add_that_waits_for_a_killed_one(node: Node) -> None:
    """The second ADD has asked for a lease before the end of the first one is done, and keeps its lease."""
    node.start(prelude=SLOW_CANCEL + COUNTED)
    make_pod(node)
    asked = node.host.root / "run/asked"
    first = node.begin_add("a")
    until(lambda: asked.exists() and asked.read_text() == "x")
    first.kill()
    until((node.host.root / "run/ending").exists)
    second = node.begin_add("a")
    until(lambda: asked.read_text() == "xx")
    (node.host.root / "run/go").touch()
    node.serve_lan()
    assert second.wait(60) == 0
    assert "no lease" not in node.check("a", {"prevResult": ...}) and len(kept(node)) == 1
    assert node.heard("DHCPRELEASE") == 0 and len(node.leases()) == 1


def test_a_killed_add_lets_the_namespace_go(node: Node) -> None:
    """It is killed while the daemon ends the attachment's former lease."""
    node.serve_lan()
    node.start(prelude=SLOW_END)
    make_pod(node)
    node.add("a")
    again = node.begin_add("a")
    until((node.host.root / "run/ending").exists)
    assert node.daemon
    inode = (node.host.root / "run/netns/a").stat().st_ino
    files = Path(f"/proc/{node.daemon.pid}/fd")

    def is_open() -> bool:
        return inode in {os.stat(file).st_ino for file in files.iterdir() if file.exists()}

    assert is_open()
    again.kill()
    (node.host.root / "run/go").touch()
    until(lambda: not is_open())
    node.delete("a")
