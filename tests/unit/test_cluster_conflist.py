"""The conflist from the administrator's template: ranges, MTU, networks that are not masqueraded; and errors."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cluster import conflist
from shared.cluster.model import Kind, Pool, Range
from shared.cni.errors import IOFailure
from tests.dying import killed_at_each

V4, V6 = ip_network("10.0.0.0/8"), ip_network("fd00::/48")
POOL = Pool("pods", Kind.ROUTED, (Range(V4, 24), Range(V6, 64)))
LAN = Pool("lan", Kind.SEGMENT, (Range(ip_network("192.168.0.0/24"), 28, ip_address("192.168.0.254")),))
A, B, A6 = ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24"), ip_network("fd00:0:0:1::/64")
BRIDGE: dict[str, Any] = {"type": "bridge", "ipMasq": True, "ipam": {"type": "host-local"}}


def template(tmp_path: Path, *plugins: dict[str, Any], **keys: Any) -> Path:
    path = tmp_path / "pods.template"
    raw = {"cniVersion": "1.0.0", "name": "pods", "plugins": list(plugins or (BRIDGE, {"type": "portmap"})), **keys}
    path.write_text(json.dumps(raw))
    return path


def rendered(path: Path, *cidrs: Any, pool: Pool = POOL, mtu: int = 1450, exempt: Any = (V4, V6)) -> Any:
    text = conflist.render(conflist.read(path, pool.network), pool, cidrs, mtu=mtu, unmasqueraded=exempt)
    return json.loads(text)


def test_ranges_of_one_family_are_one_set(tmp_path: Path) -> None:
    found = rendered(template(tmp_path), B, A6, A)
    assert found["plugins"][0]["ipam"]["ranges"] == [[{"subnet": str(B)}, {"subnet": str(A)}], [{"subnet": str(A6)}]]
    assert found["plugins"][1] == {"type": "portmap"}
    assert (found["name"], found["cniVersion"]) == ("pods", "1.0.0")


@pytest.mark.parametrize(
    ("cidr", "start", "end"),
    [
        ("192.168.0.0/28", "192.168.0.1", "192.168.0.15"),
        ("192.168.0.16/28", "192.168.0.16", "192.168.0.31"),
        ("192.168.0.240/28", "192.168.0.240", "192.168.0.254"),
    ],
)
def test_blocks_of_a_segment_share_its_subnet(tmp_path: Path, cidr: str, start: str, end: str) -> None:
    path = template(tmp_path, {"type": "macvlan", "ipam": {"type": "host-local"}}, name="lan")
    found = rendered(path, ip_network(cidr), pool=LAN, mtu=0)
    assert found["plugins"][0] == {"type": "macvlan", "ipam": {"type": "host-local", "ranges": [[{
        "subnet": "192.168.0.0/24", "rangeStart": start, "rangeEnd": end, "gateway": "192.168.0.254",
    }]]}}  # fmt: skip


@given(st.sampled_from([(4, 16, 29), (6, 48, 120)]), st.data())
def test_a_segments_blocks_are_read_back(sizes: tuple[int, int, int], data: st.DataObject) -> None:
    version, length, block_length = sizes
    whole = ip_network(("10.0.0.0" if version == 4 else "fd00::") + f"/{length}")
    last = 2 ** (block_length - length) - 1
    places = data.draw(st.lists(st.sampled_from([0, 1, last - 1, last]) | st.integers(0, last), unique=True))
    size = 2 ** (whole.max_prefixlen - block_length)
    cidrs = [ip_network((int(whole.network_address) + one * size, block_length)) for one in places]
    pool = Pool("lan", Kind.SEGMENT, (Range(whole, block_length),))
    read = conflist.Template(Path("lan"), {"plugins": [BRIDGE]}, 0)
    raw = json.loads(conflist.render(read, pool, cidrs, mtu=0, unmasqueraded=()))
    assert list(conflist.cidrs_in(raw)) == cidrs


@pytest.mark.parametrize(("keys", "mtu"), [({}, 1450), ({"mtu": "auto"}, 1450), ({"MTU": "auto"}, 1450), ({"mtu": 9000}, 9000)])  # fmt: skip
def test_mtu(tmp_path: Path, keys: dict[str, Any], mtu: int) -> None:
    found = rendered(template(tmp_path, {**BRIDGE, **keys}), A)["plugins"][0]
    assert {key.lower(): value for key, value in found.items() if key.lower() == "mtu"} == {"mtu": mtu}


def test_an_unknown_mtu_is_left_to_the_kernel(tmp_path: Path) -> None:
    assert "mtu" not in rendered(template(tmp_path, {**BRIDGE, "mtu": "auto"}), A, mtu=0)["plugins"][0]


def test_pods_are_not_masqueraded_to_pods(tmp_path: Path) -> None:
    own = {**BRIDGE, "nonMasqueradeCIDRs": ["172.16.0.0/12", str(V4)]}
    assert rendered(template(tmp_path, own), A)["plugins"][0]["nonMasqueradeCIDRs"] == [
        "172.16.0.0/12", str(V4), str(V6),
    ]  # fmt: skip
    for plain in ({**BRIDGE, "ipMasq": False}, {"type": "ptp", "ipam": {"type": "host-local"}}):
        assert "nonMasqueradeCIDRs" not in rendered(template(tmp_path, plain), A)["plugins"][0]
    assert conflist.exempt([POOL, LAN]) == (V4, V6)


@pytest.mark.parametrize(
    ("plugins", "keys", "words"),
    [
        ((), {"name": "other"}, "name: must be the pool's name 'pods', not 'other'"),
        ((), {"plugins": {}}, "plugins: a list of at least one plugin is required"),
        (({"ipam": {}},), {}, r"plugins\[0\]: an object with a type is required"),
        (({"type": "bridge", "ipam": {"type": "dhcp"}},), {}, "plugins: one with an ipam of type host-local"),
        (({"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.0.0.0/8"}},), {},
         r"plugins\[0\]\.ipam\.subnet: must be absent"),
        (({"type": "bridge", "IPAM": {"type": "host-local", "Ranges": [[{}]]}},), {},
         r"plugins\[0\]\.ipam\.ranges: must be absent"),
        ((BRIDGE, BRIDGE), {}, r"plugins\[1\]\.ipam: must be of another type than host-local"),
        (({"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/16"}]]}}, BRIDGE), {},
         r"plugins\[1\]\.ipam: must be of another type than host-local"),
        (({**BRIDGE, "mtu": "large"},), {}, r"plugins\[0\]\.mtu: a number of bytes or \"auto\" is required, not 'large'"),
        (({**BRIDGE, "nonMasqueradeCIDRs": "10.0.0.0/8"},), {}, r"plugins\[0\]\.nonMasqueradeCIDRs: a list"),
        (({**BRIDGE, "ipam": {"type": "host-local", "dataDir": "x"}},), {}, r"plugins\[0\]\.ipam\.dataDir: an absolute"),
    ],
)  # fmt: skip
def test_an_error_names_file_and_key(tmp_path: Path, plugins: Any, keys: dict[str, Any], words: str) -> None:
    path = template(tmp_path, *plugins, **keys)
    with pytest.raises(conflist.InvalidTemplate, match=rf"^{path}: {words}"):
        conflist.read(path, "pods")


@pytest.mark.parametrize("text", [None, "", "[]", "{", "\udcff"])
def test_a_garbled_template_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "pods.template"
    if text is not None:
        path.write_text(text, errors="surrogateescape")
    with pytest.raises(conflist.InvalidTemplate, match=rf"^{path}: "):
        conflist.read(path, "pods")


def test_a_block_outside_of_the_pool_is_refused(tmp_path: Path) -> None:
    path = template(tmp_path, name="lan")
    with pytest.raises(conflist.InvalidTemplate, match=r"block 10\.1\.0\.0/24 is in no range of pool lan"):
        rendered(path, A, pool=LAN)


def publish(path: Path, target: Path, *cidrs: Any) -> bool:
    return conflist.publish(conflist.read(path, "pods"), target, POOL, cidrs, mtu=0, unmasqueraded=())


def test_only_a_difference_is_written(tmp_path: Path) -> None:
    path, target = template(tmp_path), tmp_path / "net.d/10-pods.conflist"
    assert not publish(path, target)
    assert not target.exists()
    assert publish(path, target, A, A6)
    before = target.stat().st_ino
    assert target.stat().st_mode & 0o777 == 0o600
    assert not publish(path, target, A, A6)
    assert target.stat().st_ino == before
    assert publish(path, target, B, A, A6)
    assert conflist.published(target) == (B, A, A6)
    assert [one.name for one in target.parent.iterdir()] == [target.name]


def test_without_a_range_the_file_stays(tmp_path: Path) -> None:
    path, target = template(tmp_path), tmp_path / "net.d/10-pods.conflist"
    publish(path, target, A)
    assert publish(path, target)
    assert json.loads(target.read_text())["plugins"][0]["ipam"]["ranges"] == []
    assert conflist.published(target) == ()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path, target = template(tmp_path), tmp_path / "net.d/10-pods.conflist"
    target.mkdir(parents=True)
    with pytest.raises(IOFailure, match=rf"cannot write {target}: Is a directory"):
        publish(path, target, A)


@pytest.mark.parametrize("text", [None, "", "[]", '{"plugins": 1}', '{"plugins": [{"ipam": {"type": "host-local", "ranges": [[1]]}}]}'])  # fmt: skip
def test_a_garbled_conflist_has_no_ranges(tmp_path: Path, text: str | None) -> None:
    target = tmp_path / "pods.conflist"
    if text is not None:
        target.write_text(text)
    assert conflist.published(target) == ()


def test_killed_at_each_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime reads the old conflist or the new one, never a part, and finds no other file to load."""
    path, target = template(tmp_path), tmp_path / "net.d/10-pods.conflist"
    publish(path, target, A)
    seen = set()
    for _ in killed_at_each(lambda: publish(path, target, B), monkeypatch):
        seen.add(conflist.published(target))
        found = [one.name for one in target.parent.iterdir() if one.suffix in (".conf", ".conflist", ".json")]
        assert found == [target.name]
        publish(path, target, B)
        assert [one.name for one in target.parent.iterdir()] == [target.name]
        publish(path, target, A)
    assert seen == {(A,), (B,)}
