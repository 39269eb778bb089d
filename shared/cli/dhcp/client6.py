"""Acquire a DHCPv6 lease and keep it, or ask for DNS settings alone (RFC 8415).

pyroute2 has a client for IPv4 only. This one has its pauses and its texts, and serves a tenancy as it does.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Self, TypeVar

from pyroute2.dhcp.hooks import Trigger

from shared.cli.dhcp import content, lease6, pauses, probing
from shared.cli.dhcp.content import Content
from shared.cli.dhcp.lease6 import Lease6
from shared.cli.dhcp.packets import now
from shared.cli.dhcp.packets6 import (
    Kind,
    Message,
    Option,
    Options,
    PodSocket6,
    Refusal,
    Status,
    Withdrawal,
    new_transaction,
)
from shared.cni.errors import CniError, TryAgainLater

REQUESTED = b"".join(option.to_bytes(2, "big") for option in (Option.NAME_SERVERS, Option.DOMAIN_SEARCH))
FIRST_PAUSE_SECONDS = 1.0  # before a message is sent again; RFC 8415, section 7.6
REQUEST_SECONDS = 8.0  # for a server to confirm its offer
ADDRESS_SECONDS = 0.1, 2.0  # the first and the longest pause until the link can have a link-local address
MOST_ELAPSED = 0xFFFF  # hundredths of a second
LOST = (Status.NO_BINDING, Status.NO_ADDRS_AVAIL, Status.NOT_ON_LINK)  # a lease with this status is over

Report = Callable[[Trigger, Lease6], None]
Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Wish6:
    """A client's identity: the plugin's request, in the daemon's terms."""

    ifname: str
    duid: bytes
    iaid: bytes
    probe_seconds: float = 0.0  # to look for other hosts with a new address

    protocol = "DHCPv6"

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Wish6:
        """Read a request. Raise KeyError, TypeError or ValueError if it is garbled."""
        names = bytes.fromhex(raw["duid"]), bytes.fromhex(raw["iaid"])
        return cls(str(raw["ifname"]), *names, probe_seconds=float(raw.get("probeSeconds", 0)))

    def read(self, lease: Lease6) -> Content:
        """Return the lease's content."""
        return content.read_ipv6(lease.ip, lease.raw)

    def load(self, stored: dict[str, Any]) -> Lease6:
        """Return a stored lease. Raise KeyError, TypeError or ValueError if it is garbled."""
        return Lease6.from_json(stored)

    def identify(self, _mac: str) -> dict[int, bytes]:
        """Return the options that name the client. Its DUID stays when the link's MAC changes."""
        return {Option.CLIENT_ID: self.duid, Option.IA_NA: self.iaid}

    def client(self, inside: AbstractContextManager[Any], report: Report, limits: tuple[float, float]) -> Client6:
        """Return a client on the link in a network namespace."""
        return Client6(self, PodSocket6(inside, self.ifname), report, limits=limits)

    async def release(self, inside: AbstractContextManager[Any], ifname: str, _mac: str, lease: Lease6) -> None:
        """Send a RELEASE through a link. Raise CniError or OSError."""
        async with PodSocket6(inside, ifname, port=0) as way:
            way.send(self.message(Kind.RELEASE, new_transaction(), self.options_of(lease), elapsed=0.0))

    def options_of(self, lease: Lease6) -> Options:
        """Return the options of a message to the lease's server. A REBIND has the first alone."""
        return [lease6.association(self.iaid, lease.ip), (Option.SERVER_ID, lease.server)]

    def message(self, kind: Kind, transaction: bytes, options: Options, *, elapsed: float) -> Message:
        """Return a message with these options, and those that each message has."""
        hundredths = min(int(elapsed * 100), MOST_ELAPSED).to_bytes(2, "big")
        common: Options = [(Option.CLIENT_ID, self.duid), (Option.ELAPSED_TIME, hundredths)]
        if kind not in (Kind.RELEASE, Kind.DECLINE):
            common.append((Option.REQUESTED, REQUESTED))
        return Message(kind, transaction, [*common, *options])


