"""Register which attachment owns which elements of the suite's nf_tables tables.

DEL, CHECK and GC find an attachment's elements by its names alone. The cost does not grow with the number of
attachments.

Besides its own sets, each table has the set `attachments`. An attachment's entry there consists of parts. The keys of
the parts derive from the names of the attachment and of the mechanism. Their comments name the owner and list the
elements:

    net/c1/eth0 masquerade 1: masq4 10.1.0.5, masq6 fd00:1::5

The number is that of the parts; the other parts continue the list. Each element names its owner in its comment, too, so
that no call removes an element that now belongs to another attachment. If a mechanism manages things that others may
want, such as host ports, one more part names the attachment's host link and its mark (shared/net/liveness.py):

    veth1a2b3c4d5e6 4:4026532567 /run/netns/a
"""

from __future__ import annotations

import errno

from shared.cni.digests import digest
from shared.cni.errors import InternalError, UnsupportedField
from shared.net.netlink import NetlinkError, Request
from shared.net.owner import Owner
from shared.net.wire import NLM_F_EXCL
from shared.nft import labels, wire
from shared.nft.chains import is_whole, without_rules
from shared.nft.ruleset import COMMENT_BYTES, IPV6_ADDR, Chain, Element, Set, Table, comment_of
from shared.nft.transaction import elements as elements_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from shared.net.netlink import Message
    from shared.nft.transaction import Nfnetlink

TRIES = 20  # one for each time another call was faster, or the rule set was flushed
CONFLICTS = (errno.ENOENT, errno.EEXIST, errno.EBUSY)  # another call changed the same rules in the meantime
SHARED = "shared"  # comment of an element that belongs to no attachment
MARK = "mark"  # in the key of an entry's part, in place of its number

INET = Table(wire.NFPROTO_INET, "pycni")
BRIDGE = Table(wire.NFPROTO_BRIDGE, "pycni")


class Conflict(InternalError):
    """An element to be added belongs to another attachment, with the label `holder`."""

    def __init__(self, element: Element, holder: str) -> None:
        super().__init__(f"{element} in table {element.of.table} belongs to {holder or 'an unknown owner'}")
        self.element = element
        self.holder = holder


class Registered(InternalError):
    """The attachment already has an entry for the mechanism."""


class Ruleset:
    """A mechanism's part of one table: its sets, its base chains, and chains named by their rules.

    `mechanism` is one word of at most ten letters. In `chains`, a chain comes after the chains to which it leads.
    `prefixes` are the names' beginnings of the chains that calls add (`addressed`). No other mechanism uses them. GC
    removes such a chain if nothing leads to it.
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


def holders(kernel: Nfnetlink, elements: Sequence[Element]) -> list[str]:
    """Return the label of each element's owner; empty for an element that does not exist."""
    return [
        _owner_of(now) if now else "" for now in kernel.get_elements([element.query_request() for element in elements])
    ]


# -- ADD


def add(
    kernel: Nfnetlink, ruleset: Ruleset, owner: Owner, elements: Sequence[Element], *, chains: Sequence[Chain] = (),
    shared: Sequence[Element] = (), replace: bool = False, replace_in: Sequence[Set] = (), renew: bool = False,
    mark: str = "",
) -> None:  # fmt: skip
    """Add and register an attachment's elements, and create the missing parts of the rule set.

    One transaction does it all. It also creates missing `chains`, and missing elements of no attachment (`shared`).

    Raise Conflict if an element belongs to another attachment, unless `replace` is set or its set is in `replace_in`:
    then this attachment takes it over. Raise Registered if the attachment is registered already, unless `renew` is set:
    then its old elements are removed. The entry records `mark`, by which others recognize a dead attachment.
    """
    name = labels.of(owner)
    wanted = [(element, element.add_request(name)) for element in elements]
    registration = _registration(ruleset, owner, elements, mark)
    additions = [*(request for _, request in wanted), *registration]
    structure: list[Request] = []
    is_there = all(kernel.get_elements([element.query_request() for element in shared]))
    if not is_there or not all(is_whole(kernel, chain) for chain in (*ruleset.chains, *chains)):
        structure = missing(kernel, ruleset, chains, shared)
    stale: list[Request] = []
    for tries_left in reversed(range(TRIES)):
        try:
            kernel.commit([*structure, *stale, *additions])
        except NetlinkError as error:
            if not tries_left or error.errno not in CONFLICTS:
                raise _explained(error, ruleset) from None
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


def _explained(error: NetlinkError, ruleset: Ruleset) -> Exception:
    """Return the error to raise: ENOENT for a chain means that the kernel lacks the table's family or hook."""
    if error.errno == errno.ENOENT and error.kind == wire.NFT_MSG_NEWCHAIN:
        return UnsupportedField(f"this kernel cannot filter with nf_tables in table {ruleset.table}")
    return error


