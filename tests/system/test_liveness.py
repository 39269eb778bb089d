"""Whether an attachment is alive, told from its mark: namespaces and links of the real kernel."""

from __future__ import annotations

import json

import pytest

from tests.pretend import PretendHost

SCRIPT = """
import json, sys
from shared.net.liveness import is_dead, mark
from shared.net.owner import Owner
verb, *rest = sys.argv[1:]
print(json.dumps(mark(rest[0]) if verb == "mark" else is_dead(Owner("net", "c1", "eth0"), rest[0])))
"""


@pytest.fixture
def marked(host: PretendHost) -> str:
    """The mark of a pod's namespace."""
    return str(ask(host, "mark", host.netns("pod")))


def ask(host: PretendHost, verb: str, text: str) -> str | bool:
    found: str | bool = json.loads(host.python(SCRIPT, verb, text))
    return found


def host_link(host: PretendHost) -> str:
    script = "from shared.net.owner import Owner; print(Owner('net', 'c1', 'eth0').host_link)"
    return host.python(script).strip()


def test_alive_with_its_namespace(host: PretendHost, marked: str) -> None:
    assert marked.endswith(" /run/netns/pod")
    assert ask(host, "is_dead", marked) is False


def test_dead_without_namespace_and_link(host: PretendHost, marked: str) -> None:
    host.drop_netns("pod")
    assert ask(host, "is_dead", marked) is True


def test_alive_with_its_link(host: PretendHost, marked: str) -> None:
    host.run("ip", "link", "add", host_link(host), "type", "veth", "peer", "name", "other")
    host.drop_netns("pod")
    assert ask(host, "is_dead", marked) is False


def test_dead_where_the_path_leads_to_another_namespace(host: PretendHost, marked: str) -> None:
    host.run("touch", "/run/kept")
    host.run("mount", "--bind", "/run/netns/pod", "/run/kept")  # keeps the inode number taken
    host.drop_netns("pod")
    host.netns("pod")
    assert ask(host, "is_dead", marked) is True


def test_dead_where_an_empty_file_is_left(host: PretendHost, marked: str) -> None:
    host.run("umount", "/run/netns/pod")
    assert ask(host, "is_dead", marked) is True


def test_unknown_is_alive(host: PretendHost) -> None:
    assert ask(host, "mark", "/run/netns/none") == ""
    assert ask(host, "is_dead", "") is False
    assert ask(host, "is_dead", "4:1 /run/" + "x" * 5000) is False  # ENAMETOOLONG
