"""Extend pyroute2's DHCP client where it falls short for pods.

The state machine is pyroute2's. Added are: options in each message, a lease that goes on after a restart, servers that
refuse, lie or do not confirm, and counts for error texts.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import floor, inf
from time import time
from typing import Any

from pyroute2.dhcp import messages
from pyroute2.dhcp.client import AsyncDHCPClient, ClientConfig
from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.dhcp.enums.bootp import Flag
from pyroute2.dhcp.enums.bootp import MessageType as Direction
from pyroute2.dhcp.enums.dhcp import MessageType, Option
from pyroute2.dhcp.fsm import State, state_guard
from pyroute2.dhcp.hooks import Trigger
from pyroute2.dhcp.xids import Xid

from shared.cli.dhcp import content, packets, pauses, probing
from shared.cli.dhcp.content import Content
from shared.cli.dhcp.packets import Answer, PodLease, PodSocket

FIRST_PAUSE_SECONDS = 4.0  # before a message is sent again; RFC 2131, section 4.1
REQUEST_SECONDS = 8  # for a server to confirm its offer
MESSAGE_BYTES = 1472  # of the largest answer: an Ethernet frame's, less IPv4 and UDP


@dataclass(frozen=True)
class Wish:
    """A client's identity, and its demands: the plugin's request, in the daemon's terms."""

    ifname: str
    client_id: bytes
    provide: dict[int, bytes]
    request: tuple[int, ...]
    priority: int | None
    without_gateway: bool
    broadcast: bool
    probe_seconds: float = 0.0  # to look for other hosts with a new address

    protocol = "DHCP"

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Wish:
        """Read a request. Raise KeyError, TypeError, ValueError or AttributeError if it is garbled."""
        return cls(
            ifname=str(raw["ifname"]),
            client_id=bytes.fromhex(raw["clientID"]),
            provide={int(number): bytes.fromhex(value) for number, value in raw["provide"].items()},
            request=tuple(map(int, raw["request"])),
            priority=raw["priority"],
            without_gateway=bool(raw["withoutGateway"]),
            broadcast=bool(raw["broadcast"]),
            probe_seconds=float(raw.get("probeSeconds", 0)),
        )

    def read(self, lease: PodLease) -> Content:
        """Return the lease's content. Raise ValueError if no pod can use it."""
        return content.read(
            lease.ip, lease.raw, self.request, priority=self.priority, without_gateway=self.without_gateway
        )

    def identify(self, mac: str) -> dict[int, bytes]:
        """Return option 61."""
        return {Option.CLIENT_ID: self.client_id or b"\1" + bytes.fromhex(mac.replace(":", ""))}

    def load(self, stored: dict[str, Any]) -> PodLease:
        """Return a stored lease. Raise KeyError, TypeError or ValueError if it is garbled."""
        return PodLease.from_json(stored, self.ifname)

    def client(self, inside: AbstractContextManager[Any], report: Report, limits: tuple[float, float]) -> Client:
        """Return a client on the link in a network namespace."""
        return Client(self, PodSocket(inside, self.ifname), report, limits=limits)

    async def release(self, inside: AbstractContextManager[Any], ifname: str, mac: str, lease: PodLease) -> None:
        """Send a RELEASE through a link: from the leased address and the pod's MAC, to the lease's server.

        Raise CniError or OSError.
        """
        async with PodSocket(inside, ifname) as way:
            await way.put(self._complete(messages.release(lease), mac or way.l2addr))

    def decline(self, lease: PodLease, mac: str) -> messages.SentDHCPMessage:
        """Return a DECLINE, which is broadcast: RFC 2131, section 4.4.4."""
        kind = {"message_type": MessageType.DECLINE, "requested_ip": lease.ip, "server_id": lease.server_id}
        fields = {"op": Direction.BOOTREQUEST, "flags": Flag.UNICAST, "options": kind}
        return self._complete(messages.SentDHCPMessage(dhcp=dhcp4msg(fields)), mac)

    def _complete(self, message: messages.SentDHCPMessage, mac: str) -> messages.SentDHCPMessage:
        """Return a message that a server does not answer, with the client's names."""
        message.eth_src = mac
        message.dhcp["xid"] = Xid()
        packets.carry(message, self.identify(mac))
        return message


Report = Callable[[Trigger, PodLease], None]


