"""nf_tables messages against pyroute2's encoding; commit's reactions to the kernel's answers; comments and types."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nfnetlink
from pyroute2.netlink.nfnetlink import nftsocket

from shared.cni.ip import Address, Prefix
from shared.net.messages import decode, encode
from shared.net.netlink import NetlinkError, Request
from shared.net.owner import Owner
from shared.nft import expressions as x
from shared.nft import labels, registry, ruleset, wire
from shared.nft.ruleset import Chain, Element, Rule, Set, Table, addressed, comment, comment_of
from shared.nft.transaction import Nfnetlink, NoNfTables
from tests.unit.kernel_end import KernelEnd, Overrun, error

Message = dict[str, Any]
Expression = dict[str, Any]

CLASSES: dict[str, Any] = {
    "batch": nfnetlink.nfgen_msg, "table": nftsocket.nft_table_msg, "chain": nftsocket.nft_chain_msg,
    "rule": nftsocket.nft_rule_msg, "set": nftsocket.nft_set_msg, "elements": nftsocket.nft_set_elem_list_msg,
}  # fmt: skip
# What pyroute2 takes in another form than the number or the bytes on the wire.
THEIR_FORM: dict[str, Callable[[Any], Any]] = {
    "NFTA_SET_FLAGS": lambda flags: {"NFT_SET_MAP"} if flags == wire.NFT_SET_MAP else set(),
    "NFTA_LOOKUP_FLAGS": lambda flags: {"NFT_LOOKUP_F_INV"} if flags == wire.NFT_LOOKUP_F_INV else set(),
    "NFTA_SET_USERDATA": lambda data: [("NFTNL_UDATA_SET_KEYBYTEORDER", data[2:])],
    "NFTA_RULE_USERDATA": comment_of,
    "NFTA_SET_ELEM_USERDATA": lambda data: [("NFTNL_UDATA_SET_ELEM_COMMENT", comment_of(data))],
}
LISTS = ("NFTA_RULE_EXPRESSIONS", "NFTA_SET_ELEM_LIST_ELEMENTS")

INET = Table(wire.NFPROTO_INET, "pycni")
V4 = Set(INET, "pods4", (ruleset.IPV4_ADDR,), (ruleset.VERDICT,))
PORTS = Set(
    INET, "ports", (ruleset.INET_PROTO, ruleset.INET_SERVICE), (ruleset.IPV6_ADDR, ruleset.INET_SERVICE)
)  # fmt: skip
MACS = Set(Table(wire.NFPROTO_BRIDGE, "pycni"), "macs", (ruleset.IFNAME, ruleset.ETHER_ADDR))
CHAIN = Chain(INET, "chain", ())

words = st.integers(0, 15)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
values = st.binary(min_size=1, max_size=16)
masks = st.integers(1, 16).flatmap(lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2))
v4 = st.integers(0, 2**32 - 1).map(lambda value: Address(4, value))
v6 = st.integers(0, 2**128 - 1).filter(lambda value: value >> 32 != 0xFFFF).map(lambda value: Address(6, value))
prefixes = st.builds(Prefix, v4, st.integers(0, 32)) | st.builds(Prefix, v6, st.integers(0, 128))
ports = st.integers(0, 65535).map(str)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
single = st.one_of(
    st.builds(x.payload, st.sampled_from(list(x.PAYLOAD)), words),
    st.builds(x.meta, st.sampled_from(list(x.META)), words),
    st.builds(x.meta_set, st.just("mark"), words),
    st.builds(x.immediate, values, words),
    st.builds(x.cmp, st.sampled_from(list(x.OPERATORS)), values, words),
    st.builds(x.within, values, values, words, negate=st.booleans()),
    masks.map(lambda pair: x.bitwise(*pair)),
    st.builds(x.lookup, st.sampled_from([V4, PORTS, MACS]), words, words, negate=st.booleans()),
    st.builds(x.ct, st.sampled_from(["state", "status"]), words),
    st.just(x.masquerade()),
    st.builds(x.dnat, st.sampled_from([4, 6]), words, st.none() | words),
    st.sampled_from([x.accept(), x.drop(), x.return_()]),
    st.builds(x.jump, names) | st.builds(x.goto, names),
)
several = st.one_of(
    st.builds(x.family, st.sampled_from([4, 6])), st.builds(x.protocol, st.sampled_from(list(ruleset.PROTOCOLS))),
    st.builds(x.address, st.sampled_from(["saddr", "daddr"]), prefixes, st.sampled_from(["eq", "neq"])),
    st.builds(x.link, st.sampled_from(["iifname", "oifname"]), st.just("cni0")),
    st.just(x.ct_state("established", "related")), st.just(x.ct_status("dnat")),
)  # fmt: skip


def by_pyroute2(request: Request, rule: list[Expression] | None = None) -> bytes:
    """Return the bytes that pyroute2 makes of a request. The rule's expressions are given apart."""
    out = CLASSES[wire.MESSAGES[request.kind]]()
    message = dict(request.message)
    if rule is not None:
        message["NFTA_RULE_EXPRESSIONS"] = {"NFTA_LIST_ELEM": rule}
    out.update(_in_their_form(message))
    out["header"].update(type=request.kind, flags=request.flags, sequence_number=9, pid=0)
    out.encode()
    return bytes(out.data)


