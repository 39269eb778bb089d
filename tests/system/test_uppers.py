"""Find links on top of a link, in pods (shared/net/uppers.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.system.macvlan_node import Node

ROOT = Path(__file__).resolve().parents[2]
# Prints the namespace of the macvlan that is found on up0, and those that were opened for it.
FIND = f"""
import json, posix, sys
sys.path.insert(0, {str(ROOT)!r})
from shared.net import links, netns, uppers
from shared.net.netlink import Netlink
opened, open_if_there = [], netns.open_if_there
netns.open_if_there = lambda path: opened.append(path) or open_if_there(path)
home = posix.open("/proc/self/ns/net", posix.O_RDONLY)
below = links.require(Netlink(), "up0")
found = uppers.find(below, home, "/run/netns/a", lambda _, link: links.kind(link) == "macvlan", *sys.argv[1:])
print(json.dumps([found and found.path, opened]))
"""


def find(node: Node, *kind: str) -> tuple[str | None, list[str]]:
    path, opened = json.loads(node.host.run(sys.executable, "-c", FIND, *kind).stdout)
    return path, opened


def test_a_noted_link_is_found_at_once(node: Node) -> None:
    """Other pods are not looked into. Without a note, or with one that leads nowhere, the link is found as well."""
    path, opened = find(node, "macvlan")
    assert path is None and "/run/netns/lan" in opened
    node.add("b")
    assert find(node, "macvlan") == ("/run/netns/b", ["/run/netns/b"])
    assert find(node)[0] == find(node, "nonsense")[0] == "/run/netns/b"
    (note,) = (node.host.root / "run/cni/links").glob("*.json")
    note.write_text(note.read_text().replace("/run/netns/b", "/run/netns/gone"))
    assert find(node, "macvlan")[0] == "/run/netns/b"
    note.unlink()
    assert find(node, "macvlan")[0] == "/run/netns/b"
