"""Results of all versions: converted both ways, with the parts that each version cannot express."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cni.errors import DecodingFailure, IncompatibleVersion
from shared.cni.ip import Address, Prefix
from shared.cni.result import IP, Interface, Result, Route, dns_from_json, route_from_json
from shared.cni.versions import CURRENT, SUPPORTED, at_least

OLD = ("0.1.0", "0.2.0")
LISTS = tuple(version for version in SUPPORTED if version not in OLD)

SLOW = settings(max_examples=40)  # whole results take their time to make

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
v4 = st.integers(1, 2**32 - 1).map(lambda value: Address(4, value))
v6 = st.integers(1 << 120, 2**128 - 1).map(lambda value: Address(6, value))
interfaces = st.builds(
    Interface, words, st.sampled_from(["", "02:00:00:00:00:01"]), st.sampled_from(["", "/run/netns/pod"]),
    st.sampled_from([0, 1500]),
    st.fixed_dictionaries({}, optional={"socketPath": st.just("/run/s"), "pciID": st.just("0000:00:1f.6")}),
)  # fmt: skip
numbers = st.sampled_from([0, 1, 253, 255])
route_extras = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("mtu", "advmss", "priority", "table", "scope"), numbers)
)
dns = st.fixed_dictionaries(
    {}, optional={"nameservers": st.lists(words, min_size=1), "domain": words, "search": st.lists(words, min_size=1),
                  "options": st.lists(words, min_size=1)},
)  # fmt: skip


@st.composite
def results(draw: st.DrawFn, addresses: int = 0) -> Result:
    result = Result()
    result.interfaces = draw(st.lists(interfaces, max_size=3))
    place = st.none() | st.integers(0, len(result.interfaces) - 1) if result.interfaces else st.none()
    for family, bits in ((v4, 32), (v6, 128)):
        result.ips += draw(
            st.lists(st.builds(IP, st.builds(Prefix, family, st.integers(0, bits)), st.none() | family, place),
                     min_size=addresses, max_size=2)
        )  # fmt: skip
        result.routes += draw(
            st.lists(st.builds(Route, st.builds(Prefix, family, st.integers(0, bits)), st.none() | family, route_extras),
                     max_size=2)
        )  # fmt: skip
    result.dns = draw(dns)
    return result


def through(result: Result, version: str) -> tuple[dict[str, Any], Result]:
    """Write and read again, by way of the text."""
    written = json.loads(json.dumps(result.to_json(version)))
    return written, Result.from_json(written, version)


@SLOW
@given(results())
def test_the_current_version_loses_nothing(result: Result) -> None:
    written, read = through(result, CURRENT)
    assert read.to_json(CURRENT) == written == result.to_json(CURRENT)


@SLOW
@given(results(), st.sampled_from(LISTS[:-1]))
def test_lists_of_interfaces_and_addresses(result: Result, version: str) -> None:
    """From 0.3.0 everything but 1.1.0's additions survives; before 1.0.0 each address has its family."""
    written, read = through(result, version)
    assert written["cniVersion"] == version and "dns" in written
    assert [(i.name, i.mac, i.sandbox) for i in read.interfaces] == [
        (i.name, i.mac, i.sandbox) for i in result.interfaces
    ]
    assert [(i.address, i.gateway, i.interface) for i in read.ips] == [
        (i.address, i.gateway, i.interface) for i in result.ips
    ]
    assert [(route.dst, route.gw) for route in read.routes] == [(route.dst, route.gw) for route in result.routes]
    assert read.dns == result.dns
    assert all(not interface.mtu and not interface.extra for interface in read.interfaces)
    assert all(set(route) <= {"dst", "gw"} for route in written.get("routes", ()))
    for raw, ip in zip(written.get("ips", ()), result.ips):
        assert raw.get("version") == (None if at_least(version, "1.0.0") else str(ip.address.version))


@SLOW
@given(results(addresses=1), st.sampled_from(OLD))
def test_the_versions_of_old(result: Result, version: str) -> None:
    """These have the first address of each family, its routes, no interfaces."""
    written, read = through(result, version)
    assert set(written) <= {"cniVersion", "ip4", "ip6", "dns"} and written["cniVersion"] == version
    firsts = [next(ip for ip in result.ips if ip.address.version == family) for family in (4, 6)]
    assert [(ip.address, ip.gateway, ip.interface) for ip in read.ips] == [
        (ip.address, ip.gateway, None) for ip in firsts
    ]
    assert [(route.dst, route.gw, route.extra) for route in read.routes] == [(r.dst, r.gw, {}) for r in result.routes]
    assert read.interfaces == [] and read.dns == result.dns


