"""Conditions on packets, parsed from the words of iptables or nft in a configuration.

    ["!", "-d", "192.0.2.0/24"]         ["ip daddr != { 192.0.2.0/24, 198.51.100.7 }", "iifname eth*"]

Only these few words are known, and no text is passed on to a program. shared/hostports/iptables_matches.py has further
words for the iptables backend.
"""

from __future__ import annotations

from shared.cni.ip import BITS, Address, Prefix
from shared.cni.names import is_link_name
from shared.net import links
from shared.nft.expressions import address, cmp, link, meta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.nft.ruleset import Expression

    Value = str | Prefix  # the name of a link, or the beginning of names, which ends with WILDCARD; or a prefix
    # A field of OPTIONS, an operator of OPERATORS, and values: a packet must match one of them, with "neq" none.
    # Or OTHER, "eq", and the words of a match that only iptables has.
    Match = tuple[str, str, tuple[Value, ...]]
    Others = Callable[[list[str]], list[str]]  # takes one match from the front of the words and returns it

OPTIONS = {
    "-s": "saddr", "--source": "saddr", "--src": "saddr", "-d": "daddr", "--destination": "daddr", "--dst": "daddr",
    "-i": "iifname", "--in-interface": "iifname",
}  # fmt: skip
OTHER = "other"
FAMILY_WORDS = {4: "ip", 6: "ip6"}
OPERATORS = {"==": "eq", "eq": "eq", "!=": "neq", "ne": "neq"}
WILDCARD = "*"
FORBIDDEN = frozenset('*+"')  # the wildcards of nft and iptables; a quote would end the name in output of nft


def parse(texts: Sequence[str], version: int, others: Others | None = None) -> list[Match]:
    """Return the matches; packets of the IP version must meet all of them.

    `others` takes matches of iptables that are not known here. Raise ValueError that names the wrong word.
    """
    words = _split_words(texts)
    matches: list[Match] = []
    while words:
        start = list(words)
        try:
            matches.append(_take_match(words, version, others))
        except IndexError:
            raise ValueError(f"ends in the middle of {' '.join(start)!r}") from None
    return matches


def read(texts: Sequence[str], version: int, others: Others | None = None) -> list[Match]:
    """Return the matches of `parse` with the own names of links: packets carry no alternative names."""
    return with_own_names(parse(texts, version, others))


def with_own_names(matches: Sequence[Match]) -> list[Match]:
    """Return the matches with each link's alternative name replaced by its own."""
    return [
        (field, operator, tuple(_own_name(str(one)) for one in values))
        if field == "iifname"
        else (field, operator, values)
        for field, operator, values in matches
    ]


def _own_name(name: str) -> str:
    return name if name.endswith(WILDCARD) else links.own_name(name)


def expressions(matches: Sequence[Match]) -> list[Expression]:
    """Return the expressions, for one rule, of the matches that have a single value."""
    return [
        one
        for field, operator, values in matches
        if len(values) == 1
        for one in _match_value(field, operator, values[0])
    ]


class Parts:
    """Matches as parts of rules: a packet meets all of `every`, one of each in `some`, and none of `none`."""

    def __init__(self, matches: Sequence[Match]) -> None:
        several = [match for match in matches if len(match[2]) > 1]
        self.every = expressions(matches)
        self.some = [
            [_match_value(field, "eq", one) for one in values] for field, how, values in several if how == "eq"
        ]
        self.none = [_match_value(field, "eq", one) for field, how, values in several if how == "neq" for one in values]


def _match_value(field: str, operator: str, value: Value) -> list[Expression]:
    if not isinstance(value, str):
        return address(field, value, operator)
    if not value.endswith(WILDCARD):
        return link(field, value, operator)
    return [meta(field), cmp(operator, value[:-1].encode())] if len(value) > len(WILDCARD) else []


def _split_words(texts: Sequence[str]) -> list[str]:
    """Return the words. The value of an option that is not known here may contain blanks."""
    words: list[str] = []
    for text in texts:
        option = words[-1] if words else ""
        is_value = option.startswith("-") and "=" not in option and option not in OPTIONS
        words += [text] if is_value and not text.lstrip().startswith(("-", "!")) else text.split()
    return words