def _in_their_form(message: Message) -> Message:
    attributes: list[tuple[str, Any]] = []
    for name, value in message.items():
        if not name.isupper():
            continue
        if name in LISTS:
            listed = value["NFTA_LIST_ELEM"]
            out: Any = [_in_their_form(one) for one in (listed if isinstance(listed, list) else [listed])]
        elif name in THEIR_FORM:
            out = THEIR_FORM[name](value)
        else:
            out = _in_their_form(value) if isinstance(value, dict) else value
        attributes.append((name, out))
    return {**{name: value for name, value in message.items() if not name.isupper()}, "attrs": attributes}


def same(request: Request, rule: list[Expression] | None = None) -> None:
    """Compare both encodings, and read the message back with the codec."""
    ours = encode(request.kind, request.flags, 9, request.message, wire)
    assert ours == by_pyroute2(request, rule)
    read = decode(request.kind, ours, 16, len(ours), wire)
    assert read == {"nfgen_family": 0, "version": 0, "res_id": 0, **request.message}


@given(st.lists(single | several, min_size=1, max_size=8), names)
def test_rules(parts: list[Any], purpose: str) -> None:
    rule = [one for part in parts for one in ([part] if isinstance(part, dict) else part)]
    request = Rule(purpose, *parts).append_request(CHAIN)
    same(request, rule)


@given(names, st.sampled_from(["nat", "filter"]), st.integers(0, 4), st.integers(-400, 400))
def test_tables_and_chains(name: str, kind: str, hook: int, priority: int) -> None:
    table = Table(wire.NFPROTO_INET, name)
    for chain in (Chain(table, name, (), (kind, hook, priority)), Chain(table, name, ())):
        for request in (
            *chain.create_requests(),
            *chain.refill_requests(),
            *chain.remove_requests(),
            chain.query_request(),
            table.create_request(),
            table.query_request(),
        ):
            same(request)


def test_sets() -> None:
    for one in (V4, PORTS, MACS, Set(INET, "links", (ruleset.IFNAME,))):
        same(one.create_request(7))
        same(one.query_request())
    assert (
        PORTS.create_request(1).message["NFTA_SET_KEY_LEN"] == 8
        and PORTS.create_request(1).message["NFTA_SET_DATA_LEN"] == 20
    )


@given(v4, v6, ports, ports, macs, names)
def test_elements(low: Address, high: Address, port: str, other: str, mac: str, owner: str) -> None:
    for element in (
        V4.element(str(low), to=x.verdict("goto", "masq-1")), V4.element(str(low), to=x.verdict("drop")),
        PORTS.element("udp", port, to=(str(high), other)), MACS.element("veth0", mac),
    ):  # fmt: skip
        for request in (element.add_request(owner), element.remove_request(), element.query_request()):
            same(request)


