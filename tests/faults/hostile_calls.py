"""Row 8, the identity of a call: names, versions, CNI_* variables, namespaces, results of earlier calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.faults.hostile_cases import (
    ALL_VERBS,
    ATTACHED,
    CHAINED,
    CONFIGS,
    EVERY,
    IPAM,
    OF_IPAM,
    Case,
    case,
    having,
    shown,
)

NAMES = (
    "../x", "..", ".", "/x", "x/y", "-x", ".x", "_x", " x", "x ", "x\n", "\nx", "x\ty", "x\x7f", "x\x85", "x\u2028", "ö", "x٣", "٣x", "ｘ",
    "x\r\neth0", "x:y", "x;y", "x$(id)", "x%d", "x*", "x\u0301", "\U0001f600",
)  # fmt: skip
IFNAMES = (
    "../x", "..", ".", "/x", "x/y", "x y", "x\n", "x\ty", "x\x7f", "x:y", "x%d", "%", "x" * 16, "x" * 300, "ö" * 8, "x\u2028", "\udcff",
    "x\x85", "\u200b", "x٣",
)  # fmt: skip
VERSIONS = ("9.9.9", "1.0", "1", "v1.0.0", "1.0.0\n", "1.0.0 ", "0.3.2", "٠.٣.٠", "x" * 300, "\ud800", "../1.0.0")
COMMANDS = (
    "", "add", "Add", "ADD ", " ADD", "ADD\n", "ADDX", "UPDATE", "GET", "\udcff", "ＡＤＤ", "x" * 300, "../ADD", "--help", "ADD;DEL", "0",
)  # fmt: skip
NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
}
FOR_PYTHON = {
    "PYTHONPATH": "/tmp", "PYTHONHOME": "/nowhere", "PYTHONINSPECT": "1", "PYTHONSTARTUP": "/etc/passwd", "PYTHONVERBOSE": "1",
    "PYTHONWARNINGS": "error", "PYTHONUTF8": "x", "PYTHONHASHSEED": "no", "PYTHONINTMAXSTRDIGITS": "1", "LC_ALL": "xx_XX.UTF-8",
}  # fmt: skip
# namespaces: the host's own, none at all, something else (made by the test)
OWN = (
    "/proc/self/ns/net",
    "/proc/thread-self/ns/net",
    "/proc/1/ns/net",
    "/proc/self/task/../ns/net",
    "/run/hostile/own",
)
NONE = ("/run/netns/none", "/run/hostile/file/x", "relative", "/run/netns/pod0\n", "\udcff")
OTHER = (
    "/run/hostile/file", "/run/hostile", "/run/hostile/fifo", "/run/hostile/loop", "/run/hostile/socket", "/proc/1/ns/mnt",
    "/proc/self/ns/pid", "/dev/null", "/dev/zero", "/", ".", "/" + "x" * 5000,
)  # fmt: skip

# plugins that accept any CNI_ARGS; vlan's IPAM plugin reads them, but only if the kernel has such links
ANY_ARGS = {"loopback", "dhcp", "vlan"}

IP = {"address": "10.8.0.5/24", "interface": 0}
ONE = [{"name": "eth0"}]
OLD = {"cniVersion": "0.2.0"}
RESULTS: tuple[Any, ...] = (
    1, "x", True, [], [{}], {"cniVersion": "9.9.9"}, {"cniVersion": 1}, {"cniVersion": []},
    {"interfaces": 1}, {"interfaces": {}}, {"interfaces": [1]}, {"interfaces": [None]}, {"interfaces": [{"name": 1}]},
    {"interfaces": [{"name": []}]}, {"interfaces": [ONE[0] | {"mtu": "x"}]}, {"interfaces": [ONE[0] | {"mtu": []}]},
    {"ips": "x"}, {"ips": [1]}, {"ips": [{}]}, {"ips": [{"address": 1}]}, {"ips": [{"address": "x"}]}, {"ips": [{"address": "10.8.0.5"}]},
    {"ips": [{"address": None}]}, {"ips": [IP | {"gateway": "x"}]}, {"ips": [IP | {"gateway": 1}]}, {"ips": [IP | {"gateway": {"a": 1}}]},
    {"interfaces": ONE, "ips": [IP | {"interface": 7}]}, {"interfaces": ONE, "ips": [IP | {"interface": -1}]},
    {"interfaces": ONE, "ips": [IP | {"interface": "0"}]}, {"interfaces": ONE, "ips": [IP | {"interface": True}]},
    {"interfaces": ONE, "ips": [IP | {"interface": 0.0}]},
    {"routes": 1}, {"routes": [1]}, {"routes": [{}]}, {"routes": [{"dst": "x"}]}, {"routes": [{"dst": 1}]},
    {"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}, {"routes": [{"dst": "0.0.0.0/0", "mtu": "x"}]},
    {"dns": 1}, {"dns": []}, {"dns": {"nameservers": 1}}, {"dns": {"domain": []}}, {"dns": {"search": [1]}},
    OLD | {"ip4": 1}, OLD | {"ip4": {}}, OLD | {"ip4": {"ip": 1}}, OLD | {"dns": 1}, OLD | {"ip4": {"ip": "10.8.0.5/24", "routes": 1}},
    OLD | {"ip4": {"ip": "10.8.0.5/24", "routes": {"a": 1}}}, OLD | {"ip4": {"ip": "10.8.0.5/24", "routes": [1]}},
)  # fmt: skip
ATTACHMENTS: tuple[Any, ...] = (
    None, 1, "x", True, {}, {"a": 1}, [1], [None], [[]], [{}], [{"containerID": 1, "ifname": "eth0"}], [{"containerID": "x"}],
    [{"ifname": "x"}], [{"containerID": "x", "ifname": None}],
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for plugin in EVERY:
        yield from _version_and_name(plugin)
        yield from _members(plugin)
        yield from _previous_results(plugin)
    for plugin in ("loopback", "bridge", "ptp", "host-local", "host-device"):  # the others read them by the same code
        yield from _names(plugin)
        yield from _variables(plugin)
        yield from _commands(plugin)
    for plugin in CONFIGS:
        if plugin not in ANY_ARGS:
            yield from _cni_args(plugin)
        if plugin != "loopback":
            yield from _attachments(plugin)
        if plugin not in OF_IPAM:
            yield from _namespaces(plugin)
    yield from _ipam_types()


def _version_and_name(plugin: str) -> Iterator[Case]:
    for value in VERSIONS:
        yield case(plugin, "ADD", f"cniVersion = {shown(value)}", having(plugin, cniVersion=value), 1)
    for wrong in (1, 1.1, True, [], ["1.0.0"], {"a": 1}):
        yield case(plugin, "ADD", f"cniVersion = {wrong}", having(plugin, cniVersion=wrong), 6, says="cniVersion")
    for verb, version in (("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")):
        yield case(plugin, verb, f"version {version}", having(plugin, cniVersion=version), 1)
    wrong_names: tuple[Any, ...] = (None, "", 1, True, 1.5, [], ["x"], {}, {"a": "b"}, "\ud800", "x\0", "x\0/y")
    for name in wrong_names:
        yield case(plugin, "ADD", f"name = {shown(name)}", having(plugin, name=name), 7, says="name")


def _members(plugin: str) -> Iterator[Case]:
    text = json.dumps(EVERY[plugin])
    yield case(plugin, "ADD", "keys twice", f'{{"cniVersion": "9.9.9", "name": 1, {text[1:]}', may_succeed=True)
    yield case(plugin, "ADD", "keys twice, the last bad", f'{text[:-1]}, "cniVersion": "9.9.9"}}', 1)
    nothing = dict.fromkeys(("type", "dns", "args", "runtimeConfig", "prevResult", "capabilities", "x"))
    yield case(plugin, "ADD", "null members", having(plugin, **nothing), 7, may_succeed=plugin not in CHAINED)
    yield case(plugin, "ADD", "all null", dict.fromkeys(EVERY[plugin]), 1, 7)
    yield case(plugin, "ADD", "no members", {}, 1, 7)
    strange = {"": 1, "\0": [], "\ud800": {"": None}}
    yield case(plugin, "ADD", "strange unknown keys", having(plugin, **strange), may_succeed=True)


def _names(plugin: str) -> Iterator[Case]:
    config = EVERY[plugin]
    verb = "DEL" if plugin == "host-local" else "ADD"
    for name in NAMES:
        yield case(plugin, verb, f"name {shown(name)}", having(plugin, name=name), 7, says="name")
    for name in (*NAMES, "x\udcff"):
        env = {"CNI_CONTAINERID": name}
        yield case(plugin, verb, f"container id {shown(name)}", config, 4, env=env, says="CNI_CONTAINERID")
    for name in IFNAMES:
        yield case(plugin, verb, f"ifname {shown(name)}", config, 4, env={"CNI_IFNAME": name}, says="CNI_IFNAME")
    long_name = having(plugin, **ATTACHED, name="n" * 300)
    for verb in ALL_VERBS:
        yield case(plugin, verb, "name of 300 characters", long_name, 5, 7, 50, 999, may_succeed=True)
    for length in (239, 255, 300, 4000):
        env = {"CNI_CONTAINERID": "c" * length}
        yield case(plugin, "ADD", f"container id of {length} characters", config, 4, may_succeed=True, env=env)


def _variables(plugin: str) -> Iterator[Case]:
    config = EVERY[plugin]
    for verb, variables in NEEDS.items():
        for variable in variables:
            for what, value in (("missing", None), ("empty", "")):
                yield case(plugin, verb, f"{variable} {what}", config, 4, env={variable: value}, says=variable)
    alone = dict.fromkeys({"CNI_COMMAND", *NEEDS["ADD"], "PATH"} - {"CNI_CONTAINERID"})
    yield case(plugin, "ADD", "container id alone", config, 4, env=alone, says="CNI_COMMAND")
    yield case(plugin, "ADD", "variables for Python", config, may_succeed=True, env=FOR_PYTHON)
    other = {"CNI_X": "\udcff", "X\u00e9": "\udcfe"}
    yield case(plugin, "ADD", "other bytes in the environment", config, may_succeed=True, env=other)


def _commands(plugin: str) -> Iterator[Case]:
    config = EVERY[plugin]
    for command in COMMANDS:
        yield case(plugin, command, f"command {shown(command)}", config, 4, says="CNI_COMMAND")
    yield case(plugin, "ADD", "command missing", config, 4, env={"CNI_COMMAND": None}, says="CNI_COMMAND")
    for stdin in (
        b"{",
        b"",
        b'{"cniVersion": "x"}',
        b"[]",
        b'{"cniVersion": 1}',
        b'{"cniVersion": []}',
        b"\xff\xfe{\0}\0",
    ):
        yield case(plugin, "VERSION", f"stdin {stdin!r}", stdin, 1, 6, may_succeed=True)


def _previous_results(plugin: str) -> Iterator[Case]:
    without_result = {key: value for key, value in EVERY[plugin].items() if key != "prevResult"}
    for value in RESULTS:
        name, config = f"prevResult = {json.dumps(value)[:90]}", having(plugin, prevResult=value)
        if plugin == "loopback":  # passes it on
            yield case(plugin, "ADD", name, config, 6)
        else:
            # bandwidth has nothing to look at where there is no limit
            yield case(plugin, "CHECK", name, config, 6, 7, 999, may_succeed=plugin == "bandwidth")
    for value in RESULTS[::6]:
        config = having(plugin, prevResult=value)
        yield case(plugin, "DEL", f"prevResult = {json.dumps(value)[:90]}", config, 6, may_succeed=True)
    yield case(plugin, "CHECK", "prevResult missing", without_result, 7, says="prevResult")
    yield case(plugin, "CHECK", "prevResult null", having(plugin, prevResult=None), 7, says="prevResult")


def _cni_args(plugin: str) -> Iterator[Case]:
    key = "IP" if plugin in (*OF_IPAM, "host-device") else "MAC"  # host-device asks IPAM alone
    bad = (
        "x", "=", "=x", ";", ";;x", "x=1", "x=1;IgnoreUnknown=0", "IgnoreUnknown=yes", "IgnoreUnknown=", "IgnoreUnknown=١", "IgnoreUnknown",
        f"{key}=x", f"{key}=\udcff", f"{key}=\n", f"{key}={'x' * 300}", f"IgnoreUnknown=1;{key}=1", f"IgnoreUnknown=1;{key}", f"{key}",
        f"{key.lower()}=x", f"IgnoreUnknown=1;{key}=02:00:00:00:00:0g", "ignoreunknown=1;x=1",
    )  # fmt: skip
    good = ("", "IgnoreUnknown=1;x=y=z", f"IgnoreUnknown=1;{key}=", "IgnoreUnknown=true;K8S_POD_NAME=" + "x" * 5000)
    for args in bad:
        env = {"CNI_ARGS": args}
        yield case(plugin, "ADD", f"CNI_ARGS {shown(args)}", CONFIGS[plugin], 4, env=env, says="CNI_ARGS")
    for args in good:
        yield case(plugin, "ADD", f"CNI_ARGS {shown(args)}", CONFIGS[plugin], may_succeed=True, env={"CNI_ARGS": args})


def _attachments(plugin: str) -> Iterator[Case]:
    key = "cni.dev/valid-attachments"
    yield case(plugin, "GC", "no list", CONFIGS[plugin], 7, says=key)
    for value in ATTACHMENTS:
        yield case(plugin, "GC", f"list {shown(value)}", having(plugin, **{key: value}), 7, says=key)


def _namespaces(plugin: str) -> Iterator[Case]:
    config = having(plugin, **ATTACHED)
    for code, paths in ((8, OWN), (3, NONE), (8, OTHER)):
        for path in paths:
            for verb in ("ADD", "CHECK", "DEL"):
                # to DEL, a pod is gone if its path leads nowhere, elsewhere or to the host's own namespace
                name, env = f"CNI_NETNS {shown(path)}", {"CNI_NETNS": path}
                yield case(plugin, verb, name, config, code, env=env, may_succeed=verb == "DEL", says="CNI_NETNS")


def _ipam_types() -> Iterator[Case]:
    wrong: tuple[Any, ...] = (1, True, ["host-local"], {"a": 1})
    for value in (*NAMES, *wrong, "nothing", "bridge/../host-local", "host-local/", "/bin/sh"):
        config = having("bridge", ipam={**IPAM, "type": value})
        yield case("bridge", "ADD", f"ipam.type = {shown(value)}", config, 7, says="ipam.type")
    for path in ("", "relative", ".", "::", ":relative:", "/does/not/exist", "/bin/sh", "/" + "x" * 5000, "/\udcff"):
        env = {"CNI_PATH": path}
        yield case("bridge", "ADD", f"CNI_PATH {shown(path)}", CONFIGS["bridge"], 7 if path else 4, env=env)
