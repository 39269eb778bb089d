"""The nf_tables socket: transactions, which the kernel commits whole or not at all, and queries."""

from __future__ import annotations

import errno

from shared import handover
from shared.cni.errors import UnsupportedField
from shared.net.messages import decode
from shared.net.netlink import Netlink, NetlinkError, Overrun, Request
from shared.net.wire import NETLINK_NETFILTER, NLM_F_ACK, NLMSG_ERROR
from shared.nft import wire
from shared.nft.ruleset import ABSENT, comment_of, elements_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from shared.net.netlink import Message
    from shared.nft.ruleset import Chain, Set, Table

    Found = TypeVar("Found")

AT_ONCE = 16  # queries; the socket's buffer holds their answers
DELETIONS = (wire.NFT_MSG_DELCHAIN, wire.NFT_MSG_DELRULE, wire.NFT_MSG_DELSETELEM)


class NoNfTables(UnsupportedField):
    """The kernel has no nf_tables."""

    def __init__(self) -> None:
        super().__init__("this kernel has no nf_tables (CONFIG_NF_TABLES)")


class Nfnetlink(Netlink):
    """A socket to nf_tables in the thread's network namespace at the time of creation.

    It stays open until exit unless it is closed: closing waits 10 ms until the kernel has freed deleted objects. A
    child waits for that in place of the call (shared/handover.py). Raise NoNfTables.
    """

    protocol = NETLINK_NETFILTER
    tables = wire

    def __init__(self) -> None:
        try:
            super().__init__()
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT:
                raise NoNfTables from None
            raise
        handover.retain(self.socket)

    @classmethod
    def if_there(cls) -> Nfnetlink | None:
        """Return a socket; None if the kernel has no nf_tables, and hence no rules."""
        try:
            return cls()
        except NoNfTables:
            return None

    def close(self) -> None:
        """Close the socket."""
        handover.release(self.socket)
        super().close()

    def commit(self, requests: Sequence[Request], *, dry_run: bool = False) -> None:
        """Send requests as one transaction; with `dry_run` let the kernel check them and change nothing.

        If the kernel refuses a request, nothing changes. Raise NetlinkError for the first refused request, with its
        `message`; raise NoNfTables.
        """
        if not requests:
            return
        *others, last = requests
        batch = [
            Request(wire.NFNL_MSG_BATCH_BEGIN, {"res_id": wire.NFNL_SUBSYS_NFTABLES}), *others,
            Request(last.kind, last.message, last.flags | NLM_F_ACK),
        ]  # fmt: skip
        first = self.sequence + 1
        self._begin()
        end_of_batch = Request(wire.NFNL_MSG_BATCH_END, {"res_id": wire.NFNL_SUBSYS_NFTABLES})
        # the kernel checks a batch without an end, then rolls it back
        self._send(batch if dry_run else [*batch, end_of_batch], acknowledge=False)
        failure = self._outcome(batch, first)
        if failure is None:
            if any(one.kind in DELETIONS for one in requests):
                handover.note_deletions(self.socket)
            return
        if failure.kind == wire.NFNL_MSG_BATCH_BEGIN and failure.errno == errno.EOPNOTSUPP:
            raise NoNfTables
        raise failure

    def _outcome(self, batch: list[Request], first: int) -> NetlinkError | None:
        """Return the first refusal in the kernel's answers, None if there is none.

        The kernel reports refused requests in order, then the last request. If it refuses the whole batch, it answers
        only the first.
        """
        last = first + len(batch) - 1
        failure: NetlinkError | None = None
        has_lost = False
        while True:
            try:
                answers = list(self._receive(wait=not has_lost))
            except Overrun:
                has_lost = True  # the buffer overflowed: it holds the first refusals, maybe not the last answer
                continue
            for kind, sequence, flags, data, start, end in answers:
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                failure = failure or self._refusal(batch[sequence - first], flags, data, start, end)
                if sequence == last or (failure and (has_lost or sequence == first)):
                    self._drain(has_lost=has_lost)
                    return failure
            self._expect_time()

    def get_all(self, requests: Sequence[Request]) -> list[Message | None]:
        """Return the kernel's object for each request, in order, None for each that does not exist.

        Without nf_tables none exists.
        """
        found: list[Message | None] = []
        for place in range(0, len(requests), AT_ONCE):
            some = list(requests[place : place + AT_ONCE])
            found += self._retry_read(lambda some=some: self._get_some(some))  # type: ignore[misc]
        return found

    def _get_some(self, requests: list[Request]) -> list[Message | None]:
        first = self.sequence + 1
        self._send(requests, acknowledge=False)
        found: dict[int, Message | None] = {}
        while len(found) < len(requests):
            for kind, sequence, flags, data, start, end in self._receive(safe=True):
                if not first <= sequence < first + len(requests):
                    continue
                if kind != NLMSG_ERROR:
                    found[sequence] = decode(kind, data, start, end, wire)
                    continue
                if failure := self._refusal(requests[sequence - first], flags, data, start, end):
                    raise failure
                found[sequence] = None
        return [found[first + place] for place in range(len(requests))]

    def get_elements(self, requests: Sequence[Request]) -> list[Message | None]:
        """Return the element for each Element.query_request(), None if it or its set does not exist."""
        return [message and elements(message)[0] for message in self.get_all(requests)]

    def dump_rules(self, chain: Chain) -> list[str]:
        """Return the comments of a chain's rules in order; none if the chain does not exist."""
        return self._rules(chain, lambda rules: [comment_of(one.get("NFTA_RULE_USERDATA", b"")) for one in rules])

    def dump_handles(self, chain: Chain, comment: str) -> list[int]:
        """Return the handles of a chain's rules with this comment."""
        return self._rules(
            chain,
            lambda rules: [
                one["NFTA_RULE_HANDLE"] for one in rules if comment_of(one.get("NFTA_RULE_USERDATA", b"")) == comment
            ],
        )

    def dump_expressions(self, chain: Chain) -> list[bytes]:
        """Return the encoded expressions of each of a chain's rules; none if the chain does not exist."""
        return self._rules(chain, lambda rules: [one.get("NFTA_RULE_EXPRESSIONS", b"") for one in rules])

    def _rules(self, chain: Chain, take: Callable[[Iterator[Message]], list[Found]]) -> list[Found]:
        wanted = chain.rules_of()
        return self._scan(
            wire.NFT_MSG_GETRULE, wanted, lambda rules: take(one for one in rules if wanted.items() <= one.items())
        )

    def dump_elements(self, of: Set) -> list[Message]:
        """Return all elements of a set; none if the set does not exist."""
        return self._scan(
            wire.NFT_MSG_GETSETELEM, elements_of(of), lambda parts: [one for part in parts for one in elements(part)]
        )

    def dump_chains(self, table: Table) -> list[str]:
        """Return the names of a table's chains in order of creation."""
        return self._scan(
            wire.NFT_MSG_GETCHAIN, {"nfgen_family": table.family},
            lambda chains: [one["NFTA_CHAIN_NAME"] for one in chains if one["NFTA_CHAIN_TABLE"] == table.name],
        )  # fmt: skip

    def _scan(self, kind: int, message: Message, take: Callable[[Iterator[Message]], list[Found]]) -> list[Found]:
        try:
            return self.scan(kind, message, take)
        except NetlinkError as error:
            if error.errno in ABSENT:
                return []
            raise


def elements(message: Message) -> list[Message]:
    """Return the elements in a message, as a list even if the codec decoded a single one."""
    found = message.get("NFTA_SET_ELEM_LIST_ELEMENTS", {}).get("NFTA_LIST_ELEM", [])
    return found if isinstance(found, list) else [found]
