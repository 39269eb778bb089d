"""Who owns which elements: DEL, CHECK and GC find an attachment's by its names alone, at a cost that does not grow.

Beside its own sets a table has the set `attachments`. An attachment stands in it under keys that derive from its names
and the mechanism's, with comments that say whose it is and what belongs to it:

    net/c1/eth0 masquerade 1: masq4 10.1.0.5, masq6 fd00:1::5

which is the first of as many parts as the number says; the others go on with the list. Each element has its owner as
comment, too, so that nobody removes what has become another's. If a mechanism keeps what others may want, such as a
host port, one more key has the name of the attachment's host link and its mark (shared/net/liveness.py):

    veth1a2b3c4d5e6 4:4026532567 /run/netns/a
"""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError, UnsupportedField
from shared.net.netlink import NetlinkError, Request
from shared.net.owner import Owner, digest
from shared.net.wire import NLM_F_EXCL
from shared.nft import wire
from shared.nft.ruleset import COMMENT_BYTES, IPV6_ADDR, Chain, Element, Set, Table, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.net.netlink import Message
    from shared.nft.transaction import Nfnetlink

TRIES = 20  # each time another call was faster, or somebody flushed the rule set
LONGEST_NAMES = (24, 64, 15)  # bytes of network, container id and ifname in a comment, which has 128
DIGITS = 16  # of the digest that stands for the rest of a longer one
SHARED = "shared"  # the comment of an element that is no attachment's own
NOT_IN_LABELS = frozenset('"~')  # a quote would end a comment where `nft list` shows it
MARK = "mark"  # stands in a registration's key for the number of a part


INET = Table(wire.NFPROTO_INET, "pycni")
BRIDGE = Table(wire.NFPROTO_BRIDGE, "pycni")


class Conflict(InternalError):
    """An element to be added is another attachment's: `element`, and `holder`, its label."""

    def __init__(self, element: Element, holder: str) -> None:
        super().__init__(f"{element} in table {element.of.table} belongs to {holder or 'somebody else'}")
        self.element = element
        self.holder = holder


class Registered(InternalError):
    """The attachment has an entry of the mechanism already."""


class Ruleset:
    """What a mechanism has in one of the suite's tables: its sets, its base chains, and chains named by their rules.

    `mechanism` is one word of at most ten letters. A chain stands behind those to which it leads. `prefixes` are those
    of chains that calls bring (`addressed`), this mechanism's own; GC removes one to which nothing leads.
    """

    def __init__(
        self, table: Table, mechanism: str, sets: Sequence[Set], chains: Sequence[Chain], prefixes: tuple[str, ...] = ()
    ) -> None:
        self.table = table
        self.mechanism = mechanism
        self.sets = sets
        self.chains = chains
        self.prefixes = prefixes
        self.attachments = attachments(table)


def attachments(table: Table) -> Set:
    """Return the set in which a table's attachments are registered."""
    return Set(table, "attachments", (IPV6_ADDR,))


def label(owner: Owner) -> str:
    """An attachment's names as they stand in comments: network/container id/ifname, a long one cut, with a digest."""
    names = (owner.network, owner.container_id, owner.ifname)
    return "/".join(_shortened(name, longest) for name, longest in zip(names, LONGEST_NAMES))


def _shortened(name: str, longest: int) -> str:
    if len(name) <= longest and not NOT_IN_LABELS & set(name):
        return name
    kept = "".join(character for character in name[: max(longest - DIGITS - 1, 0)] if character not in NOT_IN_LABELS)
    return f"{kept}~{digest(name.encode())[: min(DIGITS, longest - 1)]}"


def is_same_container(name: str, owner: Owner) -> bool:
    """Whether a label is that of an attachment of the owner's container, by whatever network and interface."""
    return name.split("/")[1:2] == label(owner).split("/")[1:2]


def holders(kernel: Nfnetlink, elements: Sequence[Element]) -> list[str]:
    """The label of whose each element is now; empty for one that is not there."""
    return [_owner_of(now) if now else "" for now in kernel.get_elements([element.query() for element in elements])]


# -- ADD


