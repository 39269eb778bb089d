"""Host port rules in lines of iptables-save: the attachment, port and chains of a line, and commands that delete it."""

from __future__ import annotations

from shared.hostports.iptables_rules import CONDITIONS, DNAT, ENTRY, INTERFACE, interface_words
from shared.hostports.mappings import Taken
from shared.net.reference_names import shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from shared.hostports.mappings import HostPort
    from shared.nft.conntrack import Flow


class TakenHere(Taken):
    """An attachment has the host port by iptables rules; `words` are its names as the rules contain them."""

    def __init__(self, port: HostPort, network: str, container_id: str, interface: str) -> None:
        holder = "/".join([network, container_id, *interface.split('\\"')[1:2]])
        super().__init__(port.version, port.host, port.protocol, port.port, holder)
        self.words = (network, container_id, interface)


def require_free(version: int, lines: list[str], ports: Iterable[HostPort], container_id: str) -> None:
    """Raise TakenHere if another container has one of the ports.

    A runtime requests a container's ports once for each of its networks, so its own other attachments are no conflict.
    """
    holders: dict[str, tuple[str, str]] = {}
    for line in lines:
        if line.startswith(f"-A {DNAT} ") and ENTRY in line:
            network, _, rest = line.partition(ENTRY)[2].partition('\\" id: \\"')
            name = rest.partition(chr(92))[0]
            if name != shortened(container_id):
                holders[line.rpartition(" -j ")[2]] = (network, name)
    held = {
        _parse_port(line): (*holders[chain], interface_of(line))
        for line in lines
        if " -j DNAT " in line and (chain := line.split(" ", 2)[1]) in holders
    }
    for port in ports:
        holder = held.get((port.host, port.protocol, str(port.port)))
        if port.version == version and holder is not None:
            raise TakenHere(port, *holder)


def find_udp_flows(version: int, lines: Iterable[str]) -> set[Flow]:
    """Return the UDP ports that the lines redirect to a pod."""
    found = {_parse_port(line) for line in lines if " -j DNAT " in line}
    return {(version, address, int(port)) for address, protocol, port in found if protocol == "udp" and port.isdigit()}


def _parse_port(line: str) -> tuple[str, str, str]:
    """Return the address, protocol and port that a rule of a container's chain matches."""
    words = line.split(" ")
    address, protocol, port = (
        words[words.index(option) + 1] if option in words else "" for option in ("-d", "-p", "--dport")
    )
    return address.partition("/")[0], protocol, port


def is_in(line: str, chain: str) -> bool:
    """Return True if the line is a rule of the chain."""
    return line.startswith(f"-A {chain} ")


def leads_to(line: str, chain: str) -> bool:
    """Return True if the line is a rule that jumps to the chain."""
    return line.startswith("-A ") and line.endswith(f" -j {chain}")


def is_about(line: str, chain: str) -> bool:
    """Return True if the line is a rule of the chain or jumps to it."""
    return is_in(line, chain) or leads_to(line, chain)


def chain_and_target(line: str) -> tuple[str, str]:
    """Return the chain of a rule and its target, empty strings for any other line."""
    return (line.split(" ", 2)[1], line.rpartition(" -j ")[2]) if line.startswith("-A ") else ("", "")


def is_own(line: str, chain: str, ifname: str) -> bool:
    """Return True if the rule is about the chain and names the interface."""
    return is_about(line, chain) and interface_of(line) == interface_words(ifname)


def is_deleted_with(line: str, chain: str, ifname: str) -> bool:
    """Return True if DEL of the interface deletes the rule: it names this interface or none."""
    return is_about(line, chain) and interface_of(line) in ("", interface_words(ifname))


def interface_of(line: str) -> str:
    """Return the words of a rule that name its interface, empty if there are none."""
    _, found, rest = line.partition(INTERFACE)
    return f'{found}{rest.partition(chr(92))[0]}\\"' if found else ""


class Deletion:
    """Commands that delete rules: by their words, and by their numbers once iptables has refused the words.

    Recent iptables does not recognize some matches in the form in which it printed them.
    """

    def __init__(self) -> None:
        self._is_refused = False

    def commands(self, rules: Iterable[str], lines: list[str]) -> list[str]:
        """Return the commands, valid in this order. `Tables.change` asks again after a refusal."""
        numbered = [rule for rule in rules if self._is_refused and CONDITIONS in rule]
        by_words = [f"-D{rule.removeprefix('-A')}" for rule in rules if rule not in numbered]
        self._is_refused = True
        commands = []
        for chain in dict.fromkeys(rule.split(" ")[1] for rule in numbered):
            there = [line for line in lines if is_in(line, chain)]
            places = [place for place, line in enumerate(there, 1) if line in numbered]
            commands += [f"-D {chain} {place}" for place in reversed(places)]
        return commands + by_words


def chain_deletion(lines: list[str], chains: AbstractSet[str]) -> list[str]:
    """Return the commands that flush and delete those of the chains that the table has."""
    there = [line[1:].partition(" ")[0] for line in lines if line.startswith(":")]
    return [command for chain in there if chain in chains for command in (f"-F {chain}", f"-X {chain}")]


def appending_command(rule: str, lines: list[str]) -> str:
    """Return the command that appends a rule; in POSTROUTING it inserts before the first jump to a CNI chain.

    The chains of pods' own masquerading accept exempt packets, which then miss the rules for marked packets.
    """
    _, chain, text = rule.split(" ", 2)
    there = [line for line in lines if line.startswith(f"-A {chain} ")] if chain == "POSTROUTING" else []
    place = next((number for number, line in enumerate(there, 1) if " -j CNI-" in line), 0)
    return f"-I {chain} {place} {text}" if place else rule


def inserting_commands(rules: list[str]) -> list[str]:
    """Return the commands that insert rules at the front of their chains, the last one first.

    A place given by number costs time: iptables walks to it from the chain's beginning.
    """
    found = []
    for rule in reversed(rules):
        _, chain, text = rule.split(" ", 2)
        found.append(f"-I {chain} {text}")
    return found
