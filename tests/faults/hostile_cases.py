"""The table of row 8: what no runtime should ever send, with what each plugin may answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ipam import host_local
from plugins import bridge
from shared.cni.config import Config, Kind
from tests.faults.batch import POD, Call

NETWORK = "hostile"
VERBS = ("ADD", "CHECK", "DEL")
ALL_VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")

IPAM: dict[str, Any] = {"type": "host-local", "subnet": "10.8.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
CONFIGS: dict[str, dict[str, Any]] = {
    "loopback": {"cniVersion": "1.1.0", "name": NETWORK, "type": "loopback"},
    "bridge": {"cniVersion": "1.1.0", "name": NETWORK, "type": "bridge", "isGateway": True, "ipam": IPAM},
    "host-local": {"cniVersion": "1.1.0", "name": NETWORK, "type": "bridge", "ipam": IPAM},
}
FULL = {
    **CONFIGS["bridge"],
    "isDefaultGateway": True,
    "forceAddress": False,
    "mtu": 1400,
    "hairpinMode": True,
    "vlan": 0,
    "vlanTrunk": [],
    "dns": {"nameservers": ["10.8.0.1"], "domain": "example.org", "search": ["example.org"], "options": ["ndots:5"]},
    "args": {"cni": {"mac": "02:00:00:00:00:01", "ips": ["10.8.0.9"]}},
    "runtimeConfig": {"mac": "02:00:00:00:00:02"},
    "ipam": {
        "type": "host-local",
        "ranges": [
            [{"subnet": "10.8.0.0/24", "rangeStart": "10.8.0.10", "rangeEnd": "10.8.0.99", "gateway": "10.8.0.1"}]
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.8.0.1"}, {"dst": "192.0.2.0/24"}],
        "dataDir": "/var/lib/cni/networks",
    },
}


@dataclass(frozen=True)
class Case:
    """A call and its right answers: the codes that fit (none: any of the specification's), whether success is one too.

    `says` has to stand in the error's text, white space aside. `mute`: stdout is closed or full, so nothing can be
    read there, and the status alone tells.
    """

    name: str
    call: Call
    codes: tuple[int, ...] = ()
    may_succeed: bool = False
    says: tuple[str, ...] = ()
    mute: bool = False


def cases() -> list[Case]:
    """All of them, each with a container id of its own."""
    table: list[Case] = []
    for make in (
        _documents, _truncated, _encodings, _declared_keys, _key_values, _protocol_keys, _names, _variables, _commands,
        _cni_args, _namespaces, _previous_results, _gc_lists, _standard_streams,
    ):  # fmt: skip
        table += make()
    return table


def _case(
    name: str,
    plugin: str,
    command: str,
    stdin: Any,
    *codes: int,
    may_succeed: bool = False,
    says: tuple[str, ...] = (),
    env: dict[str, str | None] | None = None,
    redirect: str = "",
    mute: bool = False,
) -> Case:
    call = Call(
        plugin,
        command,
        stdin,
        {"CNI_CONTAINERID": f"c{next(_numbers)}", **(env or {})},
        redirect,
        undo=command == "ADD",
    )
    return Case(f"{plugin} {command}: {name}", call, codes, may_succeed, says, mute)


def _count() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


_numbers = _count()


def _with(plugin: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {**CONFIGS[plugin], **changes}


def _spliced(plugin: str, key: str, raw: str) -> str:
    """The configuration with one more key whose value is written as it is, JSON or not."""
    return json.dumps(CONFIGS[plugin])[:-1] + f', "{key}": {raw}}}'


# -- documents


def _documents() -> Iterator[Case]:
    deep = 100_000
    for plugin in CONFIGS:
        good = json.dumps(CONFIGS[plugin])
        for verb in ALL_VERBS:
            documents = {
                "empty": "", "white space": " \n\t", "null": "null", "number": "1", "string": '"x"', "list": "[]",
                "list of the object": f"[{good}]", "true": "true", "not JSON": "bridge", "two documents": good + good,
                "comma after the last": good[:-1] + ",}", "single quotes": good.replace('"', "'"),
                "something behind": good + "x", "raw newline in a string": good.replace("hostile", "hos\ntile"),
                "raw NUL in a string": good.replace("hostile", "hos\0tile"), "comment": "// no\n" + good,
            }  # fmt: skip
            for name, text in documents.items() if verb == "ADD" else list(documents.items())[:8:2]:
                yield _case(name, plugin, verb, text, 6)
        for verb in ("ADD",):
            yield _case("nested lists", plugin, verb, [(b"[", deep), (b"]", deep)], 6)
            yield _case("nested objects", plugin, verb, [(b'{"a":', deep), (b"1", 1), (b"}", deep)], 6)
            inside = good[:-1].encode() + b', "x": '
            yield _case("nested in a key", plugin, verb, [(inside, 1), (b"[", deep), (b"]", deep), (b"}", 1)], 6)
            yield _case("nested and never closed", plugin, verb, [(b'[{"a":', deep)], 6)
        megabytes = 10 << 20
        yield _case("10 MB of white space", plugin, "ADD", [(b" ", megabytes), (good.encode(), 1)], may_succeed=True)
        yield _case(
            "10 MB in an unknown key",
            plugin,
            "ADD",
            [(inside + b'"', 1), (b"x", megabytes), (b'"}', 1)],
            may_succeed=True,
        )
        yield _case("10 MB of letters", plugin, "ADD", [(b"x", megabytes)], 6)
        yield _case("10 MB of NUL", plugin, "DEL", [(b"\0", megabytes)], 6)
        yield _case("10 MB of digits", plugin, "ADD", [(inside, 1), (b"9", megabytes), (b"}", 1)], 6)
        yield _case("more than can be a configuration", plugin, "ADD", [(b" ", 17 << 20), (good.encode(), 1)], 5)
        name = good.replace('"hostile"', '"').encode()
        start, _, end = name.partition(b'"name": "')
        big = [(start + b'"name": "', 1), (b"x", megabytes), (b'"' + end, 1)]
        yield _case("10 MB in the name", plugin, "ADD", big, 5, 7, may_succeed=plugin == "loopback")


def _truncated() -> Iterator[Case]:
    full = json.dumps(FULL)
    for end in range(1, len(full), 6):
        yield _case(f"cut after {end} bytes", "bridge", "ADD", full[:end], 6)
    for plugin in ("loopback", "host-local"):
        text = json.dumps(CONFIGS[plugin])
        for end in range(1, len(text), 11):
            yield _case(f"cut after {end} bytes", plugin, "ADD", text[:end], 6)
    text = json.dumps(CONFIGS["bridge"])
    for end in range(1, len(text), 25):
        yield _case(f"cut after {end} bytes", "bridge", "DEL", text[:end], 6)


def _encodings() -> Iterator[Case]:
    for plugin in CONFIGS:
        good = json.dumps(CONFIGS[plugin])
        hostile = {
            "UTF-8 with BOM": good.encode("utf-8-sig"),
            "UTF-16": good.encode("utf-16"),
            "UTF-16 LE": good.encode("utf-16-le"),
            "UTF-16 BE": good.encode("utf-16-be"),
            "UTF-32": good.encode("utf-32"),
            "lone continuation byte": good.encode().replace(b"hostile", b"hos\x80tile"),
            "Latin-1": good.encode().replace(b"hostile", b"h\xf6stile"),
            "overlong slash": good.encode().replace(b"hostile", b"hos\xc0\xaftile"),
            "surrogate in UTF-8": good.encode().replace(b"hostile", b"hos\xed\xa0\x80tile"),
            "beyond Unicode": good.encode().replace(b"hostile", b"hos\xf4\x90\x80\x80tile"),
            "cut character": good.encode()[:-1] + b', "x": "\xe2\x82',
            "bad byte behind": good.encode() + b"\xff",
        }
        for name, data in hostile.items():
            yield _case(name, plugin, "ADD", data, 6)
        for name in ("UTF-8 with BOM", "UTF-16", "Latin-1"):
            yield _case(name, plugin, "DEL", hostile[name], 6)


# -- keys


def declared(config: type[Config], path: str = "") -> Iterator[tuple[str, Kind, bool]]:
    """Path, kind and whether it is required, of every declared key; `[]` stands for an element of a list."""
    for name, entry in config.fields.items():
        here = f"{path}.{name}" if path else name
        yield here, entry.kind, entry.required
        schema, element = entry.kind.schema, here
        while schema.get("type") == "array":
            schema, element = schema["items"], f"{element}[]"
        if "config" in schema:
            yield from declared(schema["config"], element)


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value has the JSON type that the schema asks for (and a number its bounds): what to leave out here."""
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
    if kind == "string":  # which texts fit is asked elsewhere, but no bounded one is empty or has a space
        return isinstance(value, str) and (set(schema) == {"type"} or (bool(value) and " " not in value))
    return isinstance(value, {"boolean": bool, "object": dict}[kind])


NEIGHBOURS = {"ranges": {"subnet": "10.7.0.0/24"}, "ipRanges": {"subnet": "10.9.0.0/24"}}  # what such an element needs


def _holding(path: str, value: Any, base: dict[str, Any]) -> dict[str, Any]:
    """`base` with the value at a path, where `[]` makes a list of one."""
    name, _, rest = path.partition(".")
    bare = name.rstrip("[]")
    inner: Any = value if not rest else _holding(rest, value, NEIGHBOURS.get(bare, {}))
    if rest and name == bare and isinstance(base.get(bare), dict):
        inner = _holding(rest, value, base[bare])
    for _ in range((len(name) - len(bare)) // 2):
        inner = [inner]
    return {**base, bare: inner}


WRONG = ("", "a text", True, 0, 1.5, [], [None], [[]], {"a": 1}, 2**64)
WRONG_NUMBERS = (-1, 65536, 2**31, 2**32, 2**63, -(2**63), 10**30)
CONFIG_CLASSES = {"bridge": bridge.Config, "host-local": host_local.Config}


def _declared_keys() -> Iterator[Case]:
    for plugin, config in CONFIG_CLASSES.items():
        base = CONFIGS[plugin]
        if plugin == "bridge":
            base = {key: value for key, value in base.items() if key != "ipam"}
        for path, kind, required in declared(config):
            schema = kind.schema
            yield _case(
                f"{path} null", plugin, "ADD", _holding(path, None, base), 7, may_succeed=not required,
                says=(path,) if required and "[" not in path else (),
            )  # fmt: skip
            is_number = "integer" in json.dumps(schema, default=str)
            for value in (value for value in WRONG + WRONG_NUMBERS * is_number if not _fits(value, schema)):
                if value == "" and kind.empty_is_unset:
                    continue
                shown, where = _named(path, value, schema)
                yield _case(
                    f"{path} = {json.dumps(value)}", plugin, "ADD", _holding(path, value, base), 7, says=(where, shown)
                )
            last = json.dumps(_holding(path, "@", base))
            if schema.get("type") != "object":
                for raw in (
                    "NaN",
                    "-Infinity",
                    *(("Infinity", "1e", "01", "+1", "0x10", "True", "9" * 5000) if is_number else ()),
                ):
                    yield _case(f"{path} = {raw[:12]}", plugin, "ADD", last.replace('"@"', raw), 6)
                infinite = "1e400" if schema.get("type") != "array" else "[1e400]"
                yield _case(f"{path} = {infinite}", plugin, "ADD", last.replace('"@"', infinite), 7)


def _named(path: str, value: Any, schema: dict[str, Any]) -> tuple[str, str]:
    """The text of the first wrong value in a value, and the path to it."""
    where = path.replace("[]", "[0]")
    while schema.get("type") == "array" and isinstance(value, list):
        position = next(n for n, element in enumerate(value) if not _fits(element, schema["items"]))
        where, value, schema = f"{where}[{position}]", value[position], schema["items"]
    if isinstance(value, dict) and "config" in schema:
        return "", where
    return json.dumps(value)[:40] if value is not None else "", where


def _key_values() -> Iterator[Case]:
    """Values of the right type that cannot be used."""
    texts: dict[str, tuple[Any, ...]] = {
        "bridge": (
            "a/b", "..", ".", "x" * 16, "ü" * 8, "a b", "a:b", "a%d", "a\n", "br0\n", "\0", "\x7f", "\u2028", "\ud800",
            "x" * 300, "٣", "br\x85",
        ),
        "mtu": ("Auto", "auto ", "1500", "٣"),
        "ipMasqBackend": ("iptables ", "IPTABLES", "; rm -rf /", "x" * 300),
        "runtimeConfig.mac": (
            "02:00:00:00:00", "02:00:00:00:00:00:01", "02:00:00:00:00:0g", "٠٢:00:00:00:00:01", "020000000001",
            "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:00:00:00:01\n", "+2:00:00:00:00:01", "x" * 300,
        ),
        "args.cni.mac": ("02", "02:00:00:00:00: 1"),
        "ipMasq": (True,),
        "macspoofchk": (True,),
        "vlanTrunk": ([{"minID": 5}], [{"maxID": 5}], [{"minID": 9, "maxID": 5}], [{"id": 1}, {"id": 0}], [{"id": 4095}]),
        "dns": ({"nameservers": "x"}, {"domain": 1}, {"search": [1]}, {"options": {}}),
    }  # fmt: skip
    for key, values in texts.items():
        for value in values:
            config = _holding(key, value, {k: v for k, v in CONFIGS["bridge"].items() if k != "ipam"})
            code = 2 if key in ("ipMasq", "macspoofchk") else 7
            said = key.rpartition(".")[2]
            yield _case(f"{key} = {json.dumps(value)[:40]}", "bridge", "ADD", config, code, says=(said,))
    for changes in ({"hairpinMode": True, "promiscMode": True}, {"disableContainerInterface": True}):
        yield _case(f"{changes} together", "bridge", "ADD", _with("bridge", changes), 7, says=tuple(changes)[:1])

    addresses = (
        "10.8.0", "10.8.0.256", "10.8.0.1/24", "10.8.0.01x", "0x0a.8.0.1", "1", "10.8.0.1\n", " 10.8.0.1", "::g", "1::2::3",
        "fe80::1%eth0", "٣.8.0.1", "10.8.0.1\0", "x" * 300, "\ud800",
    )  # fmt: skip
    subnets = (
        "10.8.0.0", "10.8.0.0/33", "10.8.0.0/-1", "10.8.0.0/", "10.8.0.0/x", "10.8.0.0/24/24", "10.8.0.0/٢٤", "10.8.0.0/24\n",
        "10.8.0.1/24", "10.8.0.0/31", "10.8.0.0/32", "fd00::/127", "fd00::/129", "/24", "10.8.0.0/ 24", "10.8.0.0/+24", "x" * 300,
        "10.8.0.0/" + "9" * 300, "\ud800/24",
    )  # fmt: skip
    host_local_texts: dict[str, tuple[Any, ...]] = {
        "ipam.subnet": subnets,
        "ipam.rangeStart": (*addresses, "10.9.0.1", "fd00::1"),
        "ipam.rangeEnd": (*addresses[:4], "10.9.0.1", "fd00::1"),
        "ipam.gateway": addresses[:6],
        "ipam.ranges[][].subnet": subnets[:12],
        "runtimeConfig.ipRanges[][].subnet": subnets[:4],
        "args.cni.ips[]": ("10.8.0.300", "10.8.0.9/", "10.8.0.9/33", "\ud800"),
        "runtimeConfig.ips[]": ("10.8.0.300", "x"),
        "ipam.routes[]": (
            {}, {"dst": 1}, {"dst": "x"}, {"dst": "10.0.0.0/8", "gw": "x"}, {"dst": "10.0.0.0/8", "mtu": "1"},
            {"dst": "10.0.0.0/8", "priority": -1}, {"dst": "10.0.0.0/8", "table": 1.5}, {"dst": "10.0.0.0/8", "scope": True},
            {"dst": "10.0.0.0/8", "gw": 1}, {"dst": "10.0.0.0/8", "gw": ["x"]}, {"dst": "\ud800"},
        ),
        "ipam.resolvConf": ("relative", "/a/../b", "/does/not/exist", "/", "/etc/\0", "/etc/\ud800", "/" + "x" * 5000, "\ud800"),
    }  # fmt: skip
    for key, values in host_local_texts.items():
        for value in values:
            config = _holding(key, value, CONFIGS["host-local"])
            if key == "ipam.ranges[][].subnet":
                config["ipam"] = {"type": "host-local", "ranges": config["ipam"]["ranges"]}
            said = key.rpartition(".")[2].rstrip("[]")
            says = (
                ("ipam.subnet",)
                if key in ("ipam.rangeStart", "ipam.rangeEnd") and value in ("10.9.0.1", "fd00::1")
                else (said,)
            )
            yield _case(f"{key} = {json.dumps(value)[:40]}", "host-local", "ADD", config, 7, says=says)
            if isinstance(value, str) and key in ("ipam.subnet", "ipam.resolvConf"):
                yield _case(
                    f"{key} = {json.dumps(value)[:40]}",
                    "bridge",
                    "ADD",
                    _with("bridge", {"ipam": config["ipam"]}),
                    7,
                    says=says,
                )
    for value in (
        "relative",
        "",
        "/a/../b",
        "/x\0y",
        "/x\ud800y",
        "/dev/null",
        "/proc/x/y",
        "/etc/hostname/x",
        "/" + "x" * 5000,
    ):
        for verb in ALL_VERBS:
            config = _holding("ipam.dataDir", value, CONFIGS["host-local"])
            config |= {"prevResult": {"cniVersion": "1.1.0", "ips": []}, "cni.dev/valid-attachments": []}
            yield _case(
                f"ipam.dataDir = {json.dumps(value)[:40]}",
                "host-local",
                verb,
                config,
                5,
                7,
                50,
                999,
                may_succeed=verb != "ADD" or not value,
            )
    for name, ipam in {
        "no range": {"type": "host-local"},
        "empty set": {"type": "host-local", "ranges": [[]]},
        "sets overlap": {"type": "host-local", "ranges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "10.8.0.0/25"}]]},
        "ranges overlap": {"type": "host-local", "ranges": [[{"subnet": "10.8.0.0/24"}, {"subnet": "10.8.0.0/25"}]]},
        "families mixed": {"type": "host-local", "ranges": [[{"subnet": "10.8.0.0/24"}, {"subnet": "fd00::/64"}]]},
        "backwards": {"type": "host-local", "subnet": "10.8.0.0/24", "rangeStart": "10.8.0.9", "rangeEnd": "10.8.0.3"},
        "subnet missing": {"type": "host-local", "ranges": [[{"rangeStart": "10.8.0.9"}]]},
    }.items():
        for plugin in ("host-local", "bridge"):
            yield _case(f"ipam: {name}", plugin, "ADD", _with(plugin, {"ipam": ipam}), 7, says=("ipam",))
    for value in ("10.8.1.9", "10.8.0.1", "fd00::1"):
        config = _holding("args.cni.ips[]", value, CONFIGS["host-local"])
        yield _case(f"asks for {value}", "host-local", "ADD", config, 7, says=(value,))


def _protocol_keys() -> Iterator[Case]:
    """cniVersion, name, ipam.type; keys twice or in other cases."""
    for plugin in CONFIGS:
        for value in (
            "9.9.9",
            "1.0",
            "1",
            "v1.0.0",
            "1.0.0\n",
            "1.0.0 ",
            "0.3.2",
            "٠.٣.٠",
            "x" * 300,
            "\ud800",
            "../1.0.0",
        ):
            yield _case(
                f"cniVersion = {json.dumps(value)[:40]}", plugin, "ADD", _with(plugin, {"cniVersion": value}), 1
            )
        for wrong in (1, 1.1, True, [], ["1.0.0"], {"a": 1}):
            yield _case(
                f"cniVersion = {wrong}", plugin, "ADD", _with(plugin, {"cniVersion": wrong}), 6, says=("cniVersion",)
            )
        for wrong in (None, "", 1, True, 1.5, [], ["x"], {}, {"a": "b"}):
            yield _case(f"name = {wrong}", plugin, "ADD", _with(plugin, {"name": wrong}), 7, says=("name",))
        for verb, version in (("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")):
            yield _case(f"version {version}", plugin, verb, _with(plugin, {"cniVersion": version}), 1)
        twice = f'{{"cniVersion": "9.9.9", "name": 1, {json.dumps(CONFIGS[plugin])[1:]}'
        yield _case("keys twice", plugin, "ADD", twice, may_succeed=True)
        yield _case("keys twice, bad last", plugin, "ADD", _spliced(plugin, "cniVersion", '"9.9.9"'), 1)
        nothing = dict.fromkeys(("type", "dns", "args", "runtimeConfig", "prevResult", "capabilities", "x"), None)
        yield _case("null members", plugin, "ADD", _with(plugin, nothing), may_succeed=True)
        yield _case("all null", plugin, "ADD", dict.fromkeys(CONFIGS[plugin]), 7)
        yield _case("no members", plugin, "ADD", {}, 7)
        yield _case(
            "strange unknown keys",
            plugin,
            "ADD",
            _with(plugin, {"": 1, "\0": [], "\ud800": {"": None}}),
            may_succeed=True,
        )
    for value in (*NAMES, "nothing", "bridge/../host-local", "host-local/", "/bin/sh"):
        config = _with("bridge", {"ipam": {**IPAM, "type": value}})
        yield _case(f"ipam.type = {json.dumps(value)[:40]}", "bridge", "ADD", config, 7, says=("ipam.type",))
    for wrong in (1, True, ["host-local"], {"a": 1}):
        yield _case(
            f"ipam.type = {wrong}",
            "bridge",
            "ADD",
            _with("bridge", {"ipam": {**IPAM, "type": wrong}}),
            7,
            says=("ipam.type",),
        )
    for path in ("", "relative", ".", "::", ":relative:", "/does/not/exist", "/bin/sh", "/" + "x" * 5000, "/\udcff"):
        code = 4 if not path else 7
        yield _case(f"CNI_PATH={path[:40]!r}", "bridge", "ADD", CONFIGS["bridge"], code, env={"CNI_PATH": path})


NAMES = (
    "../x", "..", ".", "/x", "x/y", "-x", ".x", "_x", " x", "x ", "x\n", "\nx", "x\ty", "x\x7f", "x\x85", "x\u2028", "ö", "x٣", "٣x", "ｘ",
    "x\r\neth0", "x:y", "x;y", "x$(id)", "x%d", "x*", "x" + "\u0301", "\U0001f600",
)  # fmt: skip


def _names() -> Iterator[Case]:
    for plugin in CONFIGS:
        for name in NAMES:
            for verb in ("DEL",) if plugin == "host-local" else ("ADD",):
                shown = json.dumps(name)
                yield _case(f"name {shown}", plugin, verb, _with(plugin, {"name": name}), 7, says=("name",))
                yield _case(
                    f"container id {shown}",
                    plugin,
                    verb,
                    CONFIGS[plugin],
                    4,
                    env={"CNI_CONTAINERID": name},
                    says=("CNI_CONTAINERID",),
                )
        for name in ("", "\ud800", "x\0", "x\0/y"):
            yield _case(f"name {json.dumps(name)}", plugin, "ADD", _with(plugin, {"name": name}), 7, says=("name",))
        for ifname in (
            "../x", "..", ".", "/x", "x/y", "x y", "x\n", "x\ty", "x\x7f", "x:y", "x%d", "%", "x" * 16, "x" * 300, "ö" * 8, "x\u2028", "\udcff",
            "x\u0085", "\u200b",
        ):  # fmt: skip
            yield _case(
                f"ifname {ifname[:20]!r}",
                plugin,
                "ADD",
                CONFIGS[plugin],
                4,
                env={"CNI_IFNAME": ifname},
                says=("CNI_IFNAME",),
            )
        yield _case("container id not UTF-8", plugin, "ADD", CONFIGS[plugin], 4, env={"CNI_CONTAINERID": "x\udcff"})
        for verb in ALL_VERBS:
            long = {"prevResult": {"cniVersion": "1.1.0"}, "cni.dev/valid-attachments": [], "name": "n" * 300}
            yield _case("name of 300", plugin, verb, _with(plugin, long), 5, 7, 50, 999, may_succeed=True)
        for length in (239, 255, 300, 4000):
            yield _case(
                f"container id of {length}",
                plugin,
                "ADD",
                CONFIGS[plugin],
                may_succeed=True,
                env={"CNI_CONTAINERID": "c" * length},
            )


# -- variables


def _variables() -> Iterator[Case]:
    needs = {
        "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
        "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
        "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
        "GC": ("CNI_PATH",),
        "STATUS": ("CNI_PATH",),
    }
    for plugin in CONFIGS:
        for verb, variables in needs.items():
            for variable in variables:
                for name, value in (("missing", None), ("empty", "")):
                    yield _case(
                        f"{variable} {name}", plugin, verb, CONFIGS[plugin], 4, env={variable: value}, says=(variable,)
                    )
        nothing: dict[str, str | None] = dict.fromkeys(
            ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "PATH")
        )
        yield _case("no environment", plugin, "ADD", CONFIGS[plugin], 4, env=nothing, says=("CNI_COMMAND",))
        yield _case(
            "hostile Python environment", plugin, "ADD", CONFIGS[plugin], may_succeed=True,
            env={"PYTHONPATH": "/tmp", "PYTHONHOME": "/nowhere", "PYTHONINSPECT": "1", "PYTHONSTARTUP": "/etc/passwd",
                 "PYTHONVERBOSE": "1", "PYTHONWARNINGS": "error", "PYTHONUTF8": "x", "LC_ALL": "xx_XX.UTF-8",
                 "PYTHONHASHSEED": "no", "PYTHONINTMAXSTRDIGITS": "1", "LD_BIND_NOW": "1"},
        )  # fmt: skip
        yield _case(
            "other bytes in the environment",
            plugin,
            "ADD",
            CONFIGS[plugin],
            may_succeed=True,
            env={"CNI_X": "\udcff", "X\u00e9": "\udcfe"},
        )


def _commands() -> Iterator[Case]:
    for plugin in CONFIGS:
        for command in (
            "", "add", "Add", "ADD ", " ADD", "ADD\n", "ADDX", "UPDATE", "GET", "\udcff", "ＡＤＤ", "x" * 300, "../ADD", "--help", "ADD;DEL", "0",
        ):  # fmt: skip
            yield _case(f"command {command[:20]!r}", plugin, command, CONFIGS[plugin], 4, says=("CNI_COMMAND",))
        yield _case(
            "command missing", plugin, "ADD", CONFIGS[plugin], 4, env={"CNI_COMMAND": None}, says=("CNI_COMMAND",)
        )
        for name, text in {"garbage": "{", "empty": "", "unknown version": '{"cniVersion": "x"}', "list": "[]", "a number": '{"cniVersion": 1}',
                           "a list": '{"cniVersion": []}', "UTF-16": "{}".encode("utf-16")}.items():  # fmt: skip
            yield _case(f"stdin {name}", plugin, "VERSION", text, 1, 6, may_succeed=True)


def _cni_args() -> Iterator[Case]:
    for plugin in ("bridge", "host-local"):
        key = "MAC" if plugin == "bridge" else "IP"
        for args in (
            "x", "=", "=x", ";;x", "x=1", "x=1;IgnoreUnknown=0", "IgnoreUnknown=yes", "IgnoreUnknown=", "IgnoreUnknown=١", "IgnoreUnknown",
            f"{key}=x", f"{key}=\udcff", f"{key}=\n", f"{key}={'x' * 300}", f"IgnoreUnknown=1;{key}=1", f"IgnoreUnknown=1;{key}", f"{key}",
            f"{key.lower()}=x", f"IgnoreUnknown=1;{key}=02:00:00:00:00:0g", "ignoreunknown=1;x=1",
        ):  # fmt: skip
            yield _case(
                f"CNI_ARGS {args[:30]!r}", plugin, "ADD", CONFIGS[plugin], 4, env={"CNI_ARGS": args}, says=("CNI_ARGS",)
            )
        for args in (
            "",
            ";",
            "IgnoreUnknown=1;x=y=z",
            f"IgnoreUnknown=1;{key}=",
            "IgnoreUnknown=true;K8S_POD_NAME=" + "x" * 5000,
        ):
            yield _case(
                f"CNI_ARGS {args[:30]!r}", plugin, "ADD", CONFIGS[plugin], may_succeed=True, env={"CNI_ARGS": args}
            )


def _namespaces() -> Iterator[Case]:
    own = (
        "/proc/self/ns/net",
        "/proc/thread-self/ns/net",
        "/proc/1/ns/net",
        "/proc/self/task/../ns/net",
        "/run/hostile/own",
    )
    none = ("/run/netns/none", "/run/hostile/file/x", "relative", "/run/netns/pod0\n", "\udcff")
    other = (
        "/run/hostile/file", "/run/hostile", "/run/hostile/fifo", "/proc/1/ns/mnt", "/proc/self/ns/pid", "/dev/null", "/dev/zero", "/", ".",
        "/run/hostile/loop", "/run/hostile/socket", "/" + "x" * 5000,
    )  # fmt: skip
    for plugin in ("bridge", "loopback"):
        for code, paths in ((8, own), (3, none), (8, other)):
            for path in paths:
                for verb in VERBS:
                    # DEL has nothing to do where there is no such namespace, but the host's own is not "gone"
                    config = _with(plugin, {"prevResult": {"cniVersion": "1.1.0", "interfaces": [], "ips": []}})
                    yield _case(
                        f"CNI_NETNS {path[:40]!r}", plugin, verb, config, code, env={"CNI_NETNS": path},
                        may_succeed=verb == "DEL" and path not in own, says=("CNI_NETNS",),
                    )  # fmt: skip


def _previous_results() -> Iterator[Case]:
    ip = {"address": "10.8.0.5/24", "interface": 0}
    garbage: tuple[Any, ...] = (
        1, "x", True, [], [{}], {"cniVersion": "9.9.9"}, {"cniVersion": 1}, {"cniVersion": []}, {"interfaces": 1}, {"interfaces": {}},
        {"interfaces": [1]}, {"interfaces": [None]}, {"interfaces": [{"name": 1}]}, {"interfaces": [{"name": []}]},
        {"interfaces": [{"name": "eth0", "mtu": "x"}]}, {"interfaces": [{"name": "eth0", "mtu": []}]}, {"ips": "x"}, {"ips": [1]}, {"ips": [{}]},
        {"ips": [{"address": 1}]}, {"ips": [{"address": "x"}]}, {"ips": [{"address": "10.8.0.5"}]}, {"ips": [{"address": None}]},
        {"ips": [ip | {"gateway": "x"}]}, {"ips": [ip | {"gateway": 1}]}, {"ips": [ip | {"gateway": ["x"]}]}, {"ips": [ip | {"gateway": {"a": 1}}]},
        {"interfaces": [{"name": "eth0"}], "ips": [ip | {"interface": 7}]}, {"interfaces": [{"name": "eth0"}], "ips": [ip | {"interface": -1}]},
        {"interfaces": [{"name": "eth0"}], "ips": [ip | {"interface": "0"}]}, {"interfaces": [{"name": "eth0"}], "ips": [ip | {"interface": True}]},
        {"interfaces": [{"name": "eth0"}], "ips": [ip | {"interface": 0.0}]}, {"routes": 1}, {"routes": [1]}, {"routes": [{}]},
        {"routes": [{"dst": "x"}]}, {"routes": [{"dst": 1}]}, {"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]},
        {"routes": [{"dst": "0.0.0.0/0", "mtu": "x"}]}, {"dns": 1}, {"dns": []}, {"dns": {"nameservers": 1}}, {"dns": {"domain": []}},
        {"dns": {"search": [1]}}, {"cniVersion": "0.2.0", "ip4": 1}, {"cniVersion": "0.2.0", "ip4": {}}, {"cniVersion": "0.2.0", "ip4": {"ip": 1}},
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.8.0.5/24", "routes": 1}}, {"cniVersion": "0.2.0", "ip4": {"ip": "10.8.0.5/24", "routes": {"a": 1}}},
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.8.0.5/24", "routes": [1]}}, {"cniVersion": "0.2.0", "dns": 1},
    )  # fmt: skip
    for value in garbage:
        shown = json.dumps(value)[:70]
        for plugin in CONFIGS:
            config = _with(plugin, {"prevResult": value})
            # bridge and host-local ask for it on CHECK alone, loopback passes it on
            yield _case(f"prevResult = {shown}", plugin, "CHECK", config, 6, 7, 999, may_succeed=plugin == "loopback")
        yield _case(f"prevResult = {shown}", "loopback", "ADD", _with("loopback", {"prevResult": value}), 6, 7)
        yield _case(
            f"prevResult = {shown}", "bridge", "DEL", _with("bridge", {"prevResult": value}), 6, 7, may_succeed=True
        )
    for plugin in CONFIGS:
        yield _case("prevResult missing", plugin, "CHECK", CONFIGS[plugin], 7, says=("prevResult",))
        yield _case("prevResult null", plugin, "CHECK", _with(plugin, {"prevResult": None}), 7, says=("prevResult",))


def _gc_lists() -> Iterator[Case]:
    key = "cni.dev/valid-attachments"
    for plugin in ("bridge", "host-local"):
        yield _case("no list", plugin, "GC", CONFIGS[plugin], 7, says=(key,))
        for value in (
            None, 1, "x", True, {}, {"a": 1}, [1], [None], [[]], [{}], [{"containerID": 1, "ifname": "eth0"}], [{"containerID": "x"}],
            [{"ifname": "x"}], [{"containerID": "x", "ifname": None}],
        ):  # fmt: skip
            yield _case(f"list {json.dumps(value)}", plugin, "GC", _with(plugin, {key: value}), 7, says=(key,))


# -- stdin, stdout


def _standard_streams() -> Iterator[Case]:
    attached = {"prevResult": {"cniVersion": "1.1.0"}, "cni.dev/valid-attachments": []}
    for plugin in CONFIGS:
        for verb in (*ALL_VERBS, "VERSION"):
            for redirect in (">&-", ">/dev/full"):
                quiet = verb not in ("ADD", "VERSION")  # they have nothing to say where all is well
                yield _case(
                    redirect,
                    plugin,
                    verb,
                    _with(plugin, attached | {"name": "streams"}),
                    redirect=redirect,
                    mute=True,
                    may_succeed=quiet,
                )
            if verb != "VERSION":
                for redirect in ("<&-", "</dev/null", "</proc/self/mem"):
                    yield _case(redirect, plugin, verb, CONFIGS[plugin], 5, 6, redirect=redirect)
        yield _case("all closed", plugin, "ADD", CONFIGS[plugin], redirect="<&- >&- 2>&-", mute=True)
        yield _case("stderr closed", plugin, "ADD", CONFIGS[plugin], redirect="2>&-", may_succeed=True)
        yield _case("bad, stdout closed", plugin, "ADD", "{", redirect=">&-", mute=True)
