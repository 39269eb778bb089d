"""Write changes of nf_tables in nft's language, as `nft -f` takes them.

    add rule inet pycni masquerading ip saddr vmap @masq4 comment "IPv4 pods 937febdd"

Messages are read by pyroute2. Unknown parts are written in brackets under the kernel's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from shared.cli.explain.changes import Step
from shared.cli.explain.nft_expressions import Rule, brackets, verdict
from shared.nft import ruleset, wire

if TYPE_CHECKING:
    from shared.cli.explain.message import Rest

Message = dict[str, Any]
Types = list[ruleset.Type]

SHOWN = 10  # elements of a set in a sentence
FAMILIES = {
    wire.NFPROTO_INET: "inet", wire.NFPROTO_IPV4: "ip", wire.NFPROTO_ARP: "arp", wire.NFPROTO_NETDEV: "netdev",
    wire.NFPROTO_BRIDGE: "bridge", wire.NFPROTO_IPV6: "ip6",
}  # fmt: skip
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")  # by NF_INET_*
# nft's names of priorities, some of them in one hook only: std_prio_lookup() in its src/rule.c
PRIORITIES = {("", -300): "raw", ("", -150): "mangle", ("", 0): "filter", ("", 50): "security",
              ("prerouting", -100): "dstnat", ("postrouting", 100): "srcnat"}  # fmt: skip
BRIDGE_PRIORITIES = {("", -200): "filter", ("prerouting", -300): "dstnat", ("output", 100): "out",
                     ("postrouting", 300): "srcnat"}  # fmt: skip
TYPES = {
    one.number: one
    for one in (
        ruleset.IPV4_ADDR, ruleset.IPV6_ADDR, ruleset.ETHER_ADDR, ruleset.INET_PROTO, ruleset.INET_SERVICE,
        ruleset.IFNAME, ruleset.VERDICT,
    )
}  # fmt: skip
TYPE_MASK = (1 << ruleset.TYPE_BITS) - 1


class Sets:
    """The types of the keys and values of sets, from the steps that create the sets."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._types: dict[tuple[Any, ...], tuple[Types, Types]] = {}
        for step in steps:
            if step.get("what") == "NFT_MSG_NEWSET":
                message = step["message"]
                key = (message["nfgen_family"], message.get("NFTA_SET_TABLE"), message.get("NFTA_SET_NAME"))
                self._types[key] = (_types(message, "KEY"), _types(message, "DATA"))

    def types(self, family: int, table: str, name: str) -> tuple[Types, Types]:
        """Return the types of a set's keys and of its values, each empty if they are not known."""
        return self._types.get((family, table, name), ([], []))


def _types(message: Message, of: str) -> Types:
    """Return the types that a set's message names, none if one of them is unknown."""
    number = message.get(f"NFTA_SET_{of}_TYPE", 0)
    if number in TYPES:
        return [TYPES[number]]
    found: Types = []
    while number:
        if number & TYPE_MASK not in TYPES:
            return []
        found.insert(0, TYPES[number & TYPE_MASK])
        number >>= ruleset.TYPE_BITS
    return found


# -- messages: each function removes the described parts from `rest`


def _table(rest: Rest, _sets: Sets) -> str:
    return f"add table {_name(rest, 'NFTA_TABLE_NAME')}"


def _set(rest: Rest, _sets: Sets) -> str:
    key, data = (_types(rest.left, of) for of in ("KEY", "DATA"))
    flags = rest.take("NFTA_SET_FLAGS", frozenset())
    name = _name(rest, "NFTA_SET_TABLE", "NFTA_SET_NAME")
    words = " . ".join(one.name for one in key) or f"type {rest.left.get('NFTA_SET_KEY_TYPE')}"
    if data:
        words += f" : {' . '.join(one.name for one in data)}"
    # nft does not print the set's number in its transaction, the lengths and the byte order.
    for what in ("KEY_TYPE", "KEY_LEN", "DATA_TYPE", "DATA_LEN", "ID", "USERDATA"):
        rest.take(f"NFTA_SET_{what}")
    others = sorted(flag.removeprefix("NFT_SET_").lower() for flag in flags if flag != "NFT_SET_MAP")
    words += "".join(f"; flags {flag}" for flag in others)
    return f"add {'map' if data else 'set'} {name} {{ type {words}; }}"


def _chain(rest: Rest, _sets: Sets) -> str:
    family = rest.left["nfgen_family"]
    told = f"add chain {_name(rest, 'NFTA_CHAIN_TABLE', 'NFTA_CHAIN_NAME')}"
    hook = rest.inner("NFTA_CHAIN_HOOK")
    if not hook.left:
        return told
    number, priority = hook.take("NFTA_HOOK_HOOKNUM", 0), hook.take("NFTA_HOOK_PRIORITY", 0)
    name = HOOKS[number] if number < len(HOOKS) else str(number)
    names = BRIDGE_PRIORITIES if family == wire.NFPROTO_BRIDGE else PRIORITIES
    shown = names.get((name, priority)) or names.get(("", priority)) or priority
    words = [f"type {rest.take('NFTA_CHAIN_TYPE', 'filter')} hook {name} priority {shown};", *hook.words()]
    return f"{told} {{ {' '.join(words)} }}"