def _outdated(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, renew: bool) -> list[Request]:
    """Return the requests that remove all elements and the entry of a registered attachment."""
    if not renew:
        raise Registered(f"{name} is in {ruleset.attachments} already: it was added before")
    return _removals(kernel, ruleset, name)


def _taken_over(kernel: Nfnetlink, elements: Sequence[Element], name: str, replace_in: Sequence[Set]) -> list[Request]:
    """Return the requests that remove every element that has one of these keys now.

    The kernel reports only the first such element, and one try for each of thousands would take too long. Raise
    Conflict if an element of another attachment is in a set that is not in `replace_in`.
    """
    stale = []
    for element, found in zip(elements, kernel.get_elements([one.query_request() for one in elements])):
        if found is None:
            continue
        holder = _owner_of(found)
        if holder != name and element.of not in replace_in:
            raise Conflict(element, holder)
        stale.append(element.remove_request())
    return stale


def _place(removal: Request) -> tuple[str, bytes]:
    """Return the set and the key of an element that a request removes."""
    element = removal.message["NFTA_SET_ELEM_LIST_ELEMENTS"]["NFTA_LIST_ELEM"]
    return removal.message["NFTA_SET_ELEM_LIST_SET"], element["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"]


def ensure(kernel: Nfnetlink, ruleset: Ruleset) -> None:
    """Create the missing parts of a rule set without adding elements."""
    for tries_left in reversed(range(TRIES)):
        if all(is_whole(kernel, chain) for chain in ruleset.chains):
            return
        try:
            kernel.commit(missing(kernel, ruleset))
        except NetlinkError as error:
            if error.errno not in CONFLICTS or not tries_left:
                raise


def missing(
    kernel: Nfnetlink, ruleset: Ruleset, chains: Sequence[Chain] = (), shared: Sequence[Element] = ()
) -> list[Request]:
    """Return requests that create the missing objects, and refill chains whose rules differ."""
    sets = [ruleset.attachments, *ruleset.sets]
    every = [*chains, *ruleset.chains]
    things: list[Table | Set | Chain] = [ruleset.table, *sets, *every]
    table, *found = kernel.get_all([thing.query_request() for thing in things])
    requests = [] if table else [ruleset.table.create_request()]
    for number, one in enumerate(sets):
        if not found[number]:
            requests.append(one.create_request(number + 1))
    for place, chain in enumerate(every):
        if not found[len(sets) + place]:
            requests += chain.create_requests()
        elif not is_whole(kernel, chain):
            requests += chain.refill_requests()
    present = kernel.get_elements([element.query_request() for element in shared])
    return requests + [element.add_request(SHARED) for element, now in zip(shared, present) if not now]


def _registration(ruleset: Ruleset, owner: Owner, elements: Sequence[Element], mark: str) -> list[Request]:
    """Return requests that create an attachment's entry, with its mark if that fits a comment."""
    name = labels.of(owner)
    parts: list[tuple[int | str, str]] = [*enumerate(texts(ruleset, owner, elements))]
    kept = f"{owner.host_link} {mark}"
    if mark and '"' not in kept and len(kept.encode()) <= COMMENT_BYTES:
        parts.append((MARK, kept))
    return [_part(ruleset, name, number).add_request(text) for number, text in parts]


def texts(ruleset: Ruleset, owner: Owner, elements: Sequence[Element]) -> list[str]:
    """Return the comments of the parts of an attachment's entry."""
    head = f"{labels.of(owner)} {ruleset.mechanism}"
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
    """Return the element that is one part of an attachment's entry, by its number or MARK."""
    key = bytes.fromhex(digest(f"{mechanism}/{name}/{number}".encode())[:32])
    return Element(attachments(table), key)


# -- DEL


def remove(kernel: Nfnetlink, ruleset: Ruleset, owner: Owner) -> None:
    """Remove an attachment's elements and its entry. Do nothing if there are none, or no nf_tables."""
    remove_label(kernel, ruleset, labels.of(owner))