def _take_match(words: list[str], version: int, others: Others | None) -> Match:
    """Remove one match from the front of the words and return it."""
    place = 1 if words[0] == "!" else 0
    option, equals, value = words[place].partition("=")
    if equals and option in OPTIONS and option.startswith("--"):
        words[place : place + 1] = [option, value]
    option = words[place]
    if option in OPTIONS:
        return _take_iptables_match(words, version)
    if not place and not option.startswith("-"):
        return _take_nft_match(words, version)
    if others is None:
        known = FAMILY_WORDS[version]
        raise ValueError(f"has {option!r}: only {known} saddr, {known} daddr, iifname, -s, -d and -i are known")
    return OTHER, "eq", tuple(others(words))


def _take_iptables_match(words: list[str], version: int) -> Match:
    """Take `[!] option value[,value…]` from the front of the words."""
    operator = "eq"
    if words[0] == "!":
        words.pop(0)
        operator = "neq"
    option, value = words.pop(0), words.pop(0)
    field = OPTIONS[option]
    if field == "iifname":
        return field, operator, (_parse_link(value, "+"),)
    listed = value.split(",")
    if operator == "neq" and len(listed) > 1:
        raise ValueError(f"has ! {option} {value!r}: after ! iptables takes one address or prefix")
    return field, operator, tuple(dict.fromkeys(_parse_prefix(one, version) for one in listed))


def _take_nft_match(words: list[str], version: int) -> Match:
    """Take `ip saddr|daddr` or `iifname`, an optional operator, and `value` or `{ value, value … }`."""
    field = first = words.pop(0)
    if first != "iifname":
        if first != FAMILY_WORDS[version] or words[0] not in ("saddr", "daddr"):
            known = FAMILY_WORDS[version]
            raise ValueError(f"has {first!r}: only {known} saddr, {known} daddr, iifname, -s, -d and -i are known")
        field = words.pop(0)
    operator = OPERATORS[words.pop(0)] if words[0] in OPERATORS else "eq"
    listed = [words.pop(0)]
    if listed[0].startswith("{"):
        while not listed[-1].endswith("}"):
            listed.append(words.pop(0))
        listed = [one.strip() for one in " ".join(listed)[1:-1].removesuffix(",").split(",")]
    if field == "iifname":
        return field, operator, tuple(dict.fromkeys(_parse_link(one, WILDCARD) for one in listed))
    return field, operator, tuple(dict.fromkeys(_parse_prefix(one, version) for one in listed))


def _parse_link(value: str, wildcard: str) -> str:
    """Return a link's name. Replace the wildcard of iptables or nft at its end by WILDCARD."""
    name = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    begin = name.removesuffix(wildcard)
    if not is_link_name(name) or FORBIDDEN & set(begin):
        raise ValueError(f"has {value!r}, which is neither a link's name nor its beginning followed by {wildcard!r}")
    return begin if begin == name else begin + WILDCARD


def _parse_prefix(value: str, version: int) -> Prefix:
    """Return the network of an address, of a prefix, or of an address with a mask (192.0.2.0/255.255.255.0)."""
    text, slash, length = value.partition("/")
    try:
        if not slash:
            length = str(BITS[version])
        elif not length.isdecimal():
            length = str(_mask_length(Address.parse(length), version))
        prefix = Prefix.parse(f"{text}/{length}")
    except ValueError:
        raise ValueError(f"has {value!r}, which is no IPv{version} address or prefix") from None
    if prefix.version != version:
        raise ValueError(f"has {value!r}, which is no IPv{version} address or prefix")
    return prefix.network


def _mask_length(mask: Address, version: int) -> int:
    """Return the length of a mask. Raise ValueError if the mask has a gap."""
    bits = BITS[version]
    length = bin(mask.value).count("1")
    if mask.version != version or mask.value != (1 << bits) - (1 << (bits - length)):
        raise ValueError
    return length
