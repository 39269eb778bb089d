"""Evaluate the FORWARD chain for a packet from a pod to the outside, as far as its rules tell.

Only rules that match nothing but the source address or the links count. Other rules depend on the packet, and are
skipped: a rule for replies or for marked packets does not match a pod's first packet either.
"""

from __future__ import annotations

from shared.cni.ip import Prefix
from shared.iptables import variants
from shared.iptables.programs import COMMANDS, NoIptables, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shared.cni.ip import Address

TABLE, FORWARD = "filter", "FORWARD"
DROPPED, PASSED = ("DROP", "REJECT"), ("ACCEPT",)
DEEPEST = 16  # jumps from chain to chain


def dropped(addresses: Iterable[Address], link: Callable[[Address], str], known: str = "") -> list[str]:
    """Return a description of each FORWARD chain that drops packets from an address; skip variant `known`.

    `link` returns the name of the link on which packets from an address arrive.
    """
    found = []
    for variant in variants.deciding():
        for address in addresses if variant != known else ():
            try:
                lines = Table(address.version, variant, TABLE).lines()
            except NoIptables:  # the rules cannot be read without the program
                continue
            if _verdict(lines, address, link(address)) in DROPPED:
                program = f"{COMMANDS[address.version]} ({variant})"
                found.append(f"chain {FORWARD} of {program} drops packets from {address}, which is not admitted there")
    return found


def _verdict(lines: list[str], address: Address, link: str) -> str:
    chains: dict[str, list[str]] = {}
    policy = ""
    for line in lines:
        if line.startswith(f":{FORWARD} "):
            policy = line.split(" ")[1]
        elif line.startswith("-A "):
            chains.setdefault(line.split(" ")[1], []).append(line)

    def walk(chain: str, depth: int) -> str:
        for rule in chains.get(chain, ()) if depth < DEEPEST else ():
            is_met, target = _read(rule, address, link)
            if not is_met or not target:
                continue
            if target == "RETURN":
                return ""
            verdict = target if target in (*DROPPED, *PASSED) else walk(target, depth + 1)
            if verdict:
                return verdict
        return ""

    return walk(FORWARD, 0) or policy


def _read(rule: str, address: Address, link: str) -> tuple[bool, str]:
    """Return whether a rule certainly matches the packet, and its target."""
    unquoted = "".join(rule.replace('\\"', "").split('"')[::2])  # without comments
    words = unquoted.split()[2:]
    while words:
        is_negated = words[0] == "!"
        option, value, *rest = *words[is_negated:], "", ""  # a rule may end without a target
        if option in ("-j", "-g"):
            return True, value  # a target's own options follow
        if option == "-m" and value == "comment":
            words = rest[1:] if rest[1].startswith("-") else rest[2:]  # skip --comment, and a comment without quotes
            continue
        if _is_met(option, value, address, link) in (None, is_negated):
            return False, ""
        words = rest
    return True, ""


def _is_met(option: str, value: str, address: Address, link: str) -> bool | None:
    """Return whether the packet meets a rule's option, None if that cannot be told."""
    if option == "-s":
        try:
            return address in Prefix.parse(value)
        except ValueError:  # a mask with a gap
            return None
    if option == "-i":
        return _is_named(link, value)
    # the destination outside is on no link and in no prefix that a rule names
    return False if option in ("-o", "-d") else None


def _is_named(link: str, pattern: str) -> bool:
    return link.startswith(pattern[:-1]) if pattern.endswith("+") else link == pattern
