"""The peers of the WireGuard device: the requests in pyroute2's terms, the answers, and the node's own key."""

from __future__ import annotations

import errno
import os
from base64 import b64decode, b64encode
from ipaddress import ip_address, ip_network
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from pyroute2.netlink import NLA_F_NESTED
from pyroute2.netlink.generic.wireguard import wgmsg

from shared.cluster import wireguard
from shared.cluster.model import Route
from shared.cluster.wireguard import NAME, PORT, Family, Remote, plan
from shared.cni.errors import InternalError, IOFailure
from shared.net.messages import encode
from shared.net.netlink import Request
from shared.net.wireguard_wire import GENL_ID_CTRL
from tests.unit.kernel_end import KernelEnd, done, error

NUMBER = 28  # of the family
V4, V6 = ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")
NEAR, FAR = ip_address("192.0.2.2"), ip_address("2001:db8::3")
B, C = (b64encode(bytes([number]) * 32).decode() for number in (2, 3))


def to(key: str, cidr: Any, via: Any = NEAR) -> Route:
    return Route(cidr, "b", via, is_tunnelled=True, key=key)


def remote(via: Any, *cidrs: Any) -> Remote:
    return Remote(via, PORT, frozenset(cidrs))


def attribute(number: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def nested(number: int, *parts: bytes) -> bytes:
    return attribute(number | NLA_F_NESTED, *parts)


def tables() -> Any:
    family = Family.__new__(Family)
    family.use(NUMBER)
    return family.tables


def described(request: Request) -> Any:
    """Return the peers of a request as pyroute2 reads it: key, flags, address and port, CIDRs."""
    data = encode(request.kind, request.flags, 1, request.message, tables())
    message = wgmsg(data)
    message.decode()
    assert (message["cmd"], message["version"], message.get_attr("WGDEVICE_A_IFNAME")) == (1, 1, NAME)
    found = []
    for peer in message.get_attr("WGDEVICE_A_PEERS"):
        end = peer.get_attr("WGPEER_A_ENDPOINT")
        found.append((
            peer.get_attr("WGPEER_A_PUBLIC_KEY").decode(), peer.get_attr("WGPEER_A_FLAGS"),
            end and (end["addr"], end["port"]),
            [one["addr"] for one in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()],
        ))  # fmt: skip
    return found


def told(*peers: tuple[str, Any, list[Any]], key: str = "") -> bytes:
    """Return a message about the device as drivers/net/wireguard/netlink.c writes it: it numbers all elements 0."""
    listed = []
    for name, end, cidrs in peers:
        endpoint = b""
        if end is not None:
            family, rest = (2, bytes(8)) if end.version == 4 else (10, bytes(4))
            flow = b"" if end.version == 4 else bytes(4)
            endpoint = attribute(4, pack("=H", family) + pack(">H", PORT) + flow + end.packed + rest)
        allowed = [
            nested(0, attribute(1, pack("=H", 2 if one.version == 4 else 10)), attribute(2, one.network_address.packed),
                   attribute(3, bytes([one.prefixlen])))
            for one in cidrs
        ]  # fmt: skip
        listed.append(nested(0, attribute(1, b64decode(name)), attribute(7, bytes(8)), endpoint, nested(9, *allowed)))
    body = [bytes([0, 1, 0, 0]), attribute(6, pack("=H", PORT)), attribute(2, NAME.encode() + b"\0")]
    body += [attribute(4, b64decode(key))] if key else []
    data = b"".join([*body, nested(8, *listed)])
    return pack("=IHHII", 16 + len(data), NUMBER, 2, 1, 0) + data


def asked(*answers: bytes) -> KernelEnd:
    return KernelEnd(lambda _kind, _sequence, _request: list(answers), of=Family)


def test_a_new_peer_gets_address_and_cidrs() -> None:
    before, after = plan(NUMBER, {}, [to(B, V4), to(B, V6), to(C, ip_network("10.2.0.0/16"), FAR)])
    assert [described(one) for one in before] == [
        [(B, 2, ("192.0.2.2", PORT), ["10.1.0.0/24", "fd00:1::/64"])],
        [(C, 2, ("2001:db8::3", PORT), ["10.2.0.0/16"])],
    ]
    assert after == []


def test_only_differences_are_requested() -> None:
    have = {B: remote(NEAR, V4, V6), C: remote(FAR)}
    assert plan(NUMBER, have, [to(B, V4), to(B, V6)])[0] == []
    (moved,), (left,) = plan(NUMBER, have, [to(B, V4, FAR), to(B, V6, FAR)])
    assert described(moved) == [(B, 2, ("2001:db8::3", PORT), ["10.1.0.0/24", "fd00:1::/64"])]
    assert described(left) == [(C, 1, None, [])]
    assert len(plan(NUMBER, {B: Remote(NEAR, 1, frozenset([V4]))}, [to(B, V4)])[0]) == 1


def test_a_replaced_key_takes_the_cidrs_over_before_the_old_one_goes() -> None:
    (new,), (old,) = plan(NUMBER, {B: remote(NEAR, V4)}, [to(C, V4)])
    assert described(new) == [(C, 2, ("192.0.2.2", PORT), ["10.1.0.0/24"])]
    assert described(old) == [(B, 1, None, [])]


def test_nodes_with_one_key_do_not_take_turns() -> None:
    """Their disks were copied. The address does not depend on the order of the routes."""
    routes = [to(B, V4, NEAR), to(B, V6, FAR)]
    found = [described(plan(NUMBER, {}, order)[0][0]) for order in (routes, routes[::-1])]
    assert found[0] == found[1]


def test_many_cidrs_go_in_several_requests() -> None:
    cidrs = list(ip_network("fd00::/48").subnets(new_prefix=60))[:1200]
    before, _ = plan(NUMBER, {}, [to(B, one) for one in cidrs])
    found = [described(one)[0] for one in before]
    assert [(flags, end is not None, len(listed)) for _, flags, end, listed in found] == [
        (2, True, 500), (None, False, 500), (None, False, 200),
    ]  # fmt: skip
    assert sorted(one for *_, listed in found for one in listed) == sorted(map(str, cidrs))


def test_read_joins_the_parts_of_a_peer() -> None:
    other = ip_network("10.3.0.0/24")
    with asked(told((C, FAR, []), (B, NEAR, [V4])), told((B, None, [V6, other])), done(1)) as kernel:
        kernel.netlink.use(NUMBER)
        assert wireguard.read(kernel.netlink) == {B: remote(NEAR, V4, V6, other), C: remote(FAR)}
    with asked(told(), done(1)) as kernel:
        kernel.netlink.use(NUMBER)
        assert wireguard.read(kernel.netlink) == {}


def test_a_peer_without_an_address_is_read() -> None:
    with asked(told((B, None, [V4])), done(1)) as kernel:
        kernel.netlink.use(NUMBER)
        assert wireguard.read(kernel.netlink) == {B: Remote(None, 0, frozenset([V4]))}


def test_the_first_part_of_an_answer_has_the_devices_settings() -> None:
    with asked(told((B, NEAR, [V4]), key=C)) as kernel:
        kernel.netlink.use(NUMBER)
        found = kernel.netlink.read_device()
    assert (found["WGDEVICE_A_PUBLIC_KEY"], found["WGDEVICE_A_LISTEN_PORT"]) == (b"\3" * 32, PORT)


@pytest.mark.parametrize("answer", [error(errno.ENODEV, 1), done(1)])
def test_without_a_device_there_are_no_settings(answer: bytes) -> None:
    with asked(answer) as kernel:
        kernel.netlink.use(NUMBER)
        assert kernel.netlink.read_device() is None


def test_a_refusal_is_no_absence() -> None:
    with asked(error(errno.EPERM, 1)) as kernel:
        kernel.netlink.use(NUMBER)
        with pytest.raises(InternalError, match="EPERM"):
            kernel.netlink.read_device()


def test_a_private_key_is_in_no_message() -> None:
    """Not in the error of the request that has it, either."""
    with asked(error(errno.EPERM, 1)) as kernel:
        kernel.netlink.use(NUMBER)
        secret = b64encode(b"secret" * 5 + b"xx")
        message = wireguard._message(1, WGDEVICE_A_PRIVATE_KEY=b"secret" * 5 + b"xx")  # noqa: SLF001
        with pytest.raises(InternalError) as caught:
            kernel.netlink.request(NUMBER, message)
    assert "secret" not in str(caught.value) and secret.decode() not in str(caught.value)
    assert GENL_ID_CTRL != NUMBER


# -- the node's own key


def test_the_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.key"
    first = wireguard._find_key(path)  # noqa: SLF001
    assert wireguard._find_key(path) == first  # noqa: SLF001
    assert path.stat().st_mode & 0o777 == 0o600
    assert (len(first), first[0] & 7, first[31] & 192) == (32, 0, 64)  # RFC 7748
    path.unlink()
    assert wireguard._find_key(path) != first  # noqa: SLF001


def test_a_key_of_wg_genkey_is_used(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.key"
    path.write_text(b64encode(b"\xff" * 32).decode() + "\n")
    path.chmod(0o600)
    assert wireguard._find_key(path) == b"\xf8" + b"\xff" * 30 + b"\x7f"  # noqa: SLF001


@pytest.mark.parametrize(("text", "mode", "words"), [
    (b64encode(bytes(32)).decode(), 0o640, "nobody else may read it"),
    ("", 0o600, "not a private key of 32 bytes"),
    (b64encode(bytes(31)).decode(), 0o600, "not a private key of 32 bytes"),
    ("garbled" + "\0" * 40, 0o600, "not a private key of 32 bytes"),
])  # fmt: skip
def test_a_bad_file_is_named_and_left(tmp_path: Path, text: str, mode: int, words: str) -> None:
    path = tmp_path / "wireguard.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(IOFailure, match=words) as caught:
        wireguard._find_key(path)  # noqa: SLF001
    assert str(path) in str(caught.value) and path.read_text() == text
    assert not [one for one in os.listdir(tmp_path) if one != path.name]