def _rule(rest: Rest, sets: Sets) -> str:
    family, table = rest.left["nfgen_family"], rest.left.get("NFTA_RULE_TABLE", "")
    told = f"add rule {_name(rest, 'NFTA_RULE_TABLE', 'NFTA_RULE_CHAIN')}"
    found = rest.take("NFTA_RULE_EXPRESSIONS", [])
    rule = Rule(found if isinstance(found, list) else [found], lambda name: sets.types(family, table, name))
    return f"{told} {rule}{_comment(rest.take('NFTA_RULE_USERDATA'))}"


def _delete_rule(rest: Rest, _sets: Sets) -> str:
    name = _name(rest, "NFTA_RULE_TABLE", "NFTA_RULE_CHAIN")
    handle = rest.take("NFTA_RULE_HANDLE")
    return f"flush chain {name}" if handle is None else f"delete rule {name} handle {handle}"


def _delete_chain(rest: Rest, _sets: Sets) -> str:
    return f"delete chain {_name(rest, 'NFTA_CHAIN_TABLE', 'NFTA_CHAIN_NAME')}"


def _add_elements(rest: Rest, sets: Sets) -> str:
    return f"add element {_elements(rest, sets)}"


def _delete_elements(rest: Rest, sets: Sets) -> str:
    return f"delete element {_elements(rest, sets)}"


MESSAGES: dict[str, Callable[[Rest, Sets], str]] = {
    "NFT_MSG_NEWTABLE": _table,
    "NFT_MSG_NEWSET": _set,
    "NFT_MSG_NEWCHAIN": _chain,
    "NFT_MSG_DELCHAIN": _delete_chain,
    "NFT_MSG_NEWRULE": _rule,
    "NFT_MSG_DELRULE": _delete_rule,
    "NFT_MSG_NEWSETELEM": _add_elements,
    "NFT_MSG_DELSETELEM": _delete_elements,
}


def _name(rest: Rest, *attributes: str) -> str:
    family = rest.take("nfgen_family", 0)
    names = [str(rest.take(attribute, "")) for attribute in attributes]
    return " ".join([FAMILIES.get(family, f"family {family}"), *names])


# -- elements


def _elements(rest: Rest, sets: Sets) -> str:
    place = (rest.left["nfgen_family"], *(rest.left.get(f"NFTA_SET_ELEM_LIST_{one}", "") for one in ("TABLE", "SET")))
    name = _name(rest, "NFTA_SET_ELEM_LIST_TABLE", "NFTA_SET_ELEM_LIST_SET")
    found = rest.take("NFTA_SET_ELEM_LIST_ELEMENTS", [])
    shown = [_element(one, *sets.types(*place)) for one in found[:SHOWN]]
    if len(found) > SHOWN:
        shown.append(f"… and {len(found) - SHOWN:,} more")
    return f"{name} {{ {', '.join(shown)} }}"


def _element(element: Message, key: Types, data: Types) -> str:
    left = dict(element)
    words = _values(left.pop("NFTA_SET_ELEM_KEY", {}), key) + _comment(left.pop("NFTA_SET_ELEM_USERDATA", None))
    if "NFTA_SET_ELEM_DATA" in left:
        words += f" : {_values(left.pop('NFTA_SET_ELEM_DATA'), data)}"
    return words + (f" {brackets(left)}" if left else "")


def _values(data: Message, types: Types) -> str:
    """Return a verdict, or the fields of a value; each field begins at a 4-byte word."""
    if "NFTA_DATA_VERDICT" in data:
        return verdict(data["NFTA_DATA_VERDICT"])
    raw: bytes = data.get("NFTA_DATA_VALUE", b"")
    length = types[0].length if len(types) == 1 else sum((one.length + 3) & ~3 for one in types)
    if len(raw) != length:
        return f"0x{raw.hex()}"
    fields, start = [], 0
    for one in types:
        value = raw[start : start + one.length]
        fields.append(f'"{one.show(value)}"' if one is ruleset.IFNAME else one.show(value))
        start += (one.length + 3) & ~3
    return " . ".join(fields)


def _comment(userdata: Any) -> str:
    """Return the comment in a NFTA_*_USERDATA, empty if there is none.

    pyroute2 returns it as text or as pairs.
    """
    if userdata is None:
        return ""
    if isinstance(userdata, list):
        found = dict(userdata)
        text = found.pop("NFTNL_UDATA_SET_ELEM_COMMENT", b"")
        rest = f" {brackets(found)}" if found else ""
        return (f' comment "{text.decode(errors="replace")}"' if text else "") + rest
    return f' comment "{userdata}"'
