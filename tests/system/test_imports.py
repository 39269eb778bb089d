"""What the executables import: start-up is most of a plugin's run time, so every module has to be wanted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost
from tests.pythons import found

# Beyond what the interpreter loads by itself with -I -S. All are built in or small and written in C.
STANDARD = {
    "__future__",  # annotations without their cost
    "_blake2",  # host link names; hashlib costs 3 ms more
    "_ctypes",  # setns, umount and prctl below Python 3.12; ctypes costs 3 ms
    "_json",  # scanner and encoder; json costs 8 ms
    "_socket",  # netlink and inet_pton; socket costs 7 ms
    "_struct",
    "errno",
    "fcntl",  # flock
    "struct",  # netlink headers; 20 lines around _struct
}
PROTOCOL = re.compile(r"shared(\.(cni(\.\w+)?|launch|libc|signals|sockets|undo))?")
KERNEL = re.compile(r"shared\.net(\.\w+)?")
IPAM = re.compile(r"ipam(\.host_local(\.\w+)?)?")
# What an executable may load of this project beyond the protocol, which is all that VERSION needs.
OWN = {
    "loopback": (KERNEL, re.compile(r"plugins(\.loopback)?")),
    "bridge": (KERNEL, IPAM, re.compile(r"plugins(\.bridge)?")),
    "host-local": (IPAM,),
}
LINE = re.compile(r"import time: +\d+ \| +\d+ \| +(\S+)")

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "isGateway": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.10.0.0/24"}], [{"subnet": "fd00:10::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


def imported(stderr: str) -> set[str]:
    return {match[1] for line in stderr.splitlines() if (match := LINE.fullmatch(line))}


def life(call: Callable[[str, dict[str, Any]], Answer]) -> dict[str, Answer]:
    """Every verb once, in the order of an attachment's life, with the answer that each got."""
    answers = {verb: call(verb, CONFIG) for verb in ("VERSION", "STATUS", "ADD")}
    attached = CONFIG | {"prevResult": answers["ADD"].json}
    answers["CHECK"] = call("CHECK", attached)
    answers["GC"] = call("GC", CONFIG | {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    answers["DEL"] = call("DEL", attached)
    return answers


@pytest.mark.parametrize("version", found())
@pytest.mark.parametrize("plugin", OWN)
def test_executable_imports_only_what_it_wants(host: PretendHost, plugin: str, version: str) -> None:
    # -B: this Python's compiled files have no place in an installation for another one.
    python = (found()[version], "-I", "-S", "-B", "-X", "importtime")
    bare = imported(host.run(*python, "-c", "pass").stderr)
    netns = host.netns("pod")
    answers = life(lambda verb, config: host.cni(plugin, verb, config | {"type": plugin}, netns=netns, prefix=python))
    for verb, answer in answers.items():
        assert answer.status == 0, f"{verb}: {answer.stdout}"
        modules = imported(answer.stderr) - bare
        assert "shared.cni.plugin" in modules
        allowed = (PROTOCOL, *(OWN[plugin] if verb != "VERSION" else ()))
        beyond = {name for name in modules - STANDARD if not any(pattern.fullmatch(name) for pattern in allowed)}
        assert beyond == set(), f"{plugin} {verb} on Python {version} imports {', '.join(sorted(beyond))}"


def test_checks_are_loaded_by_check_alone(host: PretendHost) -> None:
    python = (next(iter(found().values())), "-I", "-S", "-B", "-X", "importtime")
    netns = host.netns("pod")
    answers = life(
        lambda verb, config: host.cni("bridge", verb, config | {"type": "bridge"}, netns=netns, prefix=python)
    )
    assert [verb for verb, answer in answers.items() if "shared.net.verify" in imported(answer.stderr)] == ["CHECK"]
