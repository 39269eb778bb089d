"""The table of a runtime's calls to each plugin, as data.

The reference here is v1.1.1 (specification up to 1.0.0); the system tests cover keys that are newer (vlanTrunk,
preserveDefaultVlan, portIsolation, enabledad, disableContainerInterface, mtu "auto").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.conformance.compare import Case, Step

Config = Mapping[str, Any]
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")
WITH_CHECK = ("0.4.0", "1.0.0")
MAC, MAC2, MAC3 = "0a:58:0a:01:00:11", "0a:58:0a:01:00:22", "0a:58:0a:01:00:33"
V4, V6 = "10.1.0.0/24", "fd00:1::/64"
NO_CONFIG = (
    "",
    "{",
    "[",
    "null",
    "[]",
    '"x"',
    "1",
    "{}",
    '{"name":',
    '{"name":"net",}',
    "{'name':1}",
    '{"name":1}',
    "\ufeff{}",
)
K8S = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c-a"


def net(plugin: str, **keys: Any) -> dict[str, Any]:
    """Return a configuration as a runtime hands it over."""
    return {"cniVersion": "1.0.0", "name": "net", "type": plugin, **keys}


def pool(*sets: Any, **keys: Any) -> dict[str, Any]:
    """Return an ipam section of host-local: a subnet, a range or a list of them for each range set."""
    ranges = [[{"subnet": one} if isinstance(one, str) else one] if not isinstance(one, list) else one for one in sets]
    return {"type": "host-local", **({"ranges": ranges} if ranges else {}), **keys}


def local(*sets: Any, top: Config | None = None, **keys: Any) -> dict[str, Any]:
    """Return a configuration of host-local called on its own."""
    return net("host-local", ipam=pool(*sets, **keys), **(top or {}))


def br(*sets: Any, ipam: Config | None = None, **keys: Any) -> dict[str, Any]:
    """Return a bridge with host-local on 10.1.0.0/24, unless the keys differ."""
    return net("bridge", bridge="cni0", ipam=pool(*(sets or (V4,))) if ipam is None else ipam, **keys)


def no_ipam(**keys: Any) -> dict[str, Any]:
    """Return a bridge at layer 2 only."""
    return net("bridge", bridge="cni0", **keys)


def add(config: Config | str, **keys: Any) -> Step:
    """Return an ADD."""
    return Step(verb="ADD", config=config, **keys)


def check(config: Config | str, **keys: Any) -> Step:
    """Return a CHECK with ADD's answer."""
    return Step(verb="CHECK", config=config, **{"previous": True, **keys})


def delete(config: Config | str, **keys: Any) -> Step:
    """Return a DEL without prevResult, as it comes after a crash."""
    return Step(verb="DEL", config=config, **keys)


def version(plugin: str, config: Config | str) -> Step:
    """Return a VERSION."""
    return Step(verb="VERSION", plugin=plugin, config=config)


def refused(config: Config | str, **keys: Any) -> list[Step]:
    """Return an ADD that must fail."""
    return [add(config, fails=True, **keys)]


def life(config: dict[str, Any], **keys: Any) -> list[Step]:
    """Return ADD, CHECK if the version has it, and DEL."""
    checks = [check(config, **keys)] if config["cniVersion"] in WITH_CHECK else []
    return [add(config, **keys), *checks, delete(config, **keys)]


