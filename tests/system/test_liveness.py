"""Liveness of an attachment, by its mark: namespaces and links of the real kernel."""

from __future__ import annotations

import json

import pytest

from tests.pretend import PretendHost, read_line

SCRIPT = """
import json, sys
from shared.net.liveness import is_dead, mark
from shared.net.owner import Owner
verb, *rest = sys.argv[1:]
print(json.dumps(mark(rest[0]) if verb == "mark" else is_dead(Owner("net", "c1", "eth0"), rest[0])))
"""


@pytest.fixture
def marked(host: PretendHost) -> str:
    """Return the mark of a pod's namespace."""
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


def test_dead_where_a_new_namespace_has_the_inode_number_of_the_old(host: PretendHost, marked: str) -> None:
    """The kernel reuses the number at once: only the mark's time tells them apart."""
    for _ in range(5):
        host.drop_netns("pod")
        host.netns("pod")
        again = str(ask(host, "mark", "/run/netns/pod"))
        assert again != marked and ask(host, "is_dead", marked) is True and ask(host, "is_dead", again) is False
        marked = again


def test_dead_where_the_inode_number_is_the_same_and_the_time_is_not(host: PretendHost) -> None:
    """A busy machine may not reuse the number, so a file stands for the namespace."""
    host.run("touch", "/run/pod")
    marked = str(ask(host, "mark", "/run/pod"))
    assert ask(host, "is_dead", marked) is False
    host.run("touch", "-d", "2026-01-01", "/run/pod")
    assert ask(host, "is_dead", marked) is True


@pytest.mark.parametrize("through", ["/proc/{}/ns/net", "/run/link"])
def test_alive_through_a_symbolic_link(host: PretendHost, through: str) -> None:
    """The kernel makes a new inode of /proc/PID/ns/net for each look, with another time."""
    host.netns("pod")
    with host.popen("ip", "netns", "exec", "pod", "sh", "-c", "echo $$; cat") as keeper:
        path = through.format(read_line(keeper).decode().strip())
        host.run("ln", "-s", "/run/netns/pod", "/run/link")
        mark = str(ask(host, "mark", path))
        for _ in range(3):
            assert ask(host, "is_dead", mark) is False
        keeper.communicate()
    host.drop_netns("pod")
    assert ask(host, "is_dead", mark) is True


def test_dead_where_an_empty_file_is_left(host: PretendHost, marked: str) -> None:
    host.run("umount", "/run/netns/pod")
    assert ask(host, "is_dead", marked) is True


def test_unknown_is_alive(host: PretendHost) -> None:
    assert ask(host, "mark", "/run/netns/none") == ""
    assert ask(host, "is_dead", "") is False
    assert ask(host, "is_dead", "4:1 /run/" + "x" * 5000) is False  # ENAMETOOLONG