def listed(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> list[Element]:
    """Return the elements that a label's entry lists, whether they exist or not; none without an entry."""
    return _registered(kernel, ruleset, name)[1]


def withdraw(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> None:
    """Remove an attachment's elements. Keep its entry, by which a repeated call finds the remaining work."""
    remove_label(kernel, ruleset, name, keep_entry=True)


def remove_label(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, keep_entry: bool = False) -> None:
    """Remove the elements of the attachment with this label and, unless `keep_entry`, its entry."""
    for tries_left in reversed(range(TRIES)):
        try:
            kernel.commit(_removals(kernel, ruleset, name, keep_entry=keep_entry))
        except NetlinkError as error:
            if error.errno != errno.ENOENT or not tries_left:  # ENOENT: another call deleted an element in the meantime
                raise
        else:
            return


def _removals(kernel: Nfnetlink, ruleset: Ruleset, name: str, *, keep_entry: bool = False) -> list[Request]:
    parts, elements = _registered(kernel, ruleset, name)
    found = kernel.get_elements([element.query_request() for element in elements])
    own = [element for element, now in zip(elements, found) if now and _owner_of(now) == name]
    return [element.remove_request() for element in (own if keep_entry else (*own, *parts))]


def _registered(kernel: Nfnetlink, ruleset: Ruleset, name: str) -> tuple[list[Element], list[Element]]:
    """Return the existing parts of an attachment's entry, and the elements that they list."""
    parts = [_part(ruleset, name, 0), _part(ruleset, name, MARK)]
    found = kernel.get_elements([part.query_request() for part in parts])
    if found[0] is None:
        return parts[1:] if found[1] else [], []
    head, _, items = _comment(found[0]).partition(": ")
    others = [_part(ruleset, name, number) for number in range(1, int(head.rpartition(" ")[2]))]
    found += kernel.get_elements([part.query_request() for part in others])
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
    """Remove elements of a network's attachments that are not in `valid`, (container id, ifname).

    That includes elements whose owner is not registered, because `attachments` was flushed. Also remove chains to which
    nothing leads. `is_dead` takes the label of an attachment of another network; if it returns True, that attachment's
    elements and entry are removed as well.
    """
    keep = {labels.of(Owner(network, container_id, ifname)) for container_id, ifname in valid}
    ours = labels.prefix_of(network)

    def is_stale(name: str) -> bool:
        return name.startswith(ours) and name not in keep

    for message in kernel.dump_elements(ruleset.attachments):
        name, _, rest = _comment(message).partition(" ")
        is_ours = rest.startswith(f"{ruleset.mechanism} ") and name not in keep
        if is_ours and (is_stale(name) or (is_dead and is_dead(name))):
            remove_label(kernel, ruleset, name)
    for one in ruleset.sets:
        unregistered = [
            Element(one, message["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"]).remove_request()
            for message in kernel.dump_elements(one)
            if is_stale(_owner_of(message))
        ]
        if not attempt(kernel, unregistered):
            for removal in unregistered:
                attempt(kernel, [removal])
    # Chains that lead to a chain were created after it, and the kernel lists chains in the order of creation.
    for chain in reversed(kernel.dump_chains(ruleset.table)) if ruleset.prefixes else ():
        if chain.rpartition("-")[0] in ruleset.prefixes:
            attempt(kernel, Chain(ruleset.table, chain, ()).remove_requests())


def attempt(kernel: Nfnetlink, requests: list[Request]) -> bool:
    """Remove objects in one transaction. Return False if it failed because one is gone or in use."""
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
    """Return a description of each difference from the state that `add` left."""
    name = labels.of(owner)
    every = [*shared, *elements]
    answers = kernel.get_all([element.query_request() for element in every])
    torn = without_rules(kernel, [*ruleset.chains, *chains], answers)
    found = [f"{chain} is missing or does not have its rules" for chain in torn]
    for element, answer in zip(every, answers):
        now = answer and elements_in(answer)[0]
        what = f"{element.of.show(element.key)} in {element.of}"
        if now is None:
            found.append(f"{what} is missing")
        elif _owner_of(now) != (SHARED if element in shared else name):
            found.append(f"{what} belongs to {_owner_of(now) or 'an unknown owner'}")
        elif element.data is not None and now.get("NFTA_SET_ELEM_DATA") != element.data:
            found.append(f"{what} does not lead to its chain or value")
    if not lists(kernel, ruleset, owner, elements):
        state = "registered with other elements" if listed(kernel, ruleset, name) else "not registered"
        found.append(f"{name} is {state} in {ruleset.attachments}")
    return found


def lists(kernel: Nfnetlink, ruleset: Ruleset, owner: Owner, elements: Sequence[Element]) -> bool:
    """Return True if an attachment's entry lists these elements and no others."""
    return {*map(str, listed(kernel, ruleset, labels.of(owner)))} == {*map(str, elements)}


def try_out(kernel: Nfnetlink, ruleset: Ruleset, chains: Sequence[Chain] = ()) -> None:
    """Raise NoNfTables or NetlinkError if the kernel could not create the rule set. Change nothing."""
    requests = [ruleset.table.create_request()]
    requests += [one.create_request(number + 1) for number, one in enumerate((ruleset.attachments, *ruleset.sets))]
    for chain in (*chains, *ruleset.chains):
        requests += chain.create_requests()
    for request in requests:
        request.flags &= ~NLM_F_EXCL  # objects that exist already are no reason to fail
    kernel.commit(requests, dry_run=True)