def loopback_cases() -> dict[str, list[Step]]:
    """Return loopback's cases: every version, prevResult, missing and empty netns, broken things."""
    lo = net("loopback")
    given = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": "<netns a>"}],
        "ips": [{"address": "10.9.9.9/24", "gateway": "10.9.9.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["9.9.9.9"]},
    }
    cases = {f"version {v}": life({**lo, "cniVersion": v}, ifname="lo") for v in VERSIONS}
    cases |= {
        "VERSION": [version("loopback", {"cniVersion": "1.0.0"}), version("loopback", {"cniVersion": "0.3.1"})],
        "version absent": life({**lo, "cniVersion": ""}, ifname="lo"),
        "version unknown": refused({**lo, "cniVersion": "9.9.9"}, ifname="lo"),
        "other ifname": life(lo, ifname="eth0"),
        "prevResult returned": [add({**lo, "prevResult": given}, ifname="lo")],
        "prevResult 0.4.0": [
            add(
                {
                    **lo,
                    "cniVersion": "0.4.0",
                    "prevResult": {
                        **given,
                        "cniVersion": "0.4.0",
                        "ips": [{"version": "4", "address": "10.9.9.9/24", "interface": 0}],
                    },
                },
                ifname="lo",
            )
        ],
        "DEL netns gone": [delete(lo, pod="gone", ifname="lo")],
        "DEL netns empty": [delete(lo, pod="", id="x", ifname="lo")],
        "DEL twice": [add(lo, ifname="lo"), delete(lo, ifname="lo"), delete(lo, ifname="lo")],
        "ADD twice": [add(lo, ifname="lo"), add(lo, ifname="lo")],
        "ADD netns gone": refused(lo, pod="gone", ifname="lo"),
        "ADD netns empty": refused(lo, pod="", id="x", ifname="lo"),
        "ADD lo has other address": [
            add(lo, ifname="lo", fails=True, before="pod a ip link set lo up; pod a ip addr add 10.2.2.2/32 dev lo")
        ],
        "CHECK lo down": [add(lo, ifname="lo"), check(lo, ifname="lo", fails=True, before="pod a ip link set lo down")],
        "CHECK without prevResult": [add(lo, ifname="lo"), check(lo, ifname="lo", previous=False)],
        "CHECK 0.3.1": [check({**lo, "cniVersion": "0.3.1"}, ifname="lo", previous=False, fails=True)],
        "CNI_IFNAME missing": refused(lo, env={"CNI_IFNAME": None}),
        "CNI_CONTAINERID missing": refused(lo, env={"CNI_CONTAINERID": None}),
        "CNI_CONTAINERID invalid": refused(lo, id="../x", ifname="lo"),
        "CNI_COMMAND unknown": [Step(verb="FROB", config=lo, fails=True)],
        "name missing": refused({"cniVersion": "1.0.0", "type": "loopback"}, ifname="lo"),
        "name invalid": refused({**lo, "name": "a/b"}, ifname="lo"),
    }
    for text in NO_CONFIG:
        cases[f"stdin is {text or 'empty'}"] = refused(text, plugin="loopback", ifname="lo")
    return cases


def host_local_cases() -> dict[str, list[Step]]:
    """Return host-local's cases on its own: addresses, answers, files."""
    one = local(V4)
    tiny = local("10.1.0.0/29")  # .1 is the gateway, .2 to .6 are free
    dual = local(V4, V6)
    five = [add(tiny, pod=pod) for pod in "abcde"]
    old = {"cniVersion": "1.0.0", "name": "net", "type": "host-local"}
    store = "/var/lib/cni/networks/net"
    given = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}
    cases = {f"version {v}": life({**one, "cniVersion": v}) for v in VERSIONS}
    cases |= {f"dual stack version {v}": life({**dual, "cniVersion": v}) for v in VERSIONS}
    cases |= {
        f"routes version {v}": [
            add(
                local(
                    V4,
                    V6,
                    top={"cniVersion": v},
                    routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.1.0.77"}, {"dst": "::/0"}],
                )
            )
        ]
        for v in VERSIONS
    }
    cases |= {
        "VERSION": [version("host-local", {"cniVersion": "1.0.0"})],
        "subnet at the top": life({**old, "ipam": {"type": "host-local", "subnet": V4}}),
        "subnet and ranges": [add(local(V6, subnet=V4))],
        "flat range": [
            add(
                {
                    **old,
                    "ipam": {
                        "type": "host-local",
                        "subnet": V4,
                        "rangeStart": "10.1.0.10",
                        "rangeEnd": "10.1.0.11",
                        "gateway": "10.1.0.254",
                    },
                },
                pod=p,
            )
            for p in "ab"
        ],
        "range start and end": [
            *(add(local({"subnet": V4, "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.11"}), pod=p) for p in "ab"),
            add(local({"subnet": V4, "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.11"}), pod="c", fails=True),
        ],
        "two ranges in a set": [
            add(local([{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]), pod=pod, fails=pod > "b")
            for pod in "abc"
        ],
        "second range has its gateway": [
            add(local([{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/24", "gateway": "10.2.0.99"}]), pod=pod)
            for pod in "abc"
        ],
        "three sets": life(local(V4, V6, "192.168.5.0/26")),
        "explicit gateway": life(local({"subnet": V4, "gateway": "10.1.0.2"})),
        "gateway outside the subnet": [add(local({"subnet": V4, "gateway": "10.7.7.7"}))],
        "slash 30": [add(local("10.1.0.0/30"), pod="a"), add(local("10.1.0.0/30"), pod="b", fails=True)],
        "IPv6 slash 126": [add(local("fd00:1::/126"), pod=pod, fails=pod > "b") for pod in "abc"],
        "IPv6 compressed text": [add(local({"subnet": "FD00:0001:0:0::/64", "rangeStart": "fd00:1:0:0:0:0:0:00A0"}))],
        "IPv6 zero runs": [add(local({"subnet": "fd00:0:0:1:0:0:0:0/64", "rangeStart": "fd00:0:0:1:0:0:1:0"}))],
        "IPv6 across 16 bits": [
            add(local({"subnet": V6, "rangeStart": "fd00:1::fffe", "gateway": "fd00:1::1"}), pod=pod) for pod in "abc"
        ],
        "IPv4 mapped subnet": refused(local("::ffff:10.1.0.0/120")),
        "resolvConf": [
            add(
                local(V4, resolvConf="/run/resolv.conf"),
                before="printf '# c\\nnameserver 10.0.0.10\\nnameserver fd00::53\\ndomain x.org\\nsearch a.org b.org\\n"
                "options ndots:5 edns0\\n;c\\nsortlist 1\\n' >/run/resolv.conf",
            )
        ],
        "invalid: resolvConf missing": refused(local(V4, resolvConf="/run/none")),
        "resolvConf empty file": [add(local(V4, resolvConf="/run/resolv.conf"), before=": >/run/resolv.conf")],
        "dataDir": life(local(V4, dataDir="/run/cni/ipam")),
        "dataDir no directory": refused(local(V4, dataDir="/run/file/x"), before=": >/run/file"),
        "exhaustion": [
            *five,
            add(tiny, pod="f", fails=True),
            delete(tiny, pod="c"),
            add(tiny, pod="g"),
            *(delete(tiny, pod=pod) for pod in "abdeg"),
        ],
        "exhausted second set": [add(local(V4, "10.2.0.0/30"), pod=pod, fails=pod > "a") for pod in "ab"],
        "wrap-around": [step for pod in "abcdefgh" for step in (add(tiny, pod=pod), delete(tiny, pod=pod))],
        "release order": [*five[:3], delete(tiny, pod="b"), add(tiny, pod="e"), add(tiny, pod="f"), add(tiny, pod="g")],
        "last_reserved outside": [add(one, before=f"mkdir -p {store}; echo -n 10.9.0.7 >{store}/last_reserved_ip.0")],
        "last_reserved garbled": [add(one, before=f"mkdir -p {store}; echo -n what >{store}/last_reserved_ip.0")],
        "last_reserved at the end": [
            add(one, before=f"mkdir -p {store}; echo -n 10.1.0.254 >{store}/last_reserved_ip.0")
        ],
        "last_reserved before the gateway": [
            add(
                local({"subnet": V4, "gateway": "10.1.0.9"}),
                before=f"mkdir -p {store}; echo -n 10.1.0.8 >{store}/last_reserved_ip.0",
            )
        ],
        "stranger's lease is next": [add(one, before=f"mkdir -p {store}; printf 'x\\r\\neth0' >{store}/10.1.0.2")],
        "legacy lease": [
            check(one, previous=given, before=f"mkdir -p {store}; printf c-a >{store}/10.1.0.5"),
            delete(one),
        ],
        "legacy lease with newline": [delete(one, before=f"mkdir -p {store}; printf 'c-a\\n' >{store}/10.1.0.5")],
        "legacy lease, ADD again": [add(one, fails=True, before=f"mkdir -p {store}; printf c-a >{store}/10.1.0.5")],
        "legacy lease beside a new one": [
            delete(one, before=f"mkdir -p {store}; cd {store}; printf c-a >10.1.0.5; printf 'c-a\\r\\neth0' >10.1.0.6")
        ],
        "lease with spaces": [delete(one, before=f"mkdir -p {store}; printf '  c-a\\r\\neth0 \\n' >{store}/10.1.0.5")],
        "lease of other ifname": [delete(one, before=f"mkdir -p {store}; printf 'c-a\\r\\neth1' >{store}/10.1.0.5")],
        "lease in IPv6 long text": [
            delete(local(V6), before=f"mkdir -p {store}; printf 'c-a\\r\\neth0' >{store}/fd00:0001:0:0:0:0:0:5")
        ],
        "duplicate ADD": [add(one), add(one, fails=True), delete(one)],
        "two ifnames": [
            add(one),
            add(one, ifname="eth1"),
            delete(one),
            check(one, ifname="eth1"),
            delete(one, ifname="eth1"),
        ],
        "two networks": [add(one), add({**one, "name": "other"}), delete(one), delete({**one, "name": "other"})],
        "DEL twice": [add(one), delete(one), delete(one)],
        "DEL of nothing": [delete(one, pod="", id="x")],
        "DEL netns empty": [add(one), delete(one, pod="", id="c-a")],
        "CHECK of nothing": [check(one, previous=given, fails=True)],
        "CHECK lease removed": [add(one), check(one, fails=True, before=f"rm {store}/10.1.0.2")],
        "CHECK without prevResult": [add(one), check(one, previous=False)],
        "DEL with other ranges": [add(one), delete(local("10.99.0.0/24"))],
        "IP in CNI_ARGS": life(one, args="IP=10.1.0.50"),
        "IP in CNI_ARGS with a prefix": [add(one, args="IP=10.1.0.50/24")],
        "IP in CNI_ARGS, IPv6": [add(dual, args="IP=fd00:1::50")],
        "IP in CNI_ARGS with K8S keys": [add(one, args=f"IP=10.1.0.50;{K8S}")],
        "IP in CNI_ARGS twice taken": [
            add(one, args="IP=10.1.0.50"),
            add(one, pod="b", args="IP=10.1.0.50", fails=True),
        ],
        "IP in CNI_ARGS and the next": [add(one, args="IP=10.1.0.50"), add(one, pod="b")],
        "IP in CNI_ARGS invalid": refused(one, args="IP=10.1.0"),
        "IP in CNI_ARGS outside": refused(one, args="IP=10.9.0.5"),
        "IP in CNI_ARGS is the gateway": refused(one, args="IP=10.1.0.1"),
        "IP in CNI_ARGS is broadcast": refused(one, args="IP=10.1.0.255"),
        "IP in CNI_ARGS is the network": refused(one, args="IP=10.1.0.0"),
        "IP in CNI_ARGS empty": [add(one, args="IP=")],
        "unknown CNI_ARGS": refused(one, args="FOO=1"),
        "unknown CNI_ARGS ignored": [add(one, args=K8S)],
        "CNI_ARGS without a value": refused(one, args="IP"),
        "CNI_ARGS ends with a semicolon": refused(one, args="IgnoreUnknown=1;"),
        "args.cni.ips": life(local(V4, V6, top={"args": {"cni": {"ips": ["10.1.0.60", "fd00:1::60"]}}})),
        "args.cni.ips with a prefix": [add(local(V4, top={"args": {"cni": {"ips": ["10.1.0.60/24"]}}}))],
        "invalid: args.cni.ips invalid": refused(local(V4, top={"args": {"cni": {"ips": ["ten"]}}})),
        "runtimeConfig ips": [add(local(V4, V6, top={"runtimeConfig": {"ips": ["10.1.0.61/24", "fd00:1::61"]}}))],
        "runtimeConfig ips beside args": [
            add(local(V4, V6, top={"runtimeConfig": {"ips": ["10.1.0.61"]}, "args": {"cni": {"ips": ["fd00:1::61"]}}}))
        ],
        "requested inside and outside": refused(local(V4, top={"runtimeConfig": {"ips": ["10.1.0.61", "10.9.0.62"]}})),
        "requested twice the same": [
            add(local(V4, top={"runtimeConfig": {"ips": ["10.1.0.61"]}}), args="IP=10.1.0.61")
        ],
        "runtimeConfig ipRanges": life(
            local(top={"runtimeConfig": {"ipRanges": [[{"subnet": V4}], [{"subnet": V6}]]}})
        ),
        "runtimeConfig ipRanges first": [add(local(V6, top={"runtimeConfig": {"ipRanges": [[{"subnet": V4}]]}}))],
        "runtimeConfig ipRanges with flat subnet": [
            add(local(subnet="10.3.0.0/24", top={"runtimeConfig": {"ipRanges": [[{"subnet": V4}]]}}))
        ],
        "invalid: runtimeConfig ipRanges overlap": refused(
            local(V4, top={"runtimeConfig": {"ipRanges": [[{"subnet": V4}]]}})
        ),
        "route without dst": [add(local(V4, routes=[{"gw": "10.1.0.9"}]))],
        "route dst has host bits": [add(local(V4, routes=[{"dst": "10.8.1.1/16"}]))],
        "invalid: route invalid": refused(local(V4, routes=[{"dst": "x"}])),
        "invalid: prefix 31": refused(local("10.1.0.0/31")),
        "invalid: prefix 32": refused(local("10.1.0.0/32")),
        "invalid: IPv6 prefix 127": refused(local("fd00:1::/127")),
        "invalid: host bits set": refused(local("10.1.0.5/24")),
        "invalid: overlap of sets": refused(local(V4, "10.1.0.128/25")),
        "invalid: overlap in a set": refused(local([{"subnet": V4}, {"subnet": "10.1.0.128/25"}])),
        "no overlap by start and end": [
            add(local([{"subnet": V4, "rangeEnd": "10.1.0.99"}], [{"subnet": V4, "rangeStart": "10.1.0.100"}]))
        ],
        "invalid: start outside": refused(local({"subnet": V4, "rangeStart": "10.2.0.1"})),
        "invalid: end outside": refused(local({"subnet": V4, "rangeEnd": "10.2.0.1"})),
        "invalid: start after end": refused(local({"subnet": V4, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.5"})),
        "start is the network": [add(local({"subnet": V4, "rangeStart": "10.1.0.0"}))],
        "end is broadcast": [add(local({"subnet": V4, "rangeEnd": "10.1.0.255"}))],
        "start is the gateway": [add(local({"subnet": V4, "rangeStart": "10.1.0.1"}))],
        "only the gateway": refused(local({"subnet": V4, "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"})),
        "invalid: mixed families in a set": refused(local([{"subnet": V4}, {"subnet": V6}])),
        "invalid: no ranges": refused(local()),
        "invalid: empty range set": refused(local([])),
        "invalid: range without subnet": refused(local({"rangeStart": "10.1.0.1"})),
        "invalid: subnet is no network": refused(local("10.1.0")),
        "invalid: gateway is no address": refused(local({"subnet": V4, "gateway": "one"})),
        "invalid: subnet is a number": refused(local({"subnet": 10})),
        "invalid: no ipam": refused(old),
        "name missing": refused({"cniVersion": "1.0.0", "type": "host-local", "ipam": pool(V4)}),
        "name invalid": refused({**one, "name": "../net"}),
        "capitalised keys": [
            add(
                '{"CniVersion":"1.0.0","Name":"net","Type":"host-local","IPAM":{"Type":"host-local",'
                '"Ranges":[[{"Subnet":"10.1.0.0/24","RangeStart":"10.1.0.9","Gateway":"10.1.0.3"}]],"Routes":[{"Dst":"0.0.0.0/0"}]}}',
                plugin="host-local",
            )
        ],
        "null members": [
            add(
                '{"cniVersion":"1.0.0","name":"net","type":"host-local","args":null,"runtimeConfig":null,"prevResult":null,'
                '"ipam":{"type":"host-local","dataDir":null,"resolvConf":null,"routes":null,"rangeStart":null,'
                '"ranges":[[{"subnet":"10.1.0.0/24","gateway":null,"rangeStart":null,"rangeEnd":null}]]}}',
                plugin="host-local",
            )
        ],
        "subnet is null": [add(local(V4, subnet=None), fails=True)],
        "a key twice in other case": [
            add(
                '{"cniVersion":"1.0.0","name":"net","type":"host-local","ipam":{"type":"host-local","subnet":"10.1.0.0/24","SUBNET":"10.2.0.0/24"}}',
                plugin="host-local",
            )
        ],
    }
    return cases


def bridge_cases() -> dict[str, list[Step]]:
    """Return bridge's cases with host-local: links, addresses, routes, MACs, and interference by others."""
    gw = br(isGateway=True)
    full = br(V4, V6, isDefaultGateway=True, mtu=1400)
    routed = br(ipam=pool(V4, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.1.0.77"}]), isGateway=True)
    dns = {"nameservers": ["9.9.9.9"], "domain": "x.org", "search": ["a", "b"], "options": ["ndots:1"]}
    made = "ip link add cni0 type bridge; ip link set cni0 up; "
    absent = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": "veth0"}, {"name": "eth7", "sandbox": "<netns a>"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2}],
    }
    mac = {"args": {"cni": {"mac": MAC2}}}
    cases = {f"version {v}": life(br(V4, isDefaultGateway=True, cniVersion=v)) for v in VERSIONS}
    cases |= {f"dual stack version {v}": life({**full, "cniVersion": v}) for v in VERSIONS}
    cases |= {
        f"no ipam version {v}": [add({**no_ipam(), "cniVersion": v}), delete(no_ipam())]
        for v in ("0.3.1", "0.4.0", "1.0.0")
    }
    cases |= {
        "VERSION": [version("bridge", {"cniVersion": "1.0.0"})],
        "defaults": life(net("bridge", ipam=pool(V4))),
        "isGateway": life(gw),
        "isDefaultGateway": life(br(isDefaultGateway=True)),
        "isDefaultGateway beside a route": [
            add(br(ipam=pool(V4, routes=[{"dst": "10.8.0.0/16"}]), isDefaultGateway=True))
        ],
        "isDefaultGateway with 0.0.0.0/0 in routes": [
            add(br(ipam=pool(V4, routes=[{"dst": "0.0.0.0/0"}]), isDefaultGateway=True), fails=True)
        ],
        "routes": life(routed),
        "routes, dual stack": life(
            br(ipam=pool(V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]), isGateway=True)
        ),
        "IPv6 only": life(br(V6, isGateway=True)),
        "IPv6 default gateway": life(br(V6, isDefaultGateway=True)),
        "two IPv4 sets": life(br(V4, "10.2.0.0/24")),
        "two IPv4 sets, isGateway": refused(br(V4, "10.2.0.0/24", isGateway=True)),
        "mtu": life(br(mtu=1280)),
        "mtu zero": [add(br(mtu=0))],
        "hairpinMode": life(br(hairpinMode=True)),
        "ipMasq": life(br(V4, V6, isGateway=True, ipMasq=True)),
        "macspoofchk": life(br(V4, V6, isGateway=True, macspoofchk=True)),
        "promiscMode": life(br(promiscMode=True)),
        "invalid: promiscMode with hairpinMode": refused(br(hairpinMode=True, promiscMode=True)),
        "forceAddress": [
            add(gw),
            delete(gw),
            add(br("10.2.0.0/24", isGateway=True), pod="b", fails=True),
            add(br("10.3.0.0/24", isGateway=True, forceAddress=True), pod="c"),
        ],
        "gateway's prefix changed": [add(gw), add(br("10.1.0.0/16", isGateway=True), pod="b", fails=True)],
        "gateway added to a bridge without": [add(br()), add(gw, pod="b")],
        "second address, no overlap": [add(gw, before=made + "ip addr add 192.0.2.1/24 dev cni0", fails=True)],
        "second IPv6 address, no overlap": [
            add(br(V6, isGateway=True), before=made + "ip addr add fd00:9::1/64 dev cni0 nodad")
        ],
        "second IPv6 address, overlap": refused(
            br(V6, isGateway=True), before=made + "ip addr add fd00:1::9/64 dev cni0 nodad"
        ),
        "gateway present": [add(gw, before=made + "ip addr add 10.1.0.1/24 brd + dev cni0")],
        "gateway on another link": [add(gw, before="ip link add o type veth; ip addr add 10.1.0.1/24 dev o")],
        "bridge is down": [add(gw, before="ip link add cni0 type bridge")],
        "bridge has another mtu": [add(br(mtu=1400), before=made + "ip link set cni0 mtu 1300")],
        "name is no bridge": refused(gw, before="ip link add cni0 type veth"),
        "invalid: bridge name too long": refused(br() | {"bridge": "a-name-of-16-byt"}),
        "invalid: bridge name empty": refused(br() | {"bridge": ""}),
        "mac in CNI_ARGS": life(gw, args=f"MAC={MAC};IgnoreUnknown=1"),
        "mac in CNI_ARGS with K8S keys": [add(gw, args=f"{K8S};MAC={MAC}")],
        "mac in CNI_ARGS, unknown to ipam": refused(gw, args=f"MAC={MAC}"),
        "mac in args.cni": life({**gw, **mac}),
        "mac in runtimeConfig": life(br(runtimeConfig={"mac": MAC3})),
        "mac in CNI_ARGS and args.cni": [add({**gw, **mac}, args=f"MAC={MAC};IgnoreUnknown=1")],
        "mac in all three": [add({**gw, **mac, "runtimeConfig": {"mac": MAC3}}, args=f"MAC={MAC};IgnoreUnknown=1")],
        "mac in capital letters": [add(gw, args="MAC=0A:58:0A:01:00:11;IgnoreUnknown=1")],
        "mac with dashes": [add(gw, args="IgnoreUnknown=1;MAC=0a-58-0a-01-00-11")],
        "mac invalid": refused(gw, args="MAC=nope;IgnoreUnknown=1"),
        "mac is multicast": refused(gw, args="MAC=01:00:5e:00:00:01;IgnoreUnknown=1"),
        "unknown CNI_ARGS": refused(gw, args="FOO=1"),
        "unknown CNI_ARGS ignored": life(gw, args=K8S),
        "IP in CNI_ARGS": refused(gw, args="IP=10.1.0.40"),
        "IP in CNI_ARGS, unknown ignored": [add(gw, args="IP=10.1.0.40;IgnoreUnknown=1")],
        "ips in args.cni": [add({**gw, "args": {"cni": {"ips": ["10.1.0.40"]}}})],
        "ips in runtimeConfig": [add({**gw, "runtimeConfig": {"ips": ["10.1.0.41"]}})],
        "no ipam": [add(no_ipam()), delete(no_ipam())],
        "no ipam, CHECK": [add(no_ipam()), check(no_ipam(), fails=True)],
        "ipam empty": [add({**no_ipam(), "ipam": {}}), delete({**no_ipam(), "ipam": {}})],
        "no ipam, isGateway": [add(no_ipam(isGateway=True)), delete(no_ipam(isGateway=True))],
        "no ipam, mac and mtu": [add(no_ipam(mtu=1300), args=f"MAC={MAC};IgnoreUnknown=1"), delete(no_ipam())],
        "ipam plugin missing": refused({**no_ipam(), "ipam": {"type": "no-such"}}),
        "ipam type traverses": refused({**no_ipam(), "ipam": {"type": "../host-local"}}),
        "ipam exhausted": [
            add(br("10.1.0.0/30", isGateway=True)),
            add(br("10.1.0.0/30", isGateway=True), pod="b", fails=True),
        ],
        "ipam refuses": refused(br("10.1.0.0/31", isGateway=True)),
        "ipam static": life(
            br(
                ipam={
                    "type": "static",
                    "addresses": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dns": dns,
                },
                isGateway=True,
            ),
            path=2,
        ),
        "ipam without an address": refused(br(ipam={"type": "static"}), path=2),
        "dns": life(br(dns=dns)),
        "dns of ipam": [
            add(br(ipam=pool(V4, resolvConf="/run/resolv.conf")), before="echo nameserver 1.1.1.1 >/run/resolv.conf")
        ],
        "dns over ipam's": [
            add(
                br(ipam=pool(V4, resolvConf="/run/resolv.conf"), dns={"search": ["a"]}),
                before="echo nameserver 1.1.1.1 >/run/resolv.conf",
            )
        ],
        "dns null and capitalised": [add(br(dns={"Servers": ["1.2.3.4"], "Searches": None, "Options": None}))],
        "two pods": [
            add(gw),
            add(gw, pod="b"),
            check(gw),
            check(gw, pod="b"),
            delete(gw),
            check(gw, pod="b"),
            delete(gw, pod="b"),
        ],
        "two pods, no gateway": [add(br()), add(br(), pod="b"), delete(br(), pod="b"), delete(br())],
        "two ifnames": [add(gw), add(gw, ifname="eth1"), check(gw), delete(gw, ifname="eth1"), check(gw), delete(gw)],
        "two networks in a pod": [
            add(gw),
            add({**br("10.5.0.0/24", isGateway=True), "name": "b", "bridge": "cni1"}, ifname="eth1"),
            delete({**br("10.5.0.0/24", isGateway=True), "name": "b", "bridge": "cni1"}, ifname="eth1"),
            delete(gw),
        ],
        "ADD twice": [add(gw), add(gw, fails=True), check(gw), delete(gw)],
        "ADD where eth0 is a stranger's": [add(gw, fails=True, before="pod a ip link add eth0 type veth")],
        "DEL twice": [*life(gw), delete(gw)],
        "DEL with prevResult": [add(gw), delete(gw, previous=True)],
        "DEL netns gone": [add(gw), delete(gw, pod="gone", id="c-a")],
        "DEL netns empty": [add(gw), delete(gw, pod="", id="c-a")],
        "DEL netns empty, link still there": [add(gw), delete(gw, pod="", id="c-a"), delete(gw)],
        "DEL netns deleted": [add(gw), delete(gw, before="drop a")],
        "DEL netns deleted, prevResult": [add(full), delete(full, before="drop a", previous=True)],
        "DEL link gone": [add(gw), delete(gw, before="pod a ip link del eth0")],
        "DEL lease gone": [add(gw), delete(gw, before="rm /var/lib/cni/networks/net/10*")],
        "DEL of nothing": [delete(gw, pod="", id="x")],
        "DEL bridge gone": [add(gw), delete(gw, before="ip link del cni0")],
        "ADD netns gone": refused(gw, pod="gone"),
        "ADD netns empty": refused(gw, pod="", id="x"),
        "CNI_PATH missing": refused(gw, env={"CNI_PATH": None}),
        "ifname too long": refused(gw, ifname="a-name-of-16-byt"),
        "ifname with a colon": refused(gw, ifname="eth:0"),
        "name missing": refused({k: v for k, v in gw.items() if k != "name"}),
        "name invalid": refused({**gw, "name": "net/../x"}),
        "container id invalid": refused(gw, id="a b"),
        "version unknown": refused({**gw, "cniVersion": "2.0.0"}),
        "config is no JSON": refused("null,", plugin="bridge"),
        "config is empty": refused("", plugin="bridge"),
        "invalid: mtu is text": refused(br(mtu="big")),
        "invalid: isGateway is text": refused(br(isGateway="yes")),
        "invalid: vlan out of range": refused(br(vlan=4095)),
        "invalid: vlan negative": refused(br(vlan=-1)),
        "CHECK without prevResult": [add(gw), check(gw, previous=False, fails=True)],
        "CHECK 0.3.1": [add({**gw, "cniVersion": "0.3.1"}), check({**gw, "cniVersion": "0.3.1"}, fails=True)],
        "CHECK address removed": [add(gw), check(gw, fails=True, before="pod a ip addr flush dev eth0")],
        "CHECK address changed": [
            add(gw),
            check(gw, fails=True, before="pod a ip addr flush dev eth0; pod a ip addr add 10.1.0.9/24 dev eth0"),
        ],
        "CHECK route removed": [add(routed), check(routed, fails=True, before="pod a ip route del default")],
        "CHECK link down": [add(gw), check(gw, fails=True, before="pod a ip link set eth0 down")],
        "CHECK link gone": [add(gw), check(gw, fails=True, before="pod a ip link del eth0")],
        "CHECK host link off the bridge": [
            add(gw),
            check(
                gw,
                fails=True,
                before="for v in $(ls -d /sys/class/net/cni0/brif/*); do ip link set ${v##*/} nomaster; done",
            ),
        ],
        "CHECK bridge gone": [add(gw), check(gw, fails=True, before="ip link del cni0")],
        "CHECK netns gone": [add(gw), check(gw, fails=True, before="drop a")],
        "CHECK lease gone": [add(gw), check(gw, fails=True, before="rm /var/lib/cni/networks/net/10*")],
        "CHECK other mac": [add(gw), check(gw, fails=True, before=f"pod a ip link set eth0 address {MAC}")],
        "CHECK of another interface": [add(gw), check(gw, ifname="eth7", previous=absent, fails=True)],
        "CHECK dual stack IPv6 removed": [
            add(full),
            check(full, fails=True, before="pod a ip -6 addr flush dev eth0 scope global"),
        ],
        "capitalised keys": [
            add(
                json.dumps(
                    {
                        "CNIVersion": "1.0.0",
                        "Name": "net",
                        "Type": "bridge",
                        "Bridge": "cni0",
                        "ISGATEWAY": True,
                        "HairPinMode": True,
                        "Mtu": 1300,
                        "IPAM": {"type": "host-local", "Subnet": V4},
                    }
                ),
                plugin="bridge",
            )
        ],
        "null members": [
            add(
                br()
                | dict.fromkeys(
                    ("mtu", "isGateway", "hairpinMode", "vlan", "args", "runtimeConfig", "dns", "prevResult")
                )
            ),
            add(br() | {"bridge": None}, pod="b"),
        ],
        "unknown keys": [add(br(colour="green", capabilities={"ips": True}))],
        "podman": [
            version("bridge", {"cniVersion": "0.4.0"}),
            version("host-local", {"cniVersion": "0.4.0"}),
            add(
                podman := br(
                    ipam=pool(V4, routes=[{"dst": "0.0.0.0/0"}]),
                    cniVersion="0.4.0",
                    name="podman",
                    isGateway=True,
                    hairpinMode=True,
                ),
                args="IgnoreUnknown=1;K8S_POD_NAME=x",
            ),
            version("bridge", {"cniVersion": "0.4.0"}),
            delete(podman, previous=True),
        ],
        "containerd": [
            add(net("loopback", cniVersion="0.3.1", name="cni-loopback"), ifname="lo", args=K8S),
            add(
                cri := br(
                    ipam=pool(V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]),
                    name="containerd-net",
                    isGateway=True,
                    promiscMode=True,
                    runtimeConfig={
                        "portMappings": [{"HostPort": 80, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
                        "dns": {"Servers": ["1.1.1.1"], "Searches": None},
                    },
                ),
                args=K8S,
            ),
            check(cri, args=K8S),
            delete(cri, args=K8S, previous=True),
            delete(net("loopback", cniVersion="0.3.1", name="cni-loopback"), ifname="lo", args=K8S),
            delete(cri, args=K8S, pod="", id="c-a"),
            delete(net("loopback", cniVersion="0.3.1", name="cni-loopback"), ifname="lo", args=K8S, pod="", id="c-a"),
        ],
    }
    return cases


def tuning_cases() -> dict[str, list[Step]]:
    """Return tuning's cases behind bridge: every attribute, from the configuration and from arguments, and mistakes."""
    gw = br(isGateway=True)

    def tune(**keys: Any) -> dict[str, Any]:
        return net("tuning", **keys)

    def chain(config: dict[str, Any], **keys: Any) -> list[Step]:
        return [add(gw), add(config, previous=True, **keys), check(config, **keys), delete(config, **keys), delete(gw)]

    # not IFNAME: the reference's CHECK looks for an interface of that name
    forward = {"net.ipv4.conf.eth0.arp_filter": "1", "net/ipv4/conf/all/log_martians": "1"}
    mistakes: dict[str, dict[str, Any]] = {
        "sysctl outside of net": {"sysctl": {"kernel.hostname": "x"}},
        "sysctl that is a number": {"sysctl": {"net.ipv4.ip_forward": 1}},
        "mac": {"mac": "02:00"},
        "mtu that is text": {"mtu": "1400"},
        "promisc that is text": {"promisc": "true"},
    }
    return {
        "mtu": chain(tune(mtu=1400)),
        "mac": chain(tune(mac=MAC)),
        "mac in CNI_ARGS": chain(tune(), args=f"MAC={MAC}"),
        "mac of the runtime": chain(tune(runtimeConfig={"mac": MAC})),
        "mac of args before the runtime's": chain(tune(runtimeConfig={"mac": MAC}, args={"cni": {"mac": MAC2}})),
        "promisc and allmulti": chain(tune(promisc=True, allmulti=True)),
        "sysctls": chain(tune(sysctl=forward)),
        "arguments": chain(tune(mtu=1400, sysctl={}, args={"cni": {"mtu": 1300, "sysctl": forward, "promisc": True}})),
        "nothing": chain(tune()),
        "IFNAME in a sysctl": [add(gw), add(tune(sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"}), previous=True)],
        "invalid: prevResult absent": [add(gw), add(tune(mtu=1400), fails=True)],
        "no such sysctl": [add(gw), add(tune(sysctl={"net.ipv4.absent": "1"}), previous=True, fails=True)],
        "CHECK mtu": [
            add(gw),
            add(c := tune(mtu=1400), previous=True),
            check(c, fails=True, before="pod a ip link set eth0 mtu 1300"),
            delete(c),
        ],
        "netns gone": [add(gw), add(c := tune(mtu=1400), previous=True), delete(c, before="drop a"), delete(c)],
        **{
            f"invalid: {name}": [add(gw), add(tune(**keys), previous=True, fails=True)]
            for name, keys in mistakes.items()
        },
    }


def portmap_cases() -> dict[str, list[Step]]:
    """Return portmap's cases behind bridge, with nf_tables and with iptables; the reference at hand has only iptables.

    They compare answers and route_localnet; tests/system/test_portmap_iptables.py compares the rules of iptables.
    """

    def ports(*entries: Config, **keys: Any) -> dict[str, Any]:
        return net("portmap", runtimeConfig={"portMappings": list(entries)}, **keys)

    def chain(config: dict[str, Any], bridge: Config) -> list[Step]:
        # the reference at hand looks for a pod's rules in the other family's table, too
        has_ports = bool((config.get("runtimeConfig") or {}).get("portMappings"))
        checks = [check(config, fails=has_ports)] if config["cniVersion"] in WITH_CHECK else []
        return [add(bridge), add(config, previous=True), *checks, delete(config), delete(bridge)]

    gw, dual = br(isGateway=True), br(V4, V6, isGateway=True)
    one = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    cases = {
        f"version {v}": chain(ports(one, cniVersion=v), br(V4, V6, isGateway=True, cniVersion=v)) for v in VERSIONS
    }
    variants: dict[str, list[Config]] = {
        "udp": [{**one, "protocol": "udp"}], "sctp": [{**one, "protocol": "sctp"}], "several": [one, {**one, "hostPort": 8081}],
        "tcp and udp": [one, {**one, "protocol": "udp"}], "host address": [{**one, "hostIP": "10.1.0.1"}], "host address localhost": [{**one, "hostIP": "127.0.0.1"}],
        "all of IPv4": [{**one, "hostIP": ".".join("0000")}], "all of IPv6": [{**one, "hostIP": "::"}], "capital keys": [{key.capitalize(): one[key] for key in one}],
        "null": [{**one, "hostIP": None}],
    }  # fmt: skip
    cases |= {name: chain(ports(*entries), dual) for name, entries in variants.items()}
    settings: dict[str, dict[str, Any]] = {
        "no snat": {"snat": False}, "masqAll": {"masqAll": True}, "markMasqBit": {"markMasqBit": 3}, "conditions": {"conditionsV4": ["!", "-d", "192.0.2.0/24"]},
    }  # fmt: skip
    cases |= {name: chain(ports(one, **keys), gw) for name, keys in settings.items()}
    by_iptables: dict[str, list[Config]] = {**variants, "bridge masquerades": [one]}
    cases |= {
        f"iptables: {name}": chain(
            ports(*entries, backend="iptables"),
            br(V4, V6, isGateway=True, ipMasq=name == "bridge masquerades", ipMasqBackend="iptables"),
        )
        for name, entries in by_iptables.items()
    }
    cases |= {f"iptables: {name}": chain(ports(one, backend="iptables", **keys), gw) for name, keys in settings.items()}
    mistakes: dict[str, dict[str, Any]] = { "hostPort 0": ports({**one, "hostPort": 0}), "containerPort -1": ports({**one, "containerPort": -1}), "markMasqBit 32": ports(one, markMasqBit=32),
        "both marks": ports(one, markMasqBit=3, externalSetMarkChain="X"), "hostPort that is text": ports({**one, "hostPort": "80"}),
    }  # fmt: skip
    return cases | {
        "no mappings": chain(ports(), gw),
        "no runtimeConfig": chain(net("portmap"), gw),
        "mappings that are null": chain(net("portmap", runtimeConfig={"portMappings": None}), gw),
        "VERSION": [version("portmap", {"cniVersion": "1.0.0"})],
        "DEL twice": [*chain(ports(one), gw)[:-1], delete(ports(one)), delete(ports(one), pod="", id="c-a")],
        "DEL alone": [delete(ports(one)), delete(net("portmap"))],
        "netns gone": [add(gw), add(c := ports(one), previous=True), delete(c, before="drop a")],
        "invalid: prevResult absent": [add(gw), add(ports(one), fails=True)],
        **{f"invalid: {name}": [add(gw), add(keys, previous=True, fails=True)] for name, keys in mistakes.items()},
    }


def bandwidth_cases() -> dict[str, list[Step]]:
    """Return bandwidth's cases behind bridge: each direction, each source of limits, mistakes, existing qdiscs."""
    gw = br(isGateway=True)
    ingress = {"ingressRate": 1_000_001, "ingressBurst": 800_000}
    egress = {"egressRate": 8_000_000, "egressBurst": 1_000_000}
    capital = {key[0].upper() + key[1:]: value for key, value in {**ingress, **egress}.items()}

    def limit(**keys: Any) -> dict[str, Any]:
        return net("bandwidth", **keys)

    def chain(config: dict[str, Any]) -> list[Step]:
        return [add(gw), add(config, previous=True), check(config), delete(config), delete(config), delete(gw)]

    mistakes: dict[str, dict[str, Any]] = {
        "rate without burst": {"ingressRate": 8000},
        "burst without rate": {"egressBurst": 8000},
        "burst of 4 GiB": {"ingressRate": 8000, "ingressBurst": 8 * (2**32 - 1)},
        "rate that is text": {"ingressRate": "8000", "ingressBurst": 8000},
        "rate below 0": {"ingressRate": -1, "ingressBurst": 8000},
        "of the runtime: rate without burst": {"runtimeConfig": {"bandwidth": {"IngressRate": 8000}}},
    }
    return {
        "ingress": chain(limit(**ingress)),
        "egress": chain(limit(**egress)),
        "both": chain(limit(**ingress, **egress)),
        "as containerd sends it": chain(limit(runtimeConfig={"bandwidth": capital})),
        "static before the runtime's": chain(limit(**egress, runtimeConfig={"bandwidth": ingress})),
        "static 0 before the runtime's": [
            add(gw),
            add(limit(egressRate=0, runtimeConfig={"bandwidth": ingress}), previous=True),
        ],
        "nothing": [add(gw), add(c := limit(), previous=True), delete(c)],
        "rate beyond 32 bits": chain(limit(ingressRate=8 * 10**10, ingressBurst=8 * 10**9)),
        "VERSION": [version("bandwidth", {"cniVersion": "1.0.0"})],
        "version 0.2.0": [
            add(old := limit(**ingress, cniVersion="0.2.0"), fails=True),
            delete(old, fails=True),
        ],
        "invalid: prevResult absent": [add(gw), add(limit(**ingress), fails=True)],
        "ADD twice": [add(gw), add(c := limit(**ingress), previous=True), add(c, previous=True, fails=True)],
        "CHECK rate": [
            add(gw),
            add(limit(**ingress), previous=True),
            check(limit(**{**ingress, "ingressRate": 2_000_000}), fails=True),
        ],
        "DEL netns gone": [add(gw), add(c := limit(**egress), previous=True), delete(c, before="drop a"), delete(c)],
        "DEL netns empty": [add(gw), add(c := limit(**egress), previous=True), delete(c, pod="", id="c-a")],
        **{
            f"invalid: {name}": [add(gw), add(limit(**keys), previous=True, fails=True)]
            for name, keys in mistakes.items()
        },
    }


def firewall_cases() -> dict[str, list[Step]]:
    """Return firewall's cases behind bridge, with iptables: the reference has no other backend here."""
    gw = br(V4, V6, isGateway=True)

    def fw(**keys: Any) -> dict[str, Any]:
        return net("firewall", **{"backend": "iptables", **keys})

    def chain(config: dict[str, Any]) -> list[Step]:
        first = br(V4, V6, isGateway=True, cniVersion=config["cniVersion"])
        end = delete(config, previous=True)
        return [add(first), add(config, previous=True), check(config), end, delete(first)]

    mistakes: dict[str, dict[str, Any]] = {
        "ingressPolicy": {"ingressPolicy": "closed"},
        "chain with a blank": {"iptablesAdminChainName": "a b"},
        "chain too long": {"iptablesAdminChainName": "x" * 29},
    }
    lost = "ip6tables -D CNI-FORWARD -s fd00:1::2 -j ACCEPT"
    return {
        **{f"life version {version}": chain(fw(cniVersion=version)) for version in WITH_CHECK},
        "chain of the administrator's": chain(fw(iptablesAdminChainName="ADMINS")),
        "version too old": [add(gw), add(fw(cniVersion="0.3.1"), previous=True, fails=True)],
        "invalid: prevResult absent": [add(gw), add(fw(), fails=True)],
        "CHECK rule gone": [add(gw), add(c := fw(), previous=True), check(c, fails=True, before=lost)],
        "netns gone": [add(gw), add(c := fw(), previous=True), delete(c, previous=True, before="drop a")],
        **{
            f"invalid: {name}": [add(gw), add(fw(**keys), previous=True, fails=True)] for name, keys in mistakes.items()
        },
    }


def ptp_cases() -> dict[str, list[Step]]:
    """ptp: both families, every version, masquerading by iptables, mistakes, lost pieces."""
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]

    def pair(*sets: Any, **keys: Any) -> dict[str, Any]:
        return net("ptp", ipam=pool(*(sets or (V4, V6)), routes=routes[: len(sets or routes)]), **keys)

    dual, masqueraded = pair(), pair(ipMasq=True, ipMasqBackend="iptables")
    mistakes: dict[str, dict[str, Any]] = {
        "mtu that is text": {"mtu": "1400"},
        "ipMasq that is text": {"ipMasq": "true"},
        "ipam plugin missing": {"ipam": {"type": "absent"}},
    }
    losses = {
        "link down": "pod a ip link set eth0 down",
        "address": "pod a ip addr del 10.1.0.2/24 dev eth0",
        "route": "pod a ip route del default",
    }
    return {
        **{f"version {v}": life(pair(cniVersion=v)) for v in VERSIONS},
        "VERSION": [version("ptp", {"cniVersion": "1.0.0"})],
        "IPv4 only": life(pair(V4)),
        "IPv6 only": life(net("ptp", ipam=pool(V6, routes=routes[1:]))),
        "no routes": life(net("ptp", ipam=pool(V4, V6))),
        "mtu": life(pair(mtu=1400)),
        "dns": life(pair(dns={"nameservers": ["10.1.0.1"], "search": ["example.org"]})),
        "ipMasq": life(masqueraded),
        "ipMasq, netns empty": [add(masqueraded), delete(masqueraded, pod="", id="c-a")],
        "several pods": [add(dual), add(dual, pod="b"), check(dual), delete(dual), check(dual, pod="b")],
        "kubelet": life(dual, args=K8S),
        "exhausted": [add(c := pair("10.1.0.0/30")), add(c, pod="b", fails=True), delete(c, pod="b")],
        "ADD twice": [add(dual), add(dual, fails=True)],
        "ADD netns gone": [add(dual, before="drop a", fails=True)],
        "DEL twice": [add(dual), delete(dual), delete(dual)],
        "DEL of nothing": [delete(dual)],
        "DEL netns gone": [add(dual), delete(dual, before="drop a")],
        **{f"CHECK {name}": [add(dual), check(dual, fails=True, before=loss)] for name, loss in losses.items()},
        **{f"invalid: {name}": [add(pair() | keys, fails=True)] for name, keys in mistakes.items()},
    }


UP0 = "ip link add up0 type veth peer name up0p; ip link set up0 up; ip link set up0p up"


def macvlan_cases() -> dict[str, list[Step]]:
    """macvlan: both families, every version, modes, MACs, masters that cannot be used, lost pieces."""

    def on(*sets: Any, **keys: Any) -> dict[str, Any]:
        return {**net("macvlan", master="up0", ipam=pool(*(sets or (V4, V6)))), **keys}

    def life_on(config: dict[str, Any], **keys: Any) -> list[Step]:
        first, *others = life(config, **keys)
        return [replace(first, before=UP0), *others]

    def failing(config: dict[str, Any]) -> list[Step]:
        return [add(config, before=UP0, fails=True)]

    dual = on()
    default = {key: value for key, value in dual.items() if key != "master"}
    route = f"{UP0}; ip address add 10.5.0.1/24 dev up0; ip route add default via 10.5.0.2"
    losses = {
        "link down": "pod a ip link set eth0 down",
        "link gone": "pod a ip link del eth0",
        "address": "pod a ip addr del 10.1.0.2/24 dev eth0",
    }
    mistakes: dict[str, dict[str, Any]] = {
        "mode unknown": {"mode": "source"}, "mtu above the master's": {"mtu": 9000}, "mtu negative": {"mtu": -1},
        "mtu that is text": {"mtu": "1400"}, "master missing": {"master": "none"},
        "mac that is none": {"mac": "zz"}, "ipam plugin missing": {"ipam": {"type": "absent"}},
    }  # fmt: skip
    return {
        **{f"version {v}": life_on(on(cniVersion=v)) for v in VERSIONS},
        "VERSION": [version("macvlan", {"cniVersion": "1.0.0"})],
        "IPv4 only": life_on(on(V4)),
        "IPv6 only": life_on(on(V6)),
        "routes": life_on(on(ipam=pool(V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]))),
        "no ipam": [add(c := on(ipam={}), before=UP0), delete(c)],
        **{f"mode {mode}": life_on(on(mode=mode)) for mode in ("", "bridge", "private", "vepa", "passthru")},
        "mtu": life_on(on(mtu=1400)),
        "mac": life_on(on(mac=MAC)),
        "CNI_ARGS MAC over mac": life_on(on(mac=MAC), args=f"IgnoreUnknown=1;MAC={MAC2}"),
        "runtimeConfig.mac over both": life_on(
            on(mac=MAC, runtimeConfig={"mac": MAC3}), args=f"IgnoreUnknown=1;MAC={MAC2}"
        ),
        "master of the default route": [add(default, before=route), check(default), delete(default)],
        "no default route": [add(default, before=UP0, fails=True)],
        "master lo": [add(on(master="lo"), fails=True)],
        "dns": life_on(on(dns={"nameservers": ["10.1.0.1"], "search": ["example.org"]})),
        "several pods": [add(dual, before=UP0), add(dual, pod="b"), check(dual), delete(dual), check(dual, pod="b")],
        "kubelet": life_on(dual, args=K8S),
        "ADD twice": [add(dual, before=UP0), add(dual, fails=True)],
        "ADD netns gone": [add(dual, before=f"{UP0}; drop a", fails=True)],
        "DEL twice": [add(dual, before=UP0), delete(dual), delete(dual)],
        "DEL of nothing": [delete(dual, before=UP0)],
        "DEL netns gone": [add(dual, before=UP0), delete(dual, before="drop a")],
        "DEL netns empty": [add(dual, before=UP0), delete(dual, pod="", id="c-a")],
        "DEL master gone": [add(dual, before=UP0), delete(dual, before="ip link del up0", fails=True)],
        **{f"CHECK {one}": [add(dual, before=UP0), check(dual, fails=True, before=losses[one])] for one in losses},
        **{f"invalid: {name}": failing({**dual, **keys}) for name, keys in mistakes.items()},
    }


def fixed(*addresses: Any, **keys: Any) -> dict[str, Any]:
    """Return an ipam section of static: an address, or an object, for each."""
    given = [{"address": one} if isinstance(one, str) else one for one in addresses]
    return {"type": "static", **({"addresses": given} if given else {}), **keys}


def static_cases() -> dict[str, list[Step]]:
    """Return static's cases on its own: every source of addresses, and mistakes."""

    def only(*addresses: Any, top: Config | None = None, **keys: Any) -> dict[str, Any]:
        return net("static", ipam=fixed(*addresses, **keys), **(top or {}))

    one, two = "10.1.0.5/24", {"address": "10.2.0.5/24", "gateway": "10.2.0.1"}
    dual = only(two, {"address": "fd00:1::5/64", "gateway": "fd00:1::1"})
    dns = {"nameservers": ["9.9.9.9"], "domain": "x.org", "search": ["a"], "options": ["ndots:1"]}
    by_args, by_runtime = {"args": {"cni": {"ips": ["10.4.0.5/24"]}}}, {"runtimeConfig": {"ips": ["10.5.0.5/24"]}}
    return {
        **{f"version {v}": life({**dual, "cniVersion": v}) for v in VERSIONS},
        "VERSION": [version("static", {"cniVersion": "1.0.0"})],
        "routes": life(only(one, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.1.0.77"}])),
        "dns": life(only(one, dns=dns)),
        "several": life(only(one, two, "fd00:2::5/64")),
        "invalid: several, old version": refused({**only(one, two), "cniVersion": "0.2.0"}),
        "IP in CNI_ARGS": life(only(one, two), args="IP=10.3.0.5/24"),
        "IPs in CNI_ARGS": [add(only(one), args="IP=10.3.0.5/24, fd00:3::5/64")],
        "GATEWAY in CNI_ARGS": [add(only(one), args="IP=10.3.0.5/24,10.7.0.5/24;GATEWAY=10.3.0.1,10.7.0.1")],
        "GATEWAY without IP": [add(only(one, two), args="GATEWAY=10.1.0.1")],
        "GATEWAY of no network": [add(only(one), args="IP=10.3.0.5/24;GATEWAY=10.9.0.1")],
        "CNI_ARGS alone": life(only(), args="IP=10.3.0.5/24;GATEWAY=10.3.0.1"),
        "args.cni.ips": life(only(one, top=by_args), args="IP=10.3.0.5/24"),
        "runtimeConfig ips": life(only(one, top=by_runtime), args="IP=10.3.0.5/24"),
        "runtimeConfig ips beside args": life(only(one, top={**by_args, **by_runtime})),
        "runtimeConfig ips alone": life(only(top=by_runtime)),
        "host bits of IPv4 in IPv6": [add(only("::ffff:10.1.0.5/120"), fails=False)],
        "DEL of nothing": [delete(only(one), pod="", id="x")],
        "CHECK other gateway": [
            check(only(two), fails=True, previous={"cniVersion": "1.0.0", "ips": [{**two, "gateway": "10.2.0.9"}]})
        ],
        "CHECK address missing": [
            check(only(one), previous={"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.5/24"}]})
        ],
        "unusable: network": [add(only("10.1.0.0/24"))],
        "unusable: broadcast": [add(only("10.1.0.255/24"))],
        "unusable: gateway outside": [add(only({"address": one, "gateway": "10.9.0.1"}))],
        "unusable: twice": [add(only(one, one))],
        "unusable: no address": [add(only())],
        "plain address": refused(only(one, top={"runtimeConfig": {"ips": ["10.1.0.9"]}})),
        "invalid: plain address in addresses": refused(only("10.1.0.5")),
        "invalid: prefix": refused(only("10.1.0.5/33")),
        "invalid: no ipam": refused(net("static")),
        "IP in CNI_ARGS invalid": refused(only(one), args="IP=10.1.0"),
        "GATEWAY in CNI_ARGS invalid": refused(only(one), args="GATEWAY=ten"),
        "unknown CNI_ARGS": refused(only(one), args="FOO=1"),
        "unknown CNI_ARGS ignored": [add(only(one), args=K8S)],
        "behind bridge": life(br(ipam=fixed({"address": one, "gateway": "10.1.0.1"}), isGateway=True)),
    }


SECOND_NETWORK = fixed(
    {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::5/64", "gateway": "fd00:1::1"}
)


def sbr_cases() -> dict[str, list[Step]]:
    """Return sbr's cases behind bridge: rules, tables and routes of the pod, mistakes, and a DEL that finds nothing."""
    routes = [{"dst": "10.8.0.0/16", "gw": "10.1.0.77"}, {"dst": "10.9.0.0/16"}]

    def chain(ipam: Config = SECOND_NETWORK, top: Config | None = None, **keys: Any) -> list[Step]:
        link, config = br(ipam=ipam, **(top or {})), net("sbr", **(top or {}))
        checks = [check(config)] if link["cniVersion"] in WITH_CHECK else []
        return [add(link), add(config, previous=True, **keys), *checks, delete(config), delete(link)]

    return {
        **{f"version {v}": chain(top={"cniVersion": v}) for v in VERSIONS},
        "VERSION": [version("sbr", {"cniVersion": "1.0.0"})],
        "IPv4 only": chain(fixed({"address": "10.1.0.5/24", "gateway": "10.1.0.1"})),
        "routes": chain({**SECOND_NETWORK, "routes": routes}),
        "default routes": chain({**SECOND_NETWORK, "routes": [{"dst": "0.0.0.0/0"}]}),
        "no gateway": chain(fixed("10.1.0.5/24")),
        "two of a network": chain(fixed(
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "10.1.0.6/24", "gateway": "10.1.0.1"}
        )),
        "two networks": chain(fixed(
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "10.2.0.6/24", "gateway": "10.2.0.1"}
        )),
        "table in use": chain(before="pod a ip rule add from 10.77.0.1 lookup 100"),
        "invalid: prevResult absent": [add(net("sbr"), fails=True)],
        "no address": [
            add(no_ipam()), add(net("sbr"), previous=True, fails=True), delete(net("sbr")), delete(no_ipam()),
        ],
        "DEL twice": [*chain()[:-1], delete(net("sbr"))],
        "DEL netns empty": [add(c := br(ipam=SECOND_NETWORK)), add(s := net("sbr"), previous=True),
                            delete(s, pod="", id="c-a", fails=True), delete(c)],
        "DEL netns gone": [delete(net("sbr"), pod="gone", fails=True)],
    }  # fmt: skip


def vrf_cases() -> dict[str, list[Step]]:
    """Return vrf's cases behind bridge: the VRF and its table, mistakes, and a DEL that finds nothing."""

    def chain(**keys: Any) -> list[Step]:
        link, config = br(ipam=SECOND_NETWORK), net("vrf", vrfname="blue", **keys)
        return [add(link), add(config, previous=True), check(config), delete(config), delete(link)]

    blue = net("vrf", vrfname="blue")
    return {
        "version 1.0.0": chain(),
        "VERSION": [version("vrf", {"cniVersion": "1.0.0"})],
        "table, DEL twice": [*chain(table=77)[:-1], delete(blue)],
        "invalid: vrfname absent": [*chain()[:1], add(net("vrf"), previous=True, fails=True)],
        "DEL interface gone": [*chain()[:2], delete(blue, before="pod a ip link del eth0", fails=True)],
        "not in the VRF, netns gone": [
            *chain()[:2],
            check(blue, before="pod a ip link set eth0 nomaster"),
            delete(blue, before="drop a"),
        ],
    }  # fmt: skip


def host_device_cases() -> dict[str, list[Step]]:
    """host-device: every version, by name and MAC, with and without addresses, mistakes, and the way home."""
    make = f"ip link add dev0 address {MAC} type veth peer name far0; ip link set far0 up; ip link set dev0 up"
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]

    def lent(*sets: Any, **keys: Any) -> dict[str, Any]:
        return net("host-device", **{"device": "dev0", "ipam": pool(*(sets or (V4, V6)), routes=routes), **keys})

    def first(config: dict[str, Any], **keys: Any) -> Step:
        return add(config, before=make, **keys)

    dual, bare = lent(), net("host-device", device="dev0")
    by_mac = {key: value for key, value in lent(hwaddr=MAC).items() if key != "device"}
    mistakes: dict[str, dict[str, Any]] = {
        "no device": {key: value for key, value in dual.items() if key != "device"},
        "hwaddr that is text": {**by_mac, "hwaddr": "x"},
        "kernelpath elsewhere": {**by_mac, "hwaddr": "", "kernelpath": "/etc"},
        "pciBusID that is a list": lent(pciBusID=["0000:01:00.0"]),
        "ipam plugin missing": lent(ipam={"type": "absent"}),
    }
    losses = {
        "address": "pod a ip addr del 10.1.0.2/24 dev eth0",
        "route": "pod a ip route del default",
    }
    return {
        **{f"version {v}": [first(c := lent(cniVersion=v)), *life(c)[1:]] for v in VERSIONS},
        "VERSION": [version("host-device", {"cniVersion": "1.0.0"})],
        "by MAC": [first(by_mac), check(by_mac), delete(by_mac)],
        "without ipam": [first(bare), check(bare), delete(bare)],
        "other ifname": [first(dual, ifname="net1"), check(dual, ifname="net1"), delete(dual, ifname="net1")],
        "dns": [first(c := lent(dns={"nameservers": ["10.1.0.1"], "search": ["example.org"]})), delete(c)],
        "kubelet": [first(dual, args=K8S), delete(dual, args=K8S)],
        "two pods": [first(dual), add(dual, pod="b", fails=True), delete(dual)],
        "after another": [first(dual), delete(dual), add(dual, pod="b"), check(dual, pod="b"), delete(dual, pod="b")],
        "device missing": [add(dual, fails=True)],
        "name taken in the pod": [add(bare, before=f"{make}; pod a ip link add eth0 type ifb", fails=True)],
        "ADD twice": [first(dual), add(dual, fails=True)],
        "ADD netns gone": [add(dual, before=f"{make}; ip netns del a", fails=True)],
        "DEL netns empty": [first(dual), delete(dual, pod="", id="c-a")],
        **{f"CHECK {name}": [first(dual), check(dual, fails=True, before=loss)] for name, loss in losses.items()},
        **{f"invalid: {name}": [first(keys, fails=True)] for name, keys in mistakes.items()},
    }


def hand_over_cases() -> dict[str, list[Step]]:
    """Return the cases in which one suite begins and the other takes over on the same bridge and store.

    Each is played in both directions.
    """
    gw = br(isGateway=True)
    dual = br(V4, V6, isDefaultGateway=True, mtu=1400)
    tiny = br("10.1.0.0/29", isGateway=True)
    lo = net("loopback")
    cases = {
        f"life version {v}": [
            add(c := br(V4, V6, isDefaultGateway=True, cniVersion=v)),
            *([check(c, by=1)] if v in WITH_CHECK else []),
            delete(c, by=1),
        ]
        for v in VERSIONS
    }
    mapped = net(
        "portmap", backend="iptables",
        runtimeConfig={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    )  # fmt: skip
    cases |= {
        "host ports by iptables": [add(dual), add(mapped, previous=True), delete(mapped, by=1), delete(dual, by=1)],
        "ptp": [
            add(c := net("ptp", ipam=pool(V4, V6))),
            add(c, pod="b", by=1),
            check(c, by=1),
            delete(c, by=1),
            delete(c, pod="b"),
        ],
        "loopback": [add(lo, ifname="lo"), check(lo, ifname="lo", by=1), delete(lo, ifname="lo", by=1)],
        "static": [
            add(c := br(ipam=SECOND_NETWORK, isGateway=True)),
            check(c, by=1),
            delete(c, by=1),
            add(c, by=1),
            delete(c),
        ],
        "sbr": [
            add(c := br(ipam=SECOND_NETWORK)),
            add(s := net("sbr"), previous=True),
            check(s, by=1),
            delete(s, by=1),
            delete(c, by=1),
        ],
        "no ipam": [add(no_ipam()), delete(no_ipam(), by=1)],
        "mac and hairpin": [
            add(c := br(hairpinMode=True), args=f"MAC={MAC};IgnoreUnknown=1"),
            check(c, args=f"MAC={MAC};IgnoreUnknown=1", by=1),
            delete(c, by=1),
        ],
        "several pods": [
            add(gw),
            add(gw, pod="b"),
            add(gw, pod="c", by=1),
            check(gw, by=1),
            check(gw, pod="c"),
            delete(gw, pod="b", by=1),
            add(gw, pod="d", by=1),
            add(gw, pod="e"),
            delete(gw, pod="c"),
            check(gw, pod="e", by=1),
            delete(gw, by=1),
            delete(gw, pod="d"),
            delete(gw, pod="e", by=1),
        ],
        "several pods, dual stack": [
            add(dual),
            add(dual, pod="b", by=1),
            check(dual, by=1),
            check(dual, pod="b"),
            delete(dual, by=1),
            delete(dual, pod="b"),
        ],
        "two ifnames": [
            add(gw),
            add(gw, ifname="eth1", by=1),
            delete(gw, by=1),
            check(gw, ifname="eth1"),
            delete(gw, ifname="eth1"),
        ],
        "exhaustion and wrap-around": [
            *(add(tiny, pod=pod, by=n % 2) for n, pod in enumerate("abcde")),
            add(tiny, pod="f", by=1, fails=True),
            delete(tiny, pod="f"),
            delete(tiny, pod="b", by=1),
            add(tiny, pod="g"),
            *(delete(tiny, pod=pod, by=n % 2) for n, pod in enumerate("acdeg")),
        ],
        "limits": [
            add(gw),
            add(c := net("bandwidth", egressRate=8_000_000, egressBurst=1_000_000), previous=True),
            delete(c, by=1),
            delete(gw, by=1),
        ],
        "ADD twice": [add(gw), add(gw, by=1, fails=True), delete(gw, by=1)],
        "netns gone": [add(gw), delete(gw, before="drop a", by=1)],
        "netns empty": [add(gw), delete(gw, pod="", id="c-a", by=1), delete(gw, before="drop a")],
        "CHECK address removed": [
            add(gw),
            check(gw, by=1, fails=True, before="pod a ip addr flush dev eth0"),
            delete(gw, by=1),
        ],
        "CHECK lease gone": [
            add(gw),
            check(gw, by=1, fails=True, before="rm /var/lib/cni/networks/net/10*"),
            delete(gw, by=1),
        ],
        "the other's ipam": [add(dual, path=1), check(dual, by=1, path=0), delete(dual, path=1)],
        "the other's ipam refuses": [add(tiny, args="FOO=1", path=1, fails=True), delete(tiny, by=1)],
        "the other's ipam is full": [
            add(c := br("10.1.0.0/30", isGateway=True), path=1),
            add(c, pod="b", path=1, fails=True),
            delete(c, pod="b", path=1),
            delete(c, by=1),
        ],
        "host-local": [
            add(c := local(V4, V6)),
            add(c, pod="b", by=1),
            check(c, by=1),
            check(c, pod="b"),
            delete(c, by=1),
            add(c, pod="d"),
            delete(c, pod="b"),
            delete(c, pod="d", by=1),
        ],
        "forceAddress": [
            add(gw),
            delete(gw),
            add(c := br("10.3.0.0/24", isGateway=True, forceAddress=True), by=1),
            delete(c),
        ],
    }
    return cases


VRF_CASES = {
    "hand-over/vrf": [
        add(c := br(ipam=SECOND_NETWORK)), add(v := net("vrf", vrfname="blue"), previous=True), check(v, by=1),
        delete(v, by=1), delete(c),
    ],
}  # fmt: skip
VLAN_CASES = {
    "bridge/vlan, isGateway": [
        add(c := br(V4, V6, vlan=7, isGateway=True)),
        check(c),
        add(c, pod="b"),
        delete(c),
        delete(c, pod="b"),
    ],
    "bridge/vlan on a bridge without": [add(br()), add(br(vlan=7), pod="b"), delete(br(vlan=7), pod="b")],
    "hand-over/vlan": [add(c), check(c, by=1), add(c, pod="b", by=1), delete(c, by=1), delete(c, pod="b")],
}

UPLINK = "ip link add up0 type veth peer name up0p; ip link set up0 up; ip link set up0p up; "


def _sublink_cases(plugin: str, keys: Config, mistakes: Config) -> dict[str, list[Step]]:
    """Return cases of a plugin whose link is on up0: a life, a failed ADD, mistakes, and what goes before DEL."""

    def on_up0(*sets: Any, **more: Any) -> dict[str, Any]:
        return net(plugin, **{"master": "up0", "ipam": pool(*(sets or (V4, V6))), **keys, **more})

    def played(steps: list[Step]) -> list[Step]:
        return [replace(steps[0], before=UPLINK + steps[0].before), *steps[1:]]

    whole, one = on_up0(mtu=1400), on_up0()
    cases: dict[str, list[Step]] = {
        "VERSION": [version(plugin, {"cniVersion": "1.0.0"})],
        "version 1.0.0": [*life(whole), delete(whole)],
        "CHECK link down": [
            add(one), check(one, fails=True, before="pod a ip link set eth0 down"), delete(one, before="drop a"),
        ],
        "ipam plugin missing": refused(on_up0(ipam={"type": "absent"})),
        **{f"invalid: {name}": refused(on_up0(**more)) for name, more in mistakes.items()},
    }  # fmt: skip
    return {name: played(steps) for name, steps in cases.items()}


def vlan_cases() -> dict[str, list[Step]]:
    """vlan: a life and mistakes."""
    mistakes = {
        "vlanId 4095": {"vlanId": 4095},
        "mtu above the master's": {"mtu": 1501},
        "no such master": {"master": "none"},
    }
    return _sublink_cases("vlan", {"vlanId": 100}, mistakes)


def ipvlan_cases() -> dict[str, list[Step]]:
    """ipvlan: a life in each mode, mistakes, a chain."""
    cases = _sublink_cases("ipvlan", {}, {"mode": {"mode": "l4"}, "no such master": {"master": "none"}})
    l3, l3s = (net("ipvlan", master="up0", mode=mode, ipam=pool(V4)) for mode in ("l3", "l3s"))
    given = {"cniVersion": "1.0.0", "interfaces": [{"name": "up0"}], "ips": [{"address": "10.1.0.9/24"}]}
    chained = net("ipvlan", prevResult=given)
    return cases | {
        "modes": [add(l3, before=UPLINK), check(l3), delete(l3), add(l3s), delete(l3s)],
        "chained": [add(chained, before=UPLINK), delete(chained)],
    }


def dhcp_cases() -> dict[str, list[Step]]:
    """Return the calls of dhcp without its daemon. The system tests cover those with it."""
    alone = net("dhcp", ipam={"type": "dhcp"})
    bridged = net("bridge", bridge="cni0", ipam={"type": "dhcp"})
    return {
        "VERSION": [version("dhcp", {"cniVersion": "1.0.0"})],
        "no daemon": [add(bridged, fails=True)],
        "DEL without daemon": [delete(alone, fails=True)],
        "invalid: an option": [add(net("dhcp", ipam={"type": "dhcp", "request": [{"option": "x"}]}), fails=True)],
    }


GROUPS = {
    "dhcp": dhcp_cases,
    "loopback": loopback_cases,
    "host-local": host_local_cases,
    "bridge": bridge_cases,
    "portmap": portmap_cases,
    "firewall": firewall_cases,
    "tuning": tuning_cases,
    "bandwidth": bandwidth_cases,
    "ptp": ptp_cases,
    "macvlan": macvlan_cases,
    "ipvlan": ipvlan_cases,
    "vlan": vlan_cases,
    "static": static_cases,
    "sbr": sbr_cases,
    "vrf": vrf_cases,
    "host-device": host_device_cases,
    "hand-over": hand_over_cases,
}
# By group: the feature that a kernel may lack (tests/kernel/features.py). Cases of NO_LINK do without it.
NEEDS = {"ipvlan": "kernel_ipvlan", "vlan": "kernel_8021q", "vrf": "kernel_vrf"}
NO_LINK = ("VERSION", "invalid")
CASES = tuple(
    Case(f"{group}/{name}", steps, needs="" if name.startswith(NO_LINK) else NEEDS.get(group, ""))
    for group, make in GROUPS.items()
    for name, steps in make().items()
)
CASES += tuple(Case(name, steps, needs="kernel_vlan") for name, steps in VLAN_CASES.items())
CASES += tuple(Case(name, steps, needs="kernel_vrf") for name, steps in VRF_CASES.items())