def add(
    kernel: Nfnetlink, ruleset: Ruleset, owner: Owner, elements: Sequence[Element], *, chains: Sequence[Chain] = (),
    shared: Sequence[Element] = (), replace: bool = False, replace_in: Sequence[Set] = (), renew: bool = False,
    mark: str = "",
) -> None:  # fmt: skip
    """Adds an attachment's elements and registers them; makes what is missing of the rule set, `chains` included.

    `shared` are elements that are no attachment's own, put in where they are missing. One transaction: whatever
    happens there is all of it or nothing. An element that is another attachment's is taken over with `replace`, or
    where its set is in `replace_in`; otherwise raises Conflict. An attachment that is registered already loses what it
    had with `renew`; otherwise raises Registered. `mark` is kept, by which others can tell that the attachment is dead.
    """
    name = label(owner)
    wanted = [(element, element.add(name)) for element in elements]
    registration = _registration(ruleset, owner, elements, mark)
    additions = [*(request for _, request in wanted), *registration]
    structure: list[Request] = []
    is_there = all(kernel.get_elements([element.query() for element in shared]))
    if not is_there or not all(is_whole(kernel, chain) for chain in (*ruleset.chains, *chains)):
        structure = missing(kernel, ruleset, chains, shared)
    stale: list[Request] = []
    for tries_left in reversed(range(TRIES)):
        try:
            kernel.commit([*structure, *stale, *additions])
        except NetlinkError as error:
            if error.errno == errno.ENOENT and error.kind == wire.NFT_MSG_NEWCHAIN and not tries_left:
                raise UnsupportedField(f"this kernel cannot filter by nf_tables in table {ruleset.table}") from None
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY) or not tries_left:
                raise
            taken = next((element for element, request in wanted if request.message is error.message), None)
            if error.errno != errno.ENOENT and any(request.message is error.message for request in registration):
                stale = _outdated(kernel, ruleset, name, renew=renew)
            elif taken and error.errno != errno.ENOENT:
                removals = [*stale, *_taken_over(kernel, elements, name, ruleset.sets if replace else replace_in)]
                stale = list({_place(removal): removal for removal in removals}.values())
            elif any(request.message is error.message for request in stale):
                stale = [request for request in stale if request.message is not error.message]
            else:
                structure = missing(kernel, ruleset, chains, shared)
        else:
            return


def _outdated(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, renew: bool) -> list[Request]:
    """Return the requests that remove everything of an attachment that is registered already."""
    if not renew:
        raise Registered(f"{name} is in {ruleset.attachments} already: it was added before")
    return _removals(kernel, ruleset, name)


def _taken_over(kernel: Nfnetlink, elements: Sequence[Element], name: str, replace_in: Sequence[Set]) -> list[Request]:
    """Return the requests that remove every element that has one of these keys now.

    The kernel names the first such element alone, and each further try would take over one more of thousands. Raises
    Conflict for an element of another attachment in a set that is not among `replace_in`.
    """
    stale = []
    for element, found in zip(elements, kernel.get_elements([one.query() for one in elements])):
        if found is None:
            continue
        holder = _owner_of(found)
        if holder != name and element.of not in replace_in:
            raise Conflict(element, holder)
        stale.append(element.remove())
    return stale


def _place(removal: Request) -> tuple[str, bytes]:
    """Return the set and the key of an element that a request removes."""
    element = removal.message["NFTA_SET_ELEM_LIST_ELEMENTS"]["NFTA_LIST_ELEM"]
    return removal.message["NFTA_SET_ELEM_LIST_SET"], element["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"]


def ensure(kernel: Nfnetlink, ruleset: Ruleset) -> None:
    """Make what is missing of a rule set that has no attachments' elements to wait for."""
    for tries_left in reversed(range(TRIES)):
        if all(is_whole(kernel, chain) for chain in ruleset.chains):
            return
        try:
            kernel.commit(missing(kernel, ruleset))
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY) or not tries_left:
                raise


def is_whole(kernel: Nfnetlink, chain: Chain) -> bool:
    """Return True if the chain has its rules and no others."""
    return kernel.dump_rules(chain) == [rule.comment for rule in chain.rules]