class Client(pauses.Tally, AsyncDHCPClient):  # type: ignore[misc]  # pyroute2 has no types
    """Acquire a lease and keep it. `report(trigger, lease)` is called when it changes."""

    refusal = "NAK"

    _lease: PodLease | None
    _state_watchdog: asyncio.Task[None] | None

    def __init__(self, wish: Wish, pod_socket: PodSocket, report: Report, *, limits: tuple[float, float]) -> None:
        """Take the first and the longest pause, in seconds, before a message is sent again."""
        super().__init__(
            ClientConfig(
                interface=wish.ifname, lease_type=PodLease, requested_parameters=wish.request,
                timeouts={State.REQUESTING: REQUEST_SECONDS}, retransmission=self._pauses, release=False,
                handle_signals=False, vendor_id=None, host_name=None,
            )
        )  # fmt: skip
        self._sock = pod_socket
        self._limits = limits
        self.wish = wish
        self.report = report
        self.sent: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self.objections: deque[str] = deque(maxlen=pauses.OBJECTIONS)  # to answers that were not used
        self.is_patient = True  # an ADD waits
        self.former_address = ""  # to ask for again
        self.tentative: PodLease | None = None  # a lease that is probed, and not reported yet
        self._probe: asyncio.Task[str] | None = None
        self._chosen = ""  # the server whose offer is requested
        self._avoided: set[str] = set()  # servers that did not confirm an offer, until another one had a chance
        self._refusals = 0
        self._requested_at = 0.0
        self._again: asyncio.Task[None] | None = None

    async def __aexit__(self, *exception: object) -> None:
        """Stop without a RELEASE. Close the socket."""
        self._stop_again()
        if self._probe:
            self._probe.cancel()  # the receiver waits for it
        self.lease_timers.cancel()
        self.state = State.OFF  # both tasks end
        await asyncio.gather(*filter(None, (self._sender_task, self._receiver_task)), return_exceptions=True)
        await asyncio.sleep(0)  # the loop forgets the socket before another one gets its number
        await self._sock.__aexit__()

    def _stop_again(self) -> None:
        if self._again:
            self._again.cancel()
            self._again = None

    async def run(self, lease: PodLease | None) -> None:
        """Resume a lease, or acquire one. Return or raise OSError when the link is down or gone."""
        if lease and not lease.expired:
            await self._resume(lease)
        else:
            await self.bootstrap()
        tasks = (self._sender_task, self._receiver_task)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _resume(self, lease: PodLease) -> None:
        """Go on with a lease that the pod has, and renew it at once."""
        self._state = State.BOUND
        self._lease = lease
        timers = {"renewal": self._renew, "rebinding": self._rebind, "expiration": self._expire_lease}
        self.lease_timers.arm(lease=lease, **timers)
        rebinding = lease.rebinding_in
        await (self._rebind() if rebinding is not None and rebinding <= 0 else self._renew())

    def _pauses(self) -> Iterator[float]:
        """Yield the seconds until the present message is sent again."""
        again = pauses.growing(FIRST_PAUSE_SECONDS, self._limits, lambda: self.is_patient)
        while True:
            lease = self._lease
            if lease and self.state in (State.RENEWING, State.REBINDING):
                left = lease.rebinding_in if self.state is State.RENEWING else lease.expiration_in
                seconds = inf if lease.lease_time == packets.FOREVER else lease.lease_time
                yield pauses.renewal(seconds, inf if left is None else left)
            else:
                yield next(again)

    async def _send_message(self, msg: messages.SentDHCPMessage) -> None:
        """Send a message, with the same options each time: RFC 2131, section 4.3.1."""
        kind = MessageType(msg.message_type)
        msg.dhcp["secs"] = min(max(floor(time() - self.last_state_change), 0), 0xFFFF)  # the clock may be set back
        msg.dhcp["xid"] = self.xid.for_state(self.state)
        if msg.ip_src == "0.0.0.0":  # noqa: S104  (a message from the leased address asks for no broadcast)
            msg.dhcp["flags"] = Flag.BROADCAST if self.wish.broadcast else Flag.UNICAST
        raw = {**self.wish.provide, Option.MAX_MSG_SIZE: MESSAGE_BYTES.to_bytes(2, "big")}
        if kind == MessageType.DISCOVER and self.former_address:
            raw[Option.REQUESTED_IP] = bytes(map(int, self.former_address.split(".")))
        packets.carry(msg, {**raw, **self.wish.identify(self._sock.l2addr)})
        self._requested_at = packets.now()
        self.sent[kind.name] += 1
        await self._sock.put(msg)

    async def _process_msg(self, msg: Answer) -> None:
        if not self.xid.matches(msg.xid):
            self.objections.append(f"{msg.kind.name} for another transaction")
            return
        self.heard[msg.kind.name] += 1
        await super()._process_msg(msg)

    async def _run_hooks(self, trigger: Trigger) -> None:
        """Report a change. pyroute2 would drop a hook's exception."""
        if self._lease:
            self.report(trigger, self._lease)

    @state_guard(State.SELECTING)  # type: ignore[untyped-decorator]
    async def offer_received(self, msg: Answer) -> None:
        """Request the first usable offer, of a server that did not let this client down before."""
        server = msg.dhcp["options"].get("server_id")
        try:
            self.wish.read(self._lease_of(msg))
        except ValueError as error:
            self._object(msg, error)
            return
        if server in self._avoided:
            self._avoided.discard(server)
            return
        self._chosen = server
        await super().offer_received(msg)

    @state_guard(State.REQUESTING, State.REBOOTING, State.REBINDING, State.RENEWING)  # type: ignore[untyped-decorator]
    async def ack_received(self, msg: Answer) -> None:
        """Take the lease if a pod can use it."""
        server = msg.dhcp["options"].get("server_id")
        if self.state is State.REQUESTING and server != self._chosen:
            self._object(msg, f"the request was for the offer of {self._chosen}")
            return
        if self.state is State.RENEWING and self._lease and server != self._lease.server_id:
            self._object(msg, f"the request was to {self._lease.server_id}, which gave the lease")
            return
        trigger = {State.RENEWING: Trigger.RENEWED, State.REBINDING: Trigger.REBOUND}.get(self.state, Trigger.BOUND)
        try:
            lease = self._lease_of(msg)
            self.wish.read(lease)
        except ValueError as error:
            self._object(msg, error)
            return
        if self.state is State.REQUESTING and await self._is_declined(lease):
            return
        self._refusals = 0
        self._avoided.clear()
        self._stop_again()
        self.lease = lease  # arms the timers
        await self.transition(to=State.BOUND)
        self.report(trigger, lease)
        self.tentative = None

    async def _is_declined(self, lease: PodLease) -> bool:
        """Return True if another host has the address. Then decline it, and ask for another one."""
        if not self.wish.probe_seconds:
            return False
        await self._sendq.put(None)  # the request has its answer
        if self._state_watchdog:
            self._state_watchdog.cancel()
            self._state_watchdog = None
        mac, seconds = self._sock.l2addr, self.wish.probe_seconds
        self.tentative = lease
        search = probing.find_holder(self._sock.inside, self.wish.ifname, mac, lease.ip, seconds)
        self._probe = asyncio.create_task(search)
        holder = await self._probe
        if not holder:
            return False
        self.objections.append(f"{lease.ip} is in use by {holder}, so it was declined")
        self.sent["DECLINE"] += 1
        await self._sock.put(self.wish.decline(lease, mac))
        self.tentative = None
        self.former_address = self._chosen = ""  # the server may have another address
        self._refusals += 1
        self._again = asyncio.create_task(self.reset(delay=pauses.after_refusals(self._refusals)))
        return True

    def _lease_of(self, msg: Answer) -> PodLease:
        """Return the lease in an answer. It begins when the request was sent: RFC 2131, section 4.4.1."""
        return packets.lease(msg.dhcp["yiaddr"], msg.raw, self.wish.ifname, msg.eth_src, self._requested_at)

    def _object(self, msg: Answer, reason: object) -> None:
        self.objections.append(f"{msg.kind.name} from {msg.ip_src} not used: {reason}")

    @state_guard(State.REQUESTING, State.REBOOTING, State.RENEWING, State.REBINDING)  # type: ignore[untyped-decorator]
    async def nak_received(self, msg: Answer) -> None:
        """Give the address up, and ask for another one: at once, and later if servers refuse again and again."""
        server = msg.dhcp["options"].get("server_id")
        if self.state is State.REQUESTING and server != self._chosen:
            self._object(msg, f"the request was for the offer of {self._chosen}")
            return
        if self.state is State.RENEWING and self._lease and server != self._lease.server_id:
            return
        self.objections.append(f"{server} refused (NAK)")
        self.lease_timers.cancel()
        await self._run_hooks(Trigger.UNBOUND)
        self._lease = None
        self._refusals += 1
        if server:
            self._avoided.add(server)
        await self._sendq.put(None)  # stops the refused request
        self._again = asyncio.create_task(self.reset(delay=pauses.after_refusals(self._refusals)))

    async def reset(self, delay: float = 0.0, signal: Any = None) -> None:
        """Begin anew. A server that did not confirm its offer comes last then."""
        await asyncio.sleep(delay)
        if self.state is State.OFF:
            return
        if self.state is State.REQUESTING and self._chosen:
            self.objections.append(f"{self._chosen} offered a lease and did not confirm it")
            self._avoided.add(self._chosen)
        if asyncio.current_task() is self._state_watchdog:
            self._state_watchdog = None  # the change of state would cancel this task
        self._again = None
        await super().reset(signal=signal)