@given(prefixes, st.binary(min_size=16, max_size=16))
def test_masks_of_prefixes(prefix: Prefix, packet: bytes) -> None:
    """The expressions compute netaddr's answer for any length."""
    loaded = packet[: prefix.address.bits // 8]
    *_, compared = expression = x.address("saddr", prefix)
    if prefix.length < prefix.address.bits:
        data = expression[-2]["NFTA_EXPR_DATA"]
        mask = data["NFTA_BITWISE_MASK"]["NFTA_DATA_VALUE"]
        loaded = bytes(one & other for one, other in zip(loaded, mask))
    matches = loaded == compared["NFTA_EXPR_DATA"]["NFTA_CMP_DATA"]["NFTA_DATA_VALUE"]
    address = netaddr.IPAddress(socket.inet_ntop(*_packed(packet, prefix)))
    assert matches == (address in netaddr.IPNetwork(str(prefix)))


def _packed(packet: bytes, prefix: Prefix) -> tuple[int, bytes]:
    return (socket.AF_INET, packet[:4]) if prefix.version == 4 else (socket.AF_INET6, packet)


# -- values


@pytest.mark.parametrize(("kind", "text"), [
    (ruleset.IPV4_ADDR, "fd00::1"), (ruleset.IPV4_ADDR, "10.0.0.256"), (ruleset.IPV6_ADDR, "10.0.0.1"), (ruleset.IPV6_ADDR, "::ffff:10.0.0.1"),
    (ruleset.INET_PROTO, "TCP"), (ruleset.INET_PROTO, "6; drop"), (ruleset.INET_SERVICE, "65536"), (ruleset.INET_SERVICE, "-1"),
    (ruleset.INET_SERVICE, "٣"), (ruleset.INET_SERVICE, ""), (ruleset.IFNAME, "x" * 16), (ruleset.IFNAME, 'a"b'), (ruleset.IFNAME, "a b"),
    (ruleset.ETHER_ADDR, "02:00"), (ruleset.ETHER_ADDR, "02:00:00:00:00:zz"),
])  # fmt: skip
def test_values_of_another_type(kind: ruleset.Type, text: str) -> None:
    with pytest.raises(ValueError, match=f"is not of type {kind.name}"):
        kind.pack(text)


@given(st.sampled_from(["tcp", "udp", "sctp"]), ports, v6, macs)
def test_keys_as_text(protocol: str, port: str, address: Address, mac: str) -> None:
    """The registry reads its own text back as the same key."""
    v6_set = Set(INET, "v6", (ruleset.IPV6_ADDR, ruleset.INET_SERVICE))
    for of, key in ((PORTS, (protocol, port)), (MACS, ("veth0", mac)), (v6_set, (str(address), port))):
        packed = of.pack(key)
        assert of.show(packed) == " ".join(key) and of.pack(of.show(packed).split(" ")) == packed


@given(st.text("abc/ ~é", max_size=64))
def test_comments(text: str) -> None:
    assert comment_of(comment(text)) == text
    assert comment_of(b"\1\2xy" + comment(text)) == text
    with pytest.raises(ValueError, match="too long"):
        comment("x" * (ruleset.COMMENT_BYTES + 1))
    assert len(comment("x" * ruleset.COMMENT_BYTES)) <= ruleset.COMMENT_BYTES + 3


def test_chains_named_by_their_rules() -> None:
    rest = Rule("rest", x.masquerade())
    one, other = (
        addressed(INET, "masq", (Rule("subnet", x.address("daddr", Prefix.parse(prefix)), x.return_()), rest))
        for prefix in ("10.1.0.0/16", "10.2.0.0/16")
    )
    assert one.name != other.name and one.name.startswith("masq-")
    assert one.name == addressed(INET, "masq", one.rules).name
    assert len({rule.comment for rule in (*one.rules, *other.rules)}) == 3


# -- names in comments

characters = st.text("abcXYZ019_.-", min_size=1, max_size=300).filter(lambda text: text[0].isalnum())
links = st.text([chr(code) for code in range(33, 127) if chr(code) not in "/:%"], min_size=1, max_size=15)


@given(characters, characters, links, st.lists(v6 | v4, min_size=0, max_size=40, unique=True))
def test_registration(network: str, container_id: str, ifname: str, addresses: list[Address]) -> None:
    """Every part fits, all parts together list all elements, and the names are not confused with others."""
    sets = {4: V4, 6: Set(INET, "pods6", (ruleset.IPV6_ADDR,), (ruleset.VERDICT,))}
    rules = registry.Ruleset(INET, "masquerade", list(sets.values()), ())
    elements = [sets[address.version].element(str(address), to=x.verdict("accept")) for address in addresses]
    owner = Owner(network, container_id, ifname)
    texts = registry.texts(rules, owner, elements)
    assert all(len(comment(text)) <= ruleset.COMMENT_BYTES + 3 and '"' not in text for text in texts)
    head, _, first = texts[0].partition(": ")
    name, mechanism, parts = head.split(" ")
    assert (mechanism, int(parts)) == ("masquerade", len(texts)) and name.count("/") == 2
    items = [item for text in (first, *texts[1:]) for item in text.split(", ") if item]
    assert items == [str(element) for element in elements]
    for other in (
        Owner(network + "x", container_id, ifname), Owner(network, container_id + "x", ifname),
        Owner(network, container_id, "x" + ifname[:14]),
    ):  # fmt: skip
        assert labels.of(other) != name or other.ifname == ifname


def test_a_rule_of_another_release_is_another() -> None:
    """Its comment differs, although its purpose is the same: a chain that has it is refilled."""
    one, same, other = (Rule("pods", x.link("iifname", name), x.drop()) for name in ("cni0", "cni0", "cni1"))
    assert one.comment == same.comment != other.comment
    assert one.comment.startswith("pods ") and other.comment.startswith("pods ")


@pytest.mark.row(28)
@pytest.mark.parametrize("width", range(1, 25))
def test_registration_of_thousands(width: int) -> None:
    """The list has more than 999 parts, and the number takes room from the first."""
    rules = registry.Ruleset(INET, "masquerade", [V4], ())
    elements = [V4.element(f"10.111.{n >> 8}.{n & 255}", to=x.verdict("accept")) for n in range(7_000)]
    texts = registry.texts(rules, Owner("n" * width, "c" * 30, "eth0"), elements)
    assert len(texts) > 999 and texts[0].split(": ")[0].endswith(f" {len(texts)}")
    assert max(map(len, map(comment, texts))) <= ruleset.COMMENT_BYTES + 3


# -- the kernel's answers


def answering(refused: dict[int, int]) -> Any:
    """Return an answer function: the n-th message of a batch gets its errno (0 acknowledges it), others get none."""
    counted = []

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        counted.append(sequence)
        number = refused.get(len(counted) - 1)
        return [] if number is None else [error(number, sequence)]

    return answer


REQUESTS = [V4.element(f"10.0.0.{host}", to=x.verdict("accept")).add_request("net/c1/eth0") for host in (1, 2, 3)]


def test_a_batch() -> None:
    """A batch has a begin and an end, and its last message asks for the one acknowledgement."""
    with KernelEnd(answering({}), of=Nfnetlink) as kernel:
        kernel.netlink.commit(REQUESTS)
    headers = [struct.unpack_from("=IHHII", request) for request in kernel.requests]
    assert [kind for _, kind, *_ in headers] == [16, *[wire.NFT_MSG_NEWSETELEM] * 3, 17]
    assert [bool(flags & 4) for _, _, flags, *_ in headers] == [False, False, False, True, False]
    assert kernel.requests[0] == by_pyroute2_batch(16) and kernel.requests[4] == by_pyroute2_batch(17)


def by_pyroute2_batch(kind: int) -> bytes:
    out = nfnetlink.nfgen_msg()
    out["res_id"] = nfnetlink.NFNL_SUBSYS_NFTABLES
    out["header"].update(type=kind, flags=1, sequence_number=1 if kind == 16 else 5, pid=0)
    out.encode()
    return bytes(out.data)


def test_the_end_of_a_dry_run_is_not_sent() -> None:
    with KernelEnd(answering({}), of=Nfnetlink) as kernel:
        kernel.netlink.commit(REQUESTS, dry_run=True)
    assert len(kernel.requests) == 4


def test_the_first_refusal_is_raised() -> None:
    refused = {1: errno.ENOENT, 2: errno.EEXIST, 3: errno.EEXIST}
    with KernelEnd(answering(refused), of=Nfnetlink) as kernel, pytest.raises(NetlinkError) as raised:
        kernel.netlink.commit(REQUESTS)
    assert raised.value.errno == errno.ENOENT and raised.value.message is REQUESTS[0].message
    assert "NFT_MSG_NEWSETELEM" in str(raised.value) and "pods4" in str(raised.value)


def test_a_refusal_of_the_last_names_it() -> None:
    with KernelEnd(answering({3: errno.EEXIST}), of=Nfnetlink) as kernel, pytest.raises(NetlinkError) as raised:
        kernel.netlink.commit(REQUESTS)
    assert raised.value.message is REQUESTS[2].message


def test_a_batch_that_fails_as_a_whole() -> None:
    """Only the batch's beginning is answered; no later answer is left in the socket."""
    with KernelEnd(answering({0: errno.EPERM}), of=Nfnetlink) as kernel:
        with pytest.raises(NetlinkError) as raised:
            kernel.netlink.commit(REQUESTS)
        kernel.answering = answering({})
        kernel.netlink.commit(REQUESTS)
    assert raised.value.errno == errno.EPERM


INET_SET = ruleset.Set(ruleset.Table(wire.NFPROTO_INET, "pycni"), "pods", (ruleset.IPV4_ADDR,))


def test_no_nf_tables() -> None:
    with KernelEnd(answering({0: errno.EOPNOTSUPP}), of=Nfnetlink) as kernel, pytest.raises(NoNfTables) as raised:
        kernel.netlink.commit(REQUESTS)
    assert raised.value.code == 2


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL, errno.EPERM, errno.ENOMEM])
def test_what_is_not_there_and_what_cannot_be_read(number: int) -> None:
    """An absent set, chain or table has nothing; another errno does not prove that it is absent."""
    looks: list[Callable[[Any], object]] = [
        lambda kernel: kernel.dump_elements(INET_SET), lambda kernel: kernel.dump_chains(INET_SET.table),
        lambda kernel: kernel.get_all([INET_SET.query_request()]),
    ]  # fmt: skip
    for look in looks:
        with KernelEnd(lambda _kind, sequence, _request: [error(number, sequence)], of=Nfnetlink) as kernel:
            if number in (errno.ENOENT, errno.EINVAL):
                assert look(kernel.netlink) in ([], [None])
            else:
                with pytest.raises(NetlinkError) as raised:
                    look(kernel.netlink)
                assert raised.value.errno == number