def missing(
    kernel: Nfnetlink, ruleset: Ruleset, chains: Sequence[Chain] = (), shared: Sequence[Element] = ()
) -> list[Request]:
    """Requests that make what is not there, and refill chains that have not the rules they should have."""
    sets = [ruleset.attachments, *ruleset.sets]
    every = [*chains, *ruleset.chains]
    things: list[Table | Set | Chain] = [ruleset.table, *sets, *every]
    table, *found = kernel.get_all([thing.query() for thing in things])
    requests = [] if table else [ruleset.table.create()]
    for number, one in enumerate(sets):
        if not found[number]:
            requests.append(one.create(number + 1))
    for place, chain in enumerate(every):
        if not found[len(sets) + place]:
            requests += chain.create()
        elif not is_whole(kernel, chain):
            requests += chain.refill()
    present = kernel.get_elements([element.query() for element in shared])
    return requests + [element.add(SHARED) for element, now in zip(shared, present) if not now]


def _registration(ruleset: Ruleset, owner: Owner, elements: Sequence[Element], mark: str) -> list[Request]:
    """The requests that make an attachment's entry, with its mark if a comment has room for that."""
    name = label(owner)
    parts: list[tuple[int | str, str]] = [*enumerate(texts(ruleset, owner, elements))]
    kept = f"{owner.host_link} {mark}"
    if mark and '"' not in kept and len(kept.encode()) <= COMMENT_BYTES:
        parts.append((MARK, kept))
    return [_part(ruleset, name, number).add(text) for number, text in parts]


def texts(ruleset: Ruleset, owner: Owner, elements: Sequence[Element]) -> list[str]:
    """The comments of the parts of an attachment's entry."""
    head = f"{label(owner)} {ruleset.mechanism}"
    parts = [""]
    room = COMMENT_BYTES - len(f"{head} {len(elements) + 1}: ")  # an element is never longer than a comment
    for item in map(str, elements):
        longer = f"{parts[-1]}, {item}" if parts[-1] else item
        if len(longer) <= room:
            parts[-1] = longer
        else:
            parts.append(item)
            room = COMMENT_BYTES
    parts[0] = f"{head} {len(parts)}: {parts[0]}"
    return parts


def _part(ruleset: Ruleset, name: str, number: int | str) -> Element:
    return entry(ruleset.table, ruleset.mechanism, name, number)


def entry(table: Table, mechanism: str, name: str, number: int | str) -> Element:
    """Return the element of an attachment's entry that is its part of this number, or its MARK."""
    key = bytes.fromhex(digest(f"{mechanism}/{name}/{number}".encode())[:32])
    return Element(attachments(table), key)


# -- DEL


def remove(kernel: Nfnetlink, ruleset: Ruleset, owner: Owner) -> None:
    """Removes an attachment's elements and its entry; nothing where there is none, as where nf_tables is missing."""
    remove_label(kernel, ruleset, label(owner))