@SLOW
@given(results(addresses=1), st.lists(st.sampled_from(SUPPORTED), min_size=1, max_size=6))
def test_round_trips_settle(result: Result, versions: list[str]) -> None:
    """Any chain of versions and back changes nothing the second time."""

    def chain(given: Result) -> Result:
        for version in versions:
            given = through(given, version)[1]
        return given

    once = chain(result)
    assert chain(once).to_json(CURRENT) == once.to_json(CURRENT)
    assert {ip.address for ip in once.ips} <= {ip.address for ip in result.ips}


@SLOW
@given(results(addresses=1), st.sampled_from(SUPPORTED), st.sampled_from(SUPPORTED))
def test_by_way_of_the_current_version(result: Result, first: str, second: str) -> None:
    """A version's form does not depend on the versions that a chain went through, as long as those can express it."""
    if at_least(first, second):
        assert through(result, first)[1].to_json(second) == result.to_json(second)


@pytest.mark.parametrize("version", OLD)
def test_the_versions_of_old_need_an_address(version: str) -> None:
    result = Result()
    result.interfaces = [Interface("eth0")]
    with pytest.raises(IncompatibleVersion, match="needs an address") as caught:
        result.to_json(version)
    assert caught.value.code == 1


def test_a_family_without_address_loses_its_routes() -> None:
    result = Result()
    result.ips = [IP(Prefix.parse("10.1.0.2/24"))]
    result.routes = [Route(Prefix.parse("::/0")), Route(Prefix.parse("0.0.0.0/0"), Address.parse("10.1.0.1"))]
    assert result.to_json("0.2.0") == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.2/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
        "dns": {},
    }


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_without_version_takes_the_configurations(version: str) -> None:
    """REFERENCE: a result without cniVersion takes the configuration's."""
    ip = {"ip4": {"ip": "10.1.0.2/24"}} if version in OLD else {"ips": [{"version": "4", "address": "10.1.0.2/24"}]}
    for raw in (ip, {**ip, "cniVersion": ""}, {**ip, "cniVersion": None}):
        assert [str(each.address) for each in Result.from_json(raw, version).ips] == ["10.1.0.2/24"]


@pytest.mark.parametrize("version", SUPPORTED)
def test_names_in_any_case(version: str) -> None:
    """As Go reads them: an exact name wins."""
    result = Result()
    result.interfaces = [] if version in OLD else [Interface("eth0", "02:00:00:00:00:01", "/run/netns/a")]
    result.ips = [IP(Prefix.parse("10.1.0.2/24"), Address.parse("10.1.0.1"))]
    result.routes = [Route(Prefix.parse("0.0.0.0/0"))]
    result.dns = {"nameservers": ["10.1.0.9"]}
    written = result.to_json(version)

    def capitals(value: Any) -> Any:
        if isinstance(value, dict):
            return {key.upper(): capitals(member) for key, member in value.items()}
        return [capitals(member) for member in value] if isinstance(value, list) else value

    assert Result.from_json(capitals(written), "1.1.0").to_json(version) == written
    assert Result.from_json({**capitals(written), **written, "DNS": {}}, "1.1.0").to_json(version) == written


def test_an_ipam_result_with_interface_but_no_interfaces() -> None:
    """Old IPAM plugins set "interface": 0 without listing any; the plugin that called them fills it in."""
    assert Result.from_json({"ips": [{"address": "10.1.0.2/24", "interface": 0}]}, "0.3.1").ips[0].interface is None


