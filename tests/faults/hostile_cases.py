"""A case of row 8, and the working configurations from which the hostile ones are made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.executables import PLUGINS
from tests.faults.batch import Call
from tests.plugins import SAMPLES

ALL_VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
NETWORK = "hostile"

IPAM: dict[str, Any] = {"type": "host-local", "subnet": "10.8.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
HEADER: dict[str, Any] = {"cniVersion": "1.1.0", "name": NETWORK}
# those that make an interface or addresses themselves
CONFIGS: dict[str, dict[str, Any]] = {
    **{name: HEADER | sample.keys for name, sample in SAMPLES.items() if not sample.before},
    "bridge": HEADER | {"type": "bridge", "isGateway": True, "ipam": IPAM},
    "host-local": HEADER | {"type": "bridge", "ipam": IPAM},
}
# those that come after another one, with its result
BEHIND: dict[str, Any] = HEADER | {
    "prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod0"}],
        "ips": [{"address": "10.8.0.99/24", "interface": 0}],
    },
}  # fmt: skip
CHAINED: dict[str, dict[str, Any]] = {
    **{name: BEHIND | {"type": name} for name, sample in SAMPLES.items() if sample.before},
    "firewall": BEHIND | {"type": "firewall", "backend": "nftables"},
    "vrf": BEHIND | {"type": "vrf", "vrfname": "blue"},
}
# those that assign addresses, and do not open the pod's namespace
OF_IPAM = {name for name, module in PLUGINS.items() if module.startswith("ipam.")}
# those that change the interface at each ADD, which the pods of these cases do not have
CHANGING = {"sbr", "vrf"}
EVERY = CONFIGS | CHAINED
FULL: dict[str, Any] = {
    **CONFIGS["bridge"],
    "isDefaultGateway": True,
    "forceAddress": False,
    "severalGateways": False,
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
# the keys that CHECK and GC require
ATTACHED = {"prevResult": {"cniVersion": "1.1.0", "ips": []}, "cni.dev/valid-attachments": []}


@dataclass(frozen=True)
class Case:
    """A call and its right answers.

    `codes` are the fitting ones (none: any of the specification's), `may_succeed` says whether success is one too.
    `says` must be in the error's text, white space aside. `mute`: stdout is closed or full, so that only the status can
    be checked.
    """

    name: str
    call: Call
    codes: tuple[int, ...]
    may_succeed: bool
    says: tuple[str, ...]
    mute: bool


_numbers = itertools.count()


def case(
    plugin: str,
    verb: str,
    name: str,
    stdin: Any,
    *codes: int,
    may_succeed: bool = False,
    says: str | tuple[str, ...] = (),
    env: Mapping[str, str | None] = {},
    redirect: str = "",
    mute: bool = False,
) -> Case:
    """Make a case with a container id of its own; a DEL follows an ADD that succeeds."""
    variables = {"CNI_CONTAINERID": f"c{next(_numbers)}", **env}
    call = Call(plugin, verb, stdin, variables, redirect, undo=verb == "ADD")
    told = (says,) if isinstance(says, str) else says
    return Case(f"{plugin} {verb}: {name}", call, codes, may_succeed, told, mute)


def having(plugin: str, **changes: Any) -> dict[str, Any]:
    """Return a working configuration with some keys set."""
    return {**EVERY[plugin], **changes}


def shown(value: Any) -> str:
    """Return a value as a part of a case's name."""
    return json.dumps(value)[:60]
