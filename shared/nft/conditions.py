"""Conditions on packets in the words that configurations have for them, iptables' or nft's, as expressions.

    ["!", "-d", "192.0.2.0/24"]         ["ip daddr != 192.0.2.0/24", "iifname eth0"]

Only these few words are known, and nothing is passed on as text.
"""

from __future__ import annotations

from shared.cni.ip import BITS, Prefix
from shared.cni.names import is_link_name
from shared.nft.expressions import address, link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.nft.expressions import Expression

    Match = tuple[str, str, str | Prefix]  # a field of OPTIONS, an operator of OPERATORS, a link's name or a prefix

OPTIONS = {
    "-s": "saddr", "--source": "saddr", "--src": "saddr", "-d": "daddr", "--destination": "daddr", "--dst": "daddr",
    "-i": "iifname", "--in-interface": "iifname",
}  # fmt: skip
FAMILY_WORDS = {4: "ip", 6: "ip6"}
OPERATORS = {"==": "eq", "eq": "eq", "!=": "neq", "ne": "neq"}
FORBIDDEN = frozenset('*+"')  # the wildcards of nft and iptables; a quote would end the name where nft shows it


def parse(texts: Sequence[str], version: int) -> list[Match]:
    """What IPv4's or IPv6's packets must match, all of it; raises ValueError that names what cannot be understood."""
    words = " ".join(texts).split()
    matches: list[Match] = []
    while words:
        start = list(words)
        try:
            field, operator, value = _iptables(words) if words[0] in ("!", *OPTIONS) else _nft(words, version)
        except IndexError:
            raise ValueError(f"ends in the midst of {' '.join(start)!r}") from None
        matches.append((field, operator, _value(field, value, version)))
    return matches


def expressions(matches: Sequence[Match]) -> list[Expression]:
    """The same as expressions of a rule."""
    found: list[Expression] = []
    for field, operator, value in matches:
        found += link(field, value, operator) if isinstance(value, str) else address(field, value, operator)
    return found


def _iptables(words: list[str]) -> tuple[str, str, str]:
    """Takes one match off the front: [!] option value."""
    operator = "eq"
    if words[0] == "!":
        words.pop(0)
        operator = "neq"
    option = words.pop(0)
    if option not in OPTIONS:
        raise ValueError(f"has {option!r}: only -s, -d and -i, each perhaps after !, are known")
    return OPTIONS[option], operator, words.pop(0)


def _nft(words: list[str], version: int) -> tuple[str, str, str]:
    """Takes one match off the front: ip saddr|daddr [!=] prefix, or iifname [!=] name."""
    field = first = words.pop(0)
    if first != "iifname":
        if first != FAMILY_WORDS[version] or words[0] not in ("saddr", "daddr"):
            known = FAMILY_WORDS[version]
            raise ValueError(f"has {first!r}: only {known} saddr, {known} daddr, iifname, -s, -d and -i are known")
        field = words.pop(0)
    operator = OPERATORS[words.pop(0)] if words[0] in OPERATORS else "eq"
    return field, operator, words.pop(0)


def _value(field: str, value: str, version: int) -> str | Prefix:
    if field == "iifname":
        name = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
        if not is_link_name(name) or FORBIDDEN & set(name):
            raise ValueError(f"has {value!r}, which is not the whole name of a link")
        return name
    try:
        prefix = Prefix.parse(value if "/" in value else f"{value}/{BITS[version]}")
    except ValueError:
        raise ValueError(f"has {value!r}, which is no IPv{version} address or prefix") from None
    if prefix.version != version:
        raise ValueError(f"has {value!r}, which is no IPv{version} address or prefix")
    return prefix