def test_an_overrun_buffer() -> None:
    """A success is one small answer, which arrives; of many refusals the first is enough."""
    with KernelEnd(answering({}), of=Nfnetlink) as kernel:
        kernel.netlink.socket = Overrun(kernel.netlink.socket, at=1)
        kernel.netlink.commit(REQUESTS)
    with KernelEnd(
        lambda _kind, sequence, _request: [error(errno.EEXIST, sequence)] if sequence == 2 else [], of=Nfnetlink
    ) as kernel:
        kernel.netlink.socket = Overrun(kernel.netlink.socket, at=1)
        with pytest.raises(NetlinkError):
            kernel.netlink.commit(REQUESTS)


def test_nothing_is_left_of_an_overrun_buffer() -> None:
    """Unread refusals would displace the next answers."""
    with KernelEnd(lambda _kind, sequence, _request: [error(errno.EEXIST, sequence)], of=Nfnetlink) as kernel:
        kernel.netlink.socket = Overrun(kernel.netlink.socket, at=1)
        with pytest.raises(NetlinkError):
            kernel.netlink.commit(REQUESTS)
        assert kernel.netlink.socket.is_empty()


def test_questions_and_their_answers() -> None:
    """One datagram for all; nothing there is no error, any other refusal is."""
    found = Element(V4, V4.pack(("10.0.0.2",)), x.verdict("accept")).add_request("net/c2/eth0")

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        if sequence % 3 == 2:
            return [encode(wire.NFT_MSG_NEWSETELEM, 0, sequence, found.message, wire)]
        return [error(errno.ENOENT if sequence % 3 == 1 else errno.EINVAL, sequence)]

    queries = [V4.element(f"10.0.0.{host}", to=x.verdict("accept")).query_request() for host in (1, 2, 3)]
    with KernelEnd(answer, of=Nfnetlink) as kernel:
        answers = kernel.netlink.get_elements(queries)
    assert answers == [None, found.message["NFTA_SET_ELEM_LIST_ELEMENTS"]["NFTA_LIST_ELEM"], None]
    with KernelEnd(answer, of=Nfnetlink) as kernel:
        kernel.netlink.socket = Overrun(kernel.netlink.socket, at=2)
        assert kernel.netlink.get_elements(queries) == answers
    assert len(kernel.requests) == 6  # asked again
    with (
        KernelEnd(lambda _k, sequence, _r: [error(errno.EPERM, sequence)], of=Nfnetlink) as kernel,
        pytest.raises(NetlinkError),
    ):
        kernel.netlink.get_elements(queries)
