"""What stands in the suite's tables from former times: of an attachment, under its addresses, and of the dead."""

from __future__ import annotations

from shared.net.owner import Owner
from shared.nft.registry import MARK, attachments, attempt, entry, holders, label
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
    """Return those of the mechanisms, each with its table, by which an attachment is registered."""
    every, name = list(mechanisms), label(owner)
    found = kernel.get_elements([entry(table, mechanism, name, 0).query() for table, mechanism in every])
    return [one for one, now in zip(every, found) if now]


def others(
    kernel: Nfnetlink, table: Table, sets: Iterable[str], addresses: Sequence[Address], owner: Owner
) -> list[tuple[Element, str]]:
    """Return the elements that other attachments have under an attachment's addresses, each with its owner's label.

    The names of the sets go on with the IP version.
    """
    elements = [
        Set(table, f"{name}{one.version}", (ADDRESSES[one.version],)).element(str(one))
        for name in sets
        for one in addresses
    ]
    found = zip(elements, holders(kernel, elements))
    return [(element, holder) for element, holder in found if holder not in ("", label(owner))]


def evict(kernel: Nfnetlink, table: Table, sets: Iterable[str], addresses: Sequence[Address], owner: Owner) -> None:
    """Remove the same elements: the addresses have been given to this attachment."""
    for element, _ in others(kernel, table, sets, addresses, owner):
        attempt(kernel, [element.remove()])


# -- the dead


def mark_of(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> tuple[str, str]:
    """Return the host link and the mark that the entry of a label keeps, both empty if it keeps none."""
    (found,) = kernel.get_elements([entry(ruleset.table, ruleset.mechanism, name, MARK).query()])
    host_link, _, mark = _comment(found).partition(" ") if found else ("", "", "")
    return host_link, mark


def is_dead(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, patient: bool = False) -> bool:
    """Return True if the attachment with this label is dead, as liveness.is_dead tells by its mark."""
    from shared.net import liveness

    return liveness.is_gone(*mark_of(kernel, ruleset, name), patient=patient)


def has_lost_link(name: str) -> bool:
    """Return True if the host link of an attachment that had one is gone. False for a label that has been cut."""
    from shared.net import liveness

    return "~" not in name and name.count("/") == 2 and not liveness.is_link(Owner(*name.split("/")).host_link)


def namesakes(kernel: Nfnetlink, table: Table, owner: Owner) -> set[str]:
    """Return the labels of the same container and interface in other networks, of all that a table has registered."""
    network, _, rest = label(owner).partition("/")
    found = set()
    for message in kernel.dump_elements(attachments(table)):
        name = _comment(message).partition(" ")[0]
        other, _, same = name.partition("/")
        if same == rest and other != network:
            found.add(name)
    return found


def _comment(element: Message) -> str:
    return comment_of(element.get("NFTA_SET_ELEM_USERDATA", b""))