class Client6(pauses.Tally):
    """Acquire a lease and keep it. `report(trigger, lease)` is called when it changes."""

    def __init__(self, wish: Wish6, pod_socket: PodSocket6, report: Report, *, limits: tuple[float, float]) -> None:
        """Take the first and the longest pause, in seconds, before a message is sent again."""
        self.wish = wish
        self.report = report
        self.sent: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self.objections: deque[str] = deque(maxlen=pauses.OBJECTIONS)  # to answers that were not used
        self.is_patient = True  # an ADD waits
        self.former_address = ""  # to ask for again
        self.tentative: Lease6 | None = None  # a lease that is probed, and not reported yet
        self.refusal = ""  # the name of the last status code with which a server ended the lease
        self._sock = pod_socket
        self._limits = limits
        self._avoided: set[bytes] = set()  # servers that did not confirm an offer, until another one had a chance
        self._refusals = 0
        self._requested_at = 0.0

    async def __aenter__(self) -> Self:
        """Open the socket. Raise CniError or OSError."""
        await self._sock.__aenter__()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close the socket, without a RELEASE."""
        await asyncio.sleep(0)  # the loop forgets the socket before another one gets its number
        await self._sock.__aexit__()

    async def run(self, lease: Lease6 | None) -> None:
        """Resume a lease at once, or acquire one whenever there is none, and renew it in time.

        Raise OSError when the link is down or gone.
        """
        current = lease if lease and not lease.expired else None
        is_due = current is not None
        while True:
            if current is None:
                current = await self._acquire()
                self._take(Trigger.BOUND, current)
            elif is_due:
                current = await self._extend(current)
            else:
                await self._sock.pause(min(max(current.left(current.renewal), 0), pauses.LONGEST_SLEEP_SECONDS))
            is_due = current is not None and current.left(current.renewal) <= 0

    async def inform(self) -> dict[str, Any]:
        """Return the DNS settings of a server that leases nothing."""

        def take(message: Message) -> dict[str, Any]:
            _require(message, Kind.REPLY)
            return content.dns_ipv6({number: message.get(number) for number in lease6.KEPT})

        return await self._ask(Kind.INFORMATION_REQUEST, [], take)

    def _take(self, trigger: Trigger, lease: Lease6) -> None:
        self._refusals = 0
        self._avoided.clear()
        self.former_address = lease.ip
        self.report(trigger, lease)
        self.tentative = None

    async def _acquire(self) -> Lease6:
        """Return a new lease of the first server with a usable one."""
        while True:
            await self._sock.pause(pauses.after_refusals(self._refusals))
            address = self.former_address
            options: Options = [lease6.association(self.wish.iaid, address), (Option.RAPID_COMMIT, b"")]
            kind, lease = await self._ask(Kind.SOLICIT, options, self._take_offer)
            try:
                if kind is not Kind.REPLY:  # which is a rapid commit
                    lease = await self._request(lease)
            except (Refusal, TimeoutError):
                self.objections.append(f"{lease.server_id} offered a lease and did not confirm it")
                self._avoided.add(lease.server)
            else:
                if not await self._is_declined(lease):
                    return lease
            self._refusals += 1

    async def _is_declined(self, lease: Lease6) -> bool:
        """Return True if another host has the address. Then decline it."""
        way, seconds = self._sock, self.wish.probe_seconds
        if not seconds:
            return False
        self.tentative = lease
        holder = await probing.find_holder(way.inside, way.ifname, way.mac, lease.ip, seconds)
        if not holder:
            return False
        self.objections.append(f"{lease.ip} is in use by {holder}, so it was declined")
        await self._send(self.wish.message(Kind.DECLINE, new_transaction(), self.wish.options_of(lease), elapsed=0.0))
        self.tentative = None
        self.former_address = ""  # the server may have another address
        return True

    def _take_offer(self, message: Message) -> tuple[Kind, Lease6]:
        if message.kind is Kind.REPLY and not message.has(Option.RAPID_COMMIT):
            raise ValueError("no rapid commit")
        try:
            lease = self._read(message, self.former_address)
        except Refusal as refusal:  # another server may have an address
            raise ValueError(str(refusal)) from None
        if lease.server in self._avoided:
            self._avoided.discard(lease.server)
            raise ValueError("another server gets a chance")
        return message.kind, lease

    async def _request(self, lease: Lease6) -> Lease6:
        """Return the lease that a server confirms. Raise Refusal, or TimeoutError."""
        return await self._ask(
            Kind.REQUEST, self.wish.options_of(lease),
            lambda answer: self._take_reply(answer, lease, lease.server), seconds=REQUEST_SECONDS,
        )  # fmt: skip

    def _take_reply(self, message: Message, lease: Lease6, server: bytes) -> Lease6:
        _require(message, Kind.REPLY)
        if server and message.get(Option.SERVER_ID) != server:
            raise ValueError(f"the request was for {server.hex(':')}")
        return self._read(message, lease.ip)

    async def _extend(self, lease: Lease6) -> Lease6 | None:
        """Renew a lease, or rebind it. Return None if it is lost."""
        try:
            for kind, end in ((Kind.RENEW, lease.rebinding), (Kind.REBIND, lease.valid)):
                if lease.left(end) > 0:
                    with suppress(TimeoutError):
                        return await self._extend_by(kind, lease, end)
        except Refusal as refusal:
            self.refusal = refusal.name
            self._refusals += 1
            self.report(Trigger.UNBOUND, lease)
            return None
        self.report(Trigger.EXPIRED, lease)
        return None

    async def _extend_by(self, kind: Kind, lease: Lease6, end: float) -> Lease6:
        """Return the extended lease. Raise TimeoutError at the time `end` of the lease, Refusal if it is lost."""
        server = lease.server if kind is Kind.RENEW else b""
        options = self.wish.options_of(lease)[: 2 if server else 1]

        def take(answer: Message) -> Lease6:
            try:
                return self._take_reply(answer, lease, server)
            except Refusal as refusal:
                if answer.get(Option.SERVER_ID) == lease.server and refusal.status in LOST:
                    raise
                # A server that did not give the lease cannot end it: the pod keeps it while it is valid.
                raise ValueError(str(refusal)) from None

        try:
            extended = await self._ask(
                kind, options, take, seconds=lease.left(end),
                intervals=iter(lambda: pauses.renewal(lease.valid, lease.left(end)), None),
            )  # fmt: skip
        except Refusal as refusal:
            if refusal.status != Status.NO_BINDING or isinstance(refusal, Withdrawal):
                raise
            # The server has forgotten the lease, and may give the same address again; RFC 8415, section 18.2.10.1.
            with suppress(TimeoutError):
                extended = await self._request(lease)
                self._take(Trigger.BOUND, extended)
                return extended
            raise
        self._take(Trigger.RENEWED if kind is Kind.RENEW else Trigger.REBOUND, extended)
        return extended

    def _read(self, message: Message, address: str) -> Lease6:
        return lease6.read(message, self.wish.iaid, address, self._requested_at)

    async def _ask(
        self, kind: Kind, options: Options, take: Callable[[Message], Taken], *, seconds: float = inf,
        intervals: Iterator[float] | None = None,
    ) -> Taken:  # fmt: skip
        """Send a message again and again. Return the first answer as `take` reads it.

        An answer with a ValueError is noted and not used. Raise TimeoutError after `seconds`, Refusal if `take` does.
        """
        transaction, begin = new_transaction(), now()
        again = intervals or pauses.growing(FIRST_PAUSE_SECONDS, self._limits, lambda: self.is_patient)
        self._sock.forget()
        async with asyncio.timeout(None if seconds == inf else seconds):
            while True:
                await self._send(self.wish.message(kind, transaction, options, elapsed=now() - begin))
                with suppress(TimeoutError):
                    async with asyncio.timeout(next(again)):
                        return await self._hear(transaction, take)

    async def _send(self, message: Message) -> None:
        """Send a message, as soon as the link has a link-local address."""
        pause, longest = ADDRESS_SECONDS
        while True:
            try:
                self._sock.send(message)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                reason = "the link has no usable IPv6 link-local address"
                if reason not in self.objections:
                    self.objections.append(reason)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                self._requested_at = now()
                self.sent[message.kind.name] += 1
                return

    async def _hear(self, transaction: bytes, take: Callable[[Message], Taken]) -> Taken:
        while True:
            message = await self._sock.get()
            if message.transaction != transaction:
                self.objections.append(f"{message.kind.name} for another transaction")
                continue
            self.heard[message.kind.name] += 1
            try:
                self._require_names(message)
                return take(message)
            except ValueError as error:
                self.objections.append(f"{message.kind.name} from {message.source} not used: {error}")

    def _require_names(self, message: Message) -> None:
        if message.get(Option.CLIENT_ID) != self.wish.duid or not message.get(Option.SERVER_ID):
            raise ValueError("it names another client, or no server")


def _require(message: Message, kind: Kind) -> None:
    if message.kind is not kind:
        raise ValueError(f"expected a {kind.name}")


async def inform(
    wish: Wish6, inside: AbstractContextManager[Any], seconds: float, limits: tuple[float, float]
) -> dict[str, Any]:  # fmt: skip
    """Return the DNS settings that a server gives without a lease. Raise TryAgainLater if none comes in time."""
    client = wish.client(inside, lambda *_: None, limits)
    try:
        async with asyncio.timeout(seconds), client:
            return await client.inform()
    except TimeoutError:
        seen = client.summary()
    except (OSError, CniError) as error:
        seen = str(error)
    raise TryAgainLater(f"dhcp: no DHCPv6 answer on link {wish.ifname} within {seconds:.0f} seconds: {seen}")
