"""Row 8, the keys of a configuration: each declared key with values of the wrong type, and other unusable values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shared.cli.config import schema
from shared.cni.config import Config, Kind
from shared.executables import PLUGINS
from tests.faults.hostile_cases import (
    ALL_VERBS,
    ATTACHED,
    CHAINED,
    CONFIGS,
    HEADER,
    IPAM,
    OF_IPAM,
    Case,
    case,
    having,
    shown,
)

WRONG: tuple[Any, ...] = ("", "a text", True, 0, 1.5, [], [None], {"a": 1})
WRONG_NUMBERS: tuple[Any, ...] = (-1, 65536, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30)
NO_NUMBERS = ("Infinity", "1e", "01", "+1", "0x10", "True", "9" * 5000)
PORT: dict[str, Any] = {"hostPort": 8080, "containerPort": 80}
# the required keys of such an element
NEIGHBOURS: dict[str, dict[str, Any]] = {
    "ranges": {"subnet": "10.7.0.0/24"},
    "ipRanges": {"subnet": "10.9.0.0/24"},
    "portMappings": PORT,
    "addresses": {"address": "10.8.0.5/24"},
    "provide": {"option": 12},
}
AT_LAYER_2 = {name: {key: value for key, value in config.items() if key != "ipam"} for name, config in CONFIGS.items()}
BEHIND: dict[str, Any] = HEADER | {
    "prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod0"}],
        "ips": [{"address": "10.8.0.99/24", "interface": 0}, {"address": "fd00:8::99/64", "interface": 0}],
    },
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    **AT_LAYER_2,
    "host-local": CONFIGS["host-local"],
    "static": CONFIGS["static"],
    **{name: BEHIND | {"type": name} for name in CHAINED},
    "portmap": BEHIND | {"type": "portmap", "runtimeConfig": {"portMappings": [PORT]}},
    "vrf": BEHIND | {"type": "vrf", "vrfname": "blue"},
}
DECLARED = {name: (keys, BASES[name]) for name in PLUGINS if (keys := schema.keys_of(name))}


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for plugin, (config, base) in DECLARED.items():
        for path, kind, required in declared(config):
            yield from _wrong(plugin, base, path, kind, required)
    yield from _values_of_main_plugins()
    yield from _contradictions_of_bridge()
    yield from _values_of_host_local()
    yield from _values_behind()
    yield from _data_directories()
    yield from _ranges()


def declared(config: type[Config], path: str = "") -> Iterator[tuple[str, Kind, bool]]:
    """Yield path, kind and whether it is required, of every declared key; `[]` stands for an element of a list."""
    for name, entry in config.fields.items():
        here = f"{path}.{name}" if path else name
        yield here, entry.kind, entry.required
        schema, element = entry.kind.schema, here
        while schema.get("type") == "array":
            schema, element = schema["items"], f"{element}[]"
        if "config" in schema:
            yield from declared(schema["config"], element)


def holding(path: str, value: Any, base: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the value at a path, where `[]` makes a list of one."""
    name, _, rest = path.partition(".")
    bare = name.rstrip("[]")
    inner: Any = value
    if rest and name == bare and isinstance(base.get(bare), dict):
        inner = holding(rest, value, base[bare])
    elif rest:
        inner = holding(rest, value, NEIGHBOURS.get(bare, {}))
    for _ in range((len(name) - len(bare)) // 2):
        inner = [inner]
    return {**base, bare: inner}


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """Return True if a value has the schema's JSON type, and a number the schema's bounds."""
    if "anyOf" in schema:
        return any(_fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if kind == "array":
        return isinstance(value, list) and all(_fits(element, schema["items"]) for element in value)
    if kind == "integer":
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and schema["minimum"] <= value <= schema["maximum"]
    if kind == "string":  # which texts fit is asked below, but none with a form of its own is empty or has a blank
        return isinstance(value, str) and (set(schema) == {"type"} or (bool(value) and " " not in value))
    return isinstance(value, {"boolean": bool, "object": dict}[kind])


def _wrong(plugin: str, base: dict[str, Any], path: str, kind: Kind, required: bool) -> Iterator[Case]:
    """Yield cases of one key with each wrong value; the error names the key and shows the value."""
    schema = kind.schema
    yield case(plugin, "ADD", f"{path} null", holding(path, None, base), 7, may_succeed=not required)
    is_number = "integer" in json.dumps(schema, default=str)
    for value in WRONG + (WRONG_NUMBERS if is_number else ()):
        if not _fits(value, schema) and not (value == "" and kind.empty_is_unset):
            config = holding(path, value, base)
            yield case(plugin, "ADD", f"{path} = {shown(value)}", config, 7, says=_told(path, value, schema))
    if schema.get("type") != "object":
        text = json.dumps(holding(path, "@", base))
        for raw in ("NaN", "-Infinity", *(NO_NUMBERS if is_number else ())):
            yield case(plugin, "ADD", f"{path} = {raw[:12]}", text.replace('"@"', raw), 6)
        infinite = "[1e400]" if schema.get("type") == "array" else "1e400"
        yield case(plugin, "ADD", f"{path} = {infinite}", text.replace('"@"', infinite), 7)


def _told(path: str, value: Any, schema: dict[str, Any]) -> tuple[str, ...]:
    """Return the path to the first wrong value inside a value, and that value."""
    where = path.replace("[]", "[0]")
    while schema.get("type") == "array" and isinstance(value, list):
        position = next(n for n, element in enumerate(value) if not _fits(element, schema["items"]))
        where, value, schema = f"{where}[{position}]", value[position], schema["items"]
    if value is None or (isinstance(value, dict) and "config" in schema):
        return (where,)
    return where, json.dumps(value)[:40]


# -- values of the right type

LINK_NAMES = (
    "a/b", "..", ".", "x" * 16, "ü" * 8, "a b", "a:b", "a%d", "a\n", "br0\n", "\0", "\x7f", "\u2028", "\ud800", "x" * 300, "٣", "br\x85",
)  # fmt: skip
MACS = (
    "02:00:00:00:00", "02:00:00:00:00:00:01", "02:00:00:00:00:0g", "٠٢:00:00:00:00:01", "020000000001", "01:00:5e:00:00:01",
    "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:00:00:00:01\n", "+2:00:00:00:00:01", "x" * 300,
)  # fmt: skip
TRUNKS = ([{"minID": 5}], [{"maxID": 5}], [{"minID": 9, "maxID": 5}], [{"id": 1}, {"id": 0}], [{"id": 4095}])
ADDRESSES = (
    "10.8.0", "10.8.0.256", "10.8.0.1/24", "0x0a.8.0.1", "1", "10.8.0.1\n", " 10.8.0.1", "::g", "1::2::3", "fe80::1%eth0", "٣.8.0.1",
    "10.8.0.1\0", "x" * 300, "\ud800",
)  # fmt: skip
SUBNETS = (
    "10.8.0.0", "10.8.0.0/33", "10.8.0.0/-1", "10.8.0.0/", "10.8.0.0/x", "10.8.0.0/24/24", "10.8.0.0/٢٤", "10.8.0.0/24\n", "10.8.0.1/24",
    "10.8.0.0/31", "10.8.0.0/32", "fd00::/127", "fd00::/129", "/24", "10.8.0.0/ 24", "10.8.0.0/+24", "x" * 300, "10.8.0.0/" + "9" * 300,
    "\ud800/24",
)  # fmt: skip
TO_TEN = {"dst": "10.0.0.0/8"}
ROUTES: tuple[dict[str, Any], ...] = (
    {}, {"dst": 1}, {"dst": "x"}, {"dst": "\ud800"}, TO_TEN | {"gw": "x"}, TO_TEN | {"gw": 1}, TO_TEN | {"gw": ["x"]}, TO_TEN | {"mtu": "1"},
    TO_TEN | {"priority": -1}, TO_TEN | {"table": 1.5}, TO_TEN | {"scope": True}, TO_TEN | {"table": 2**32}, TO_TEN | {"mtu": 2**64},
)  # fmt: skip
FILES = ("relative", "/a/../b", "/does/not/exist", "/", "/etc/\0", "/etc/\ud800", "/" + "x" * 5000, "\ud800")
DIRECTORIES = (
    "relative",
    "",
    "/a/../b",
    "/x\0y",
    "/x\ud800y",
    "/dev/null",
    "/proc/x/y",
    "/etc/hostname/x",
    "/" + "x" * 5000,
)

OF_MAIN_PLUGINS: dict[str, tuple[Any, ...]] = {
    "bridge": LINK_NAMES,
    "mtu": ("Auto", "auto ", "1500", "٣"),
    "ipMasqBackend": ("iptables ", "IPTABLES", "; rm -rf /", "x" * 300),
    "nonMasqueradeCIDRs": ("10.0.0.0/8", ["10.0.0.0"], ["10.0.0.0/8; drop"], ["::/129"], [""], [8], ["\ud800/8"]),
    "runtimeConfig.mac": MACS,
    "args.cni.mac": ("02", "02:00:00:00:00: 1"),
    "vlanTrunk": TRUNKS,
    "device": LINK_NAMES,
    "hwaddr": MACS,
    "kernelpath": ("/etc", "/sys/devices", "/sys/devices/../class/net/lo", "relative", "/sys/devices/x\0y"),
    "pciBusID": (["0000:01:00.0"], "..", "../net", "a/b", "0000:01:00.0,0000:01:00.1", "\ud800", "x" * 300),
    "runtimeConfig.deviceID": ("..", "a/b", "x y", "\n"),
    "owner": (-1, 2**32 - 1, "0", True, 1.5),
    "group": (-1, 2**32 - 1, "0"),
    "dns": ({"nameservers": "x"}, {"domain": 1}, {"search": [1]}, {"options": {}}),
}
OF_HOST_LOCAL: dict[str, tuple[Any, ...]] = {
    "ipam.subnet": SUBNETS,
    "ipam.rangeStart": ADDRESSES,
    "ipam.rangeEnd": ADDRESSES[:4],
    "ipam.gateway": ADDRESSES[:6],
    "ipam.ranges[][].subnet": SUBNETS[:12],
    "runtimeConfig.ipRanges[][].subnet": SUBNETS[:4],
    "args.cni.ips[]": ("10.8.0.300", "10.8.0.9/", "10.8.0.9/33", "\ud800"),
    "runtimeConfig.ips[]": ("10.8.0.300", "x"),
    "ipam.routes[]": ROUTES,
    "ipam.resolvConf": FILES,
}


CHAINS = ("a b", "-j", "!", "X\n-F", 'X"Y', "X;Y", "x" * 29, "ü", "\0", "\ud800", "X -j ACCEPT")
CONDITIONS = (
    ["-j"], ["-j", "ACCEPT"], ["-d", "192.0.2.0/24", "-j", "ACCEPT"], ["-d", "192.0.2.0/24\nCOMMIT\n*filter\n-P INPUT DROP"], ["-A", "OUTPUT"], ["-d"], ["!"],
    ["-i", 'x"', "-j"], ["-i", "e+h"], ["-i", "a/b"], ["-m", "comment"], ["-s", "::/0"], ["-s", "10.0.0.0/33"], ["-s", "$(reboot)"], ["tcp dport 22 accept"],
    ["ip saddr 10.0.0.0/8; flush ruleset"], ["-i", "\ud800"], ["\0"], ["-s", "\u0661.2.3.4"], ["-i", "x" * 300],
    ["-m", "mark", "--mark", "1", "-j", "ACCEPT"], ["-m", "mark", "--mark", "1 -j ACCEPT"], ["-m", "mark", "--mark", "1\nCOMMIT\n*filter\n-P INPUT DROP\nCOMMIT"],
    ["-m", "mark", "--mark", "1", "--ju", "ACCEPT"], ["-m", "mark", "--jump=ACCEPT"], ["-m", "comment", "--comment", "-jACCEPT"],
    ["-m", "../../tmp/evil"], ["--modprobe=/bin/reboot"], ["-m", "mark", "--modp", "/bin/reboot"], ["-m", "mark", "--mark", "1", "!"], ["-t", "filter"], ["--tab=filter"],
    ["-m", "comment", "--comment", "x\0-j"], ["-m", "comment", "--comment"], ["-4"], ["-m", "mark", "-c", "1", "1"], ["--"], ["-s", "10.0.0.0/255.0.255.0"],
)  # fmt: skip
OF_OTHERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "portmap": {
        "backend": ("IPTABLES", "iptables ", "ipvs", "; reboot"),
        "externalSetMarkChain": CHAINS,
        "conditionsV4": CONDITIONS,
        "conditionsV6": (["-d", "192.0.2.0/24"], ["ip saddr 10.0.0.0/8"], *CONDITIONS[:5]),
        "runtimeConfig.portMappings[].protocol": ("icmp", "tcp udp", "tcp\n", "tcp -j ACCEPT", "\ud800", "x" * 300),
        "runtimeConfig.portMappings[].hostIP": (*ADDRESSES, "192.0.2.99", "::1", "224.0.0.1", "10.8.0.1 -j ACCEPT"),
    },
    "bandwidth": {
        "ingressRate": (7,), "egressBurst": (2**35,), "runtimeConfig.bandwidth.egressRate": (7,),
        "shapedSubnets": (["10.0.0.0"], ["10.0.0.0/33"], ["10.0.0.0/-1"], ["x; reboot"], ["::/129"], ["10.0.0.0/8\n"]),
    },
    "firewall": {"iptablesAdminChainName": (*CHAINS, "ACCEPT", "CNI-FORWARD"), "ingressPolicy": ("Open", "same-bridge ")},
    "tuning": {
        "mac": MACS,
        "sysctl": ({"net.ipv4.conf/../../kernel.x": "1"}, {"kernel.hostname": "x"}, {"net.x": 1}, {"net.ipv4.ip_forward\n": "1"}, {"": "1"}),
        "dataDir": ("relative", "/a/../b", "/x\0y"),
    },
    "static": {
        "ipam.addresses[].address": ("10.8.0.0/24", "10.8.0.255/24", "224.0.0.1/24", "10.8.0.5", "10.8.0.5/33", "fd00::/64"),
        "ipam.addresses[].gateway": (*ADDRESSES, "10.9.0.1"),
        "ipam.gateways": (["10.8.0.1", "10.8.0.2"], ["x"], ["10.8.0.0/24"]),
        "runtimeConfig.ips": (["10.9.0.9"], ["10.9.0.0/24"], ["x; reboot"], [""]),
    },
    "sbr": {"table": (253, 254, 255), "gateways": (["10.8.0.1", "10.8.0.2"], ["x"], ["10.8.0.0/24"])},
    "vrf": {"table": (253, 254, 255), "vrfname": ("", "a/b", "..", "x" * 16, "a b", "a%d")},
}  # fmt: skip


def _values_behind() -> Iterator[Case]:
    """Yield cases of plugins that come after another one; of portmap with each backend."""
    for plugin, keys in OF_OTHERS.items():
        for key, values in keys.items():
            for value in values:
                config = holding(key, value, DECLARED[plugin][1])
                if plugin == "portmap" and key != "backend":
                    yield case(
                        plugin,
                        "ADD",
                        f"{key} = {shown(value)}, iptables",
                        config | {"backend": "iptables"},
                        7,
                        says=key.rpartition(".")[2],
                    )
                yield case(plugin, "ADD", f"{key} = {shown(value)}", config, 7, says=key.rpartition(".")[2])


def _values_of_main_plugins() -> Iterator[Case]:
    for plugin, base in AT_LAYER_2.items():
        keys = schema.keys_of(plugin) if plugin not in OF_IPAM else None
        for key, values in OF_MAIN_PLUGINS.items():
            for value in values if keys and _is_declared(keys, key) else ():
                config = holding(key, value, base)
                yield case(plugin, "ADD", f"{key} = {shown(value)}", config, 7, says=key.rpartition(".")[2])


def _is_declared(keys: type[Config], path: str) -> bool:
    """Return True if a class of keys, or a section of it, has the key."""
    name, _, rest = path.partition(".")
    if name not in keys.fields or not rest:
        return name in keys.fields
    return _is_declared(keys.fields[name].kind.schema["config"], rest)


def _contradictions_of_bridge() -> Iterator[Case]:
    nothing_masqueraded = having("bridge", nonMasqueradeCIDRs=["10.0.0.0/8"])
    yield case("bridge", "ADD", "nonMasqueradeCIDRs alone", nothing_masqueraded, 7, says="nonMasqueradeCIDRs")
    both = having("bridge", hairpinMode=True, promiscMode=True)
    yield case("bridge", "ADD", "hairpinMode and promiscMode", both, 7, says="hairpinMode")
    down = having("bridge", disableContainerInterface=True)
    yield case("bridge", "ADD", "disableContainerInterface and ipam", down, 7, says="disableContainerInterface")


def _values_of_host_local() -> Iterator[Case]:
    for key, values in OF_HOST_LOCAL.items():
        for value in values:
            config = holding(key, value, CONFIGS["host-local"])
            if key == "ipam.ranges[][].subnet":
                config["ipam"] = {"type": "host-local", "ranges": config["ipam"]["ranges"]}
            name = f"{key} = {shown(value)}"
            key_itself = key.rpartition(".")[2].rstrip("[]")
            yield case("host-local", "ADD", name, config, 7, says=key_itself)
            if key in ("ipam.subnet", "ipam.resolvConf"):
                yield case("bridge", "ADD", name, having("bridge", ipam=config["ipam"]), 7, says=key_itself)
    for value in ("10.8.1.9", "10.8.0.1", "fd00::1"):
        config = holding("args.cni.ips[]", value, CONFIGS["host-local"])
        yield case("host-local", "ADD", f"asks for {value}", config, 7, says=value)


def _data_directories() -> Iterator[Case]:
    for value in DIRECTORIES:
        for verb in ALL_VERBS:
            config = having("host-local", ipam={**IPAM, "dataDir": value}, **ATTACHED)
            may_succeed = verb != "ADD" or not value
            yield case("host-local", verb, f"dataDir = {shown(value)}", config, 5, 7, 50, 999, may_succeed=may_succeed)


def _ranges() -> Iterator[Case]:
    one, part, six = {"subnet": "10.8.0.0/24"}, {"subnet": "10.8.0.0/25"}, {"subnet": "fd00::/64"}
    hostile: dict[str, dict[str, Any]] = {
        "no range": {},
        "empty set": {"ranges": [[]]},
        "sets overlap": {"ranges": [[one], [part]]},
        "ranges overlap": {"ranges": [[one, part]]},
        "families mixed": {"ranges": [[one, six]]},
        "backwards": one | {"rangeStart": "10.8.0.9", "rangeEnd": "10.8.0.3"},
        "start outside": one | {"rangeStart": "10.9.0.1"},
        "end of the other family": one | {"rangeEnd": "fd00::1"},
        "subnet missing": {"ranges": [[{"rangeStart": "10.8.0.9"}]]},
    }
    for name, ipam in hostile.items():
        for plugin in ("host-local", "bridge"):
            config = having(plugin, ipam={"type": "host-local", **ipam})
            yield case(plugin, "ADD", f"ipam: {name}", config, 7, says="ipam")
