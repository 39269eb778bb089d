"""Leases are counted by the names of files, however many there are."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipam.host_local.lease import Lease
from shared.cluster.leases import holders, used
from shared.cni.errors import IOFailure

BLOCKS = [ip_network(one) for one in ("10.1.0.0/24", "10.1.1.0/28", "10.1.0.0/16", "fd00:1::/64", "fd00:2::/120")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "pods"
    directory.mkdir(mode=0o700)
    return directory


def test_a_network_without_a_store_has_none(tmp_path: Path) -> None:
    assert used(str(tmp_path), "pods", BLOCKS) == dict.fromkeys(BLOCKS, 0)
    assert holders(str(tmp_path), "pods", BLOCKS[0]) == {}


def test_each_block_has_its_own(store: Path) -> None:
    names = [
        "10.1.0.2",
        "10.1.0.255",
        "10.1.1.15",
        "10.1.1.16",
        "10.2.0.1",
        "fd00:1::2",
        "fd00:2::ff",
        "fd00:2::100",
        "::a01:1",
    ]
    for name in names:
        (store / name).write_bytes(Lease("c1", "eth0").content)
    (store / "10.1.0.3").write_bytes(b"\0\0\0")  # garbled by a crash
    for name in ("lock", "last_reserved_ip.0", "::ffff:10.1.0.9.tmp"):
        (store / name).touch()
    assert list(used(str(store.parent), "pods", BLOCKS).values()) == [3, 1, 5, 1, 1]
    assert holders(str(store.parent), "pods", BLOCKS[0]) == {
        ip_address("10.1.0.2"): Lease("c1", "eth0"), ip_address("10.1.0.255"): Lease("c1", "eth0"),
        ip_address("10.1.0.3"): None,
    }  # fmt: skip


def test_no_file_is_opened(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10_000):
        (store / f"10.1.{number // 250}.{number % 250}").touch()
    opened: list[object] = []
    real = os.open

    def open_(path: object, *args: object, **keys: object) -> int:
        opened.append(path)
        return real(path, *args, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr("posix.open", open_)
    assert used(str(store.parent), "pods", BLOCKS)[BLOCKS[2]] == 10_000
    assert opened == [str(store)]


def test_a_store_of_another_user_is_refused(store: Path) -> None:
    store.chmod(0o777)
    with pytest.raises(IOFailure, match="mode 0777"):
        used(str(store.parent), "pods", BLOCKS)