@pytest.mark.parametrize("raw", [
    None, [], "x", 1, {"cniVersion": "9.9.9"}, {"cniVersion": 5}, {"cniVersion": ["1.0.0"]}, {"ips": {}}, {"ips": [None]}, {"ips": [{}]},
    {"ips": [{"address": "10.1.0.2"}]}, {"ips": [{"address": 5}]}, {"ips": [{"address": None}]},
    {"ips": [{"address": "10.1.0.2/24", "gateway": "x"}]}, {"ips": [{"address": "10.1.0.2/24", "gateway": 7}]},
    {"ips": [{"address": "10.1.0.2/24", "interface": True}]}, {"ips": [{"address": "10.1.0.2/24", "interface": "0"}]},
    {"interfaces": [{"name": "a"}], "ips": [{"address": "10.1.0.2/24", "interface": 1}]},
    {"interfaces": [{"name": "a"}], "ips": [{"address": "10.1.0.2/24", "interface": -1}]},
    {"interfaces": [{"name": 5}]}, {"interfaces": [{"name": "a", "mtu": "x"}]}, {"interfaces": [{"name": "a", "mtu": {}}]}, {"interfaces": "ab"},
    {"interfaces": [{"name": "a", "mtu": "1500"}]}, {"interfaces": [{"name": "a", "mtu": True}]},
    {"interfaces": [{"name": "a", "mtu": math.inf}]}, {"interfaces": [{"name": "a", "mtu": -1}]},
    {"routes": [{}]}, {"routes": [{"dst": "10.0.0.0"}]}, {"routes": [{"dst": "10.0.0.0/8", "gw": 5}]},
    {"routes": [{"dst": "10.0.0.0/8", "mtu": "9"}]}, {"routes": [{"dst": "10.0.0.0/8", "mtu": True}]},
    {"routes": [{"dst": "10.0.0.0/8", "priority": 2**32}]}, {"routes": [{"dst": "10.0.0.0/8", "scope": 256}]},
    {"dns": []}, {"dns": {"nameservers": "1.1.1.1"}}, {"dns": {"domain": 5}}, {"dns": {"search": [1]}},
])  # fmt: skip
def test_what_is_no_result(raw: Any) -> None:
    """Each is code 6, never another exception."""
    with pytest.raises(DecodingFailure) as caught:
        Result.from_json(raw, "1.0.0", "prevResult")
    assert caught.value.code == 6


@pytest.mark.parametrize("raw", [
    {"ip4": 5}, {"ip4": {}}, {"ip4": {"ip": 5}}, {"ip6": {"ip": "x"}}, {"ip4": {"ip": "10.1.0.2/24", "routes": 5}},
    {"ip4": {"ip": "10.1.0.2/24", "routes": [5]}}, {"ip4": {"ip": "10.1.0.2/24", "routes": "ab"}}, {"ip4": {"ip": "10.1.0.2/24"}, "dns": 3},
    {"ip4": {"ip": "10.1.0.2/24", "routes": {"dst": "x"}}},
])  # fmt: skip
def test_what_is_no_result_of_old(raw: Any) -> None:
    with pytest.raises(DecodingFailure):
        Result.from_json(raw, "0.2.0")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6", "ip", "address", "interface", "name", "mtu",
             "dst", "gw", "gateway", "search", "domain"]
        ),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(json_values, st.sampled_from(SUPPORTED))
def test_any_json_is_a_result_or_an_error(raw: Any, version: str) -> None:
    """The only exception is DecodingFailure, however odd the answer of another plugin."""
    try:
        result = Result.from_json(raw, version)
    except DecodingFailure:
        return
    again = Result.from_json(result.to_json(CURRENT), CURRENT)
    assert again.to_json(CURRENT) == result.to_json(CURRENT)


def test_dns_of_containerd() -> None:
    """Keys are capitalised and members null; empty ones are left out."""
    raw = {"Nameservers": ["1.1.1.1"], "Search": None, "OPTIONS": [], "domain": ""}
    assert dns_from_json(raw) == {"nameservers": ["1.1.1.1"]}
    assert dns_from_json(None) == {}


def test_route_extras() -> None:
    route = route_from_json({"dst": "10.0.0.0/8", "mtu": 1400, "scope": 0, "table": None, "other": "x"})
    assert route.extra == {"mtu": 1400, "scope": 0} and route.gw is None


@pytest.mark.parametrize("version", SUPPORTED)
def test_order_of_versions(version: str) -> None:
    assert [at_least(version, other) for other in SUPPORTED] == [
        tuple(map(int, version.split("."))) >= tuple(map(int, other.split("."))) for other in SUPPORTED
    ]