def listed(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> list[Element]:
    """Return the elements that the entry of an attachment's label lists, there or not; none if it has no entry."""
    return _registered(kernel, ruleset, name)[1]


def withdraw(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> None:
    """Remove an attachment's elements. Leave its entry, by which a repeated call finds what else is to be done."""
    remove_label(kernel, ruleset, name, keep_entry=True)


def remove_label(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, keep_entry: bool = False) -> None:
    """Remove what the attachment with a label has, and unless `keep_entry` its entry."""
    for tries_left in reversed(range(TRIES)):
        try:
            kernel.commit(_removals(kernel, ruleset, name, keep_entry=keep_entry))
        except NetlinkError as error:
            if error.errno != errno.ENOENT or not tries_left:  # ENOENT: one of them is gone meanwhile
                raise
        else:
            return


def _removals(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, keep_entry: bool = False) -> list[Request]:
    parts, elements = _registered(kernel, ruleset, name)
    found = kernel.get_elements([element.query() for element in elements])
    own = [element for element, now in zip(elements, found) if now and _owner_of(now) == name]
    return [element.remove() for element in (own if keep_entry else (*own, *parts))]


def _registered(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> tuple[list[Element], list[Element]]:
    """An attachment's entry: its parts that are there, and the elements that they list."""
    parts = [_part(ruleset, name, 0), _part(ruleset, name, MARK)]
    found = kernel.get_elements([part.query() for part in parts])
    if found[0] is None:
        return parts[1:] if found[1] else [], []
    head, _, items = _comment(found[0]).partition(": ")
    others = [_part(ruleset, name, number) for number in range(1, int(head.rpartition(" ")[2]))]
    found += kernel.get_elements([part.query() for part in others])
    texts = [items, *(_comment(message) for message in found[2:] if message)]
    present = [part for part, message in zip([*parts, *others], found) if message]
    return present, [_listed(ruleset, item) for text in texts if text for item in text.split(", ")]


def _listed(ruleset: Ruleset, item: str) -> Element:
    set_name, *key = item.split(" ")
    of = next(one for one in ruleset.sets if one.name == set_name)
    return Element(of, of.pack(key))


def _comment(element: Message) -> str:
    return comment_of(element.get("NFTA_SET_ELEM_USERDATA", b""))


def _owner_of(element: Message) -> str:
    return _comment(element)


# -- GC, CHECK, STATUS


def collect(
    kernel: Nfnetlink, ruleset: Ruleset, network: str, valid: AbstractSet[tuple[str, str]],
    is_dead: Callable[[str], bool] | None = None,
) -> None:  # fmt: skip
    """Removes what belongs to attachments of a network that are not among the valid (container id, ifname).

    Also elements whose owner is not registered, since `attachments` was flushed, and chains to which nothing leads.
    `is_dead` tells by a label whether an attachment of another network is dead, whose entry goes as well.
    """
    keep = {label(Owner(network, container_id, ifname)) for container_id, ifname in valid}
    ours = f"{_shortened(network, LONGEST_NAMES[0])}/"

    def is_stale(name: str) -> bool:
        return name.startswith(ours) and name not in keep

    for message in kernel.dump_elements(ruleset.attachments):
        name, _, rest = _comment(message).partition(" ")
        is_ours = rest.startswith(f"{ruleset.mechanism} ") and name not in keep
        if is_ours and (is_stale(name) or (is_dead and is_dead(name))):
            remove_label(kernel, ruleset, name)
    for one in ruleset.sets:
        unregistered = [
            Element(one, message["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"]).remove()
            for message in kernel.dump_elements(one)
            if is_stale(_owner_of(message))
        ]
        if not attempt(kernel, unregistered):
            for removal in unregistered:
                attempt(kernel, [removal])
    # the kernel lists a chain before those made later, which lead to it
    for chain in reversed(kernel.dump_chains(ruleset.table)) if ruleset.prefixes else ():
        if chain.rpartition("-")[0] in ruleset.prefixes:
            attempt(kernel, Chain(ruleset.table, chain, ()).remove())


def attempt(kernel: Nfnetlink, requests: list[Request]) -> bool:
    """Remove things together. Return False if one was gone already, or something leads to it, and nothing was done."""
    try:
        kernel.commit(requests)
    except NetlinkError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise
        return False
    return True


def problems(
    kernel: Nfnetlink, ruleset: Ruleset, owner: Owner, elements: Sequence[Element], chains: Sequence[Chain] = (),
    shared: Sequence[Element] = (),
) -> list[str]:  # fmt: skip
    """What is not as `add` left it, each in words."""
    name = label(owner)
    found = [
        f"{chain} is missing or does not have its rules"
        for chain in (*ruleset.chains, *chains)
        if not is_whole(kernel, chain)
    ]
    every = [*shared, *elements]
    for element, now in zip(every, kernel.get_elements([element.query() for element in every])):
        what = f"{element.of.show(element.key)} in {element.of}"
        if now is None:
            found.append(f"{what} is missing")
        elif _owner_of(now) != (SHARED if element in shared else name):
            found.append(f"{what} belongs to {_owner_of(now) or 'somebody else'}")
        elif element.data is not None and now.get("NFTA_SET_ELEM_DATA") != element.data:
            found.append(f"{what} leads elsewhere")
    _, registered = _registered(kernel, ruleset, name)
    if {str(element) for element in registered} != {str(element) for element in elements}:
        found.append(f"{name} is not registered as it was in {ruleset.attachments}")
    return found


def try_out(kernel: Nfnetlink, ruleset: Ruleset, chains: Sequence[Chain] = ()) -> None:
    """Raises NoNfTables or NetlinkError where the kernel could not make the rule set; changes nothing."""
    requests = [ruleset.table.create()]
    requests += [one.create(number + 1) for number, one in enumerate((ruleset.attachments, *ruleset.sets))]
    for chain in (*chains, *ruleset.chains):
        requests += chain.create()
    for request in requests:
        request.flags &= ~NLM_F_EXCL  # what is there already is no reason
    kernel.commit(requests, dry_run=True)
