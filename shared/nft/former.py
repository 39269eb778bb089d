"""Find elements that other attachments, and dead ones, left in the suite's tables."""

from __future__ import annotations

from shared.net.owner import Owner
from shared.nft import labels
from shared.nft.registry import MARK, attachments, attempt, entry, holders
from shared.nft.ruleset import ADDRESSES, Set, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.cni.ip import Address
    from shared.net.netlink import Message
    from shared.nft.registry import Ruleset
    from shared.nft.ruleset import Element, Table
    from shared.nft.transaction import Nfnetlink


def registered(kernel: Nfnetlink, owner: Owner, mechanisms: Iterable[tuple[Table, str]]) -> list[tuple[Table, str]]:
    """Return the (table, mechanism) pairs under which an attachment is registered."""
    every, name = list(mechanisms), labels.of(owner)
    found = kernel.get_elements([entry(table, mechanism, name, 0).query_request() for table, mechanism in every])
    return [one for one, now in zip(every, found) if now]


def others(
    kernel: Nfnetlink, table: Table, sets: Iterable[str], addresses: Sequence[Address], owner: Owner
) -> list[tuple[Element, str]]:
    """Return elements of other attachments at an attachment's addresses, each with its owner's label.

    The IP version is appended to the names of the sets.
    """
    elements = [
        Set(table, f"{name}{one.version}", (ADDRESSES[one.version],)).element(str(one))
        for name in sets
        for one in addresses
    ]
    found = zip(elements, holders(kernel, elements))
    return [(element, holder) for element, holder in found if holder not in ("", labels.of(owner))]


def evict(kernel: Nfnetlink, table: Table, sets: Iterable[str], addresses: Sequence[Address], owner: Owner) -> None:
    """Remove elements of other attachments at addresses that IPAM has given to this attachment."""
    for element, _ in others(kernel, table, sets, addresses, owner):
        attempt(kernel, [element.remove_request()])


# -- dead attachments


def mark_of(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> tuple[str, str]:
    """Return the host link and the mark in the entry of a label; both are empty if it has none."""
    (found,) = kernel.get_elements([entry(ruleset.table, ruleset.mechanism, name, MARK).query_request()])
    host_link, _, mark = _comment(found).partition(" ") if found else ("", "", "")
    return host_link, mark


def is_dead(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, patient: bool = False) -> bool:
    """Return True if the mark of the attachment with this label shows that it is dead."""
    from shared.net import liveness

    return liveness.is_gone(*mark_of(kernel, ruleset, name), patient=patient)


def has_lost_link(name: str) -> bool:
    """Return True if an attachment's host link is gone. A label with cut names gives False."""
    from shared.net import liveness

    return "~" not in name and name.count("/") == 2 and not liveness.is_link(Owner(*name.split("/")).host_link)


def namesakes(kernel: Nfnetlink, table: Table, owner: Owner) -> set[str]:
    """Return the labels of the same container and interface in other networks, from a table's entries."""
    network, _, rest = labels.of(owner).partition("/")
    found = set()
    for message in kernel.dump_elements(attachments(table)):
        name = _comment(message).partition(" ")[0]
        other, _, same = name.partition("/")
        if same == rest and other != network:
            found.add(name)
    return found


def _comment(element: Message) -> str:
    return comment_of(element.get("NFTA_SET_ELEM_USERDATA", b""))
