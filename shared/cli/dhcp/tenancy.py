"""Keep one pod's lease, in one task: acquire, renew, put changes on the link, store, give back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from pyroute2.dhcp.hooks import Trigger

from shared.cli.dhcp.content import Content
from shared.cli.dhcp.pod import Pod
from shared.cli.dhcp.requests import read_wish
from shared.cni.errors import CniError, TryAgainLater

LINK_SECONDS = 1.0  # until a client begins again whose link went down
GARBLED = (KeyError, TypeError, ValueError, AttributeError)

Say = Callable[[str], None]
Store = Callable[[dict[str, Any]], None]


class Tenancy:
    """A pod and its lease. `request` is the plugin's, `store(content)` writes the file."""

    def __init__(
        self, request: dict[str, Any], pod: Pod, say: Say, store: Store, *, limits: tuple[float, float],
        broadcast: bool,
    ) -> None:  # fmt: skip
        self.request = request
        self.wish: Any = read_wish(request | {"broadcast": request["broadcast"] or broadcast})  # of either family
        self.pod = pod
        self.lease: Any = None  # the PodLease or Lease6
        self.problem = "no lease yet"  # empty while there is a valid one
        self._said = say
        self._store = store
        self._limits = limits
        self._client: Any = None  # the wish's, while the link is up
        self._acquired: asyncio.Future[Content] | None = None
        self._was_leased = False
        self._content: Content | None = None  # of the lease that the link has
        self._task: asyncio.Task[None] | None = None
        self._is_link_gone = False
        self._trouble = ""  # the last line about a client that failed
        link = pod.link() or {}
        self.mac = str(link.get("IFLA_ADDRESS", ""))
        self.way_out = pod.way_out()
        self.was_visible = pod.is_visible()

    @property
    def name(self) -> str:
        """Return the attachment's name, for the log."""
        return "{network} {containerID} {ifname}".format(**self.request)

    def say(self, text: str) -> None:
        """Write a line to the log."""
        self._said(f"{self.name}: {text}")

    def resume(self, lease: Any, *, mac: str, way_out: str) -> None:
        """Go on with a stored lease. Its MAC and its way out remain, as long as the pod has no other ones."""
        self._was_leased = True
        self.mac, self.way_out = self.mac or mac, self.way_out or way_out
        with suppress(ValueError):
            if lease:
                self._content, self.lease = self.wish.read(lease), lease
                self.problem = ""
        self._take_expiry()
        self._start(lease.ip if lease else "")

    async def acquire(self, seconds: float, former_address: str) -> Content:
        """Return the content of a new lease. If none comes in time, raise TryAgainLater with the messages seen."""
        self._acquired = asyncio.get_running_loop().create_future()
        self._start(former_address)
        done, _ = await asyncio.wait({self._acquired}, timeout=seconds)
        if done:
            return self._acquired.result()
        seen = self._client.summary() if self._client else self._trouble or "the link is down"
        kind = "DHCPv6 lease" if self.wish.protocol == "DHCPv6" else "lease"
        raise TryAgainLater(
            f"dhcp: no {kind} on link {self.wish.ifname} within {seconds:.0f} seconds: {seen}",
            ADVICE[self.wish.protocol],
        )

    def _start(self, former_address: str = "") -> None:
        self._task = asyncio.create_task(self._run(former_address), name=self.name)

    def has_ended(self) -> bool:
        """Return True if the link is gone, so that nothing can keep the lease."""
        return self._is_link_gone

    async def _run(self, former_address: str) -> None:
        """Run a client as long as the link exists. A link that goes down, or any error, ends the client alone."""
        while True:
            try:
                if self.pod.link() is None:
                    break
                self._take_expiry()
                await self._run_client(former_address)
            except Exception as error:  # noqa: BLE001  (a living pod keeps its lease, whatever ended the client)
                trouble = f"{type(error).__name__}: {error}; trying again as long as link {self.wish.ifname} exists"
                if trouble != self._trouble:
                    self.say(trouble)
                self._trouble = trouble
            await asyncio.sleep(LINK_SECONDS)
        self._is_link_gone = True

    def _take_expiry(self) -> None:
        """Take the lease off the link if it expired without a client: a link that went down ended it."""
        if self.lease and self.lease.expired:
            self._note(Trigger.EXPIRED, self.lease)

    async def _run_client(self, former_address: str) -> None:
        client = self.wish.client(self.pod.inside, self._note, self._limits)
        client.former_address = former_address or (self.lease.ip if self.lease else "")
        client.is_patient = self._acquired is not None and not self._acquired.done()
        async with client:
            self._client = client
            await client.run(self.lease)

    def _note(self, trigger: Trigger, lease: Any) -> None:
        """Take a change of the lease: put it on the link, store it, and say it."""
        if trigger in (Trigger.UNBOUND, Trigger.EXPIRED):
            if self.lease is None:
                return  # noted before
            cause = "expired" if trigger is Trigger.EXPIRED else f"was refused by the server ({self._client.refusal})"
            self.problem = f"the lease of {lease.ip} {cause}"
            self.say(f"{self.problem}; its address and routes are removed")
            self._change(None)
            self.lease = None
            if self._client:
                self._client.count_anew()
        else:
            content = self.wish.read(lease)
            is_new = self._content is None or self._content.address != content.address
            self.lease, self.problem, self._was_leased = lease, "", True
            if is_new:
                self.say(f"{content.address} leased from {lease.server_id} for {lease.lease_time} seconds")
            self._change(content)
        self.save()

    def _change(self, content: Content | None) -> None:
        if self._client:
            self._client.is_patient = False
        if self._acquired and not self._acquired.done():
            if content:
                if content.mtu:
                    self._lower_mtu(content.mtu)
                self._content = content
                self._acquired.set_result(content)  # the main plugin configures the link
            return
        old, self._content = self._content, content
        if (old and old.on_link()) != (content and content.on_link()):
            try:
                self.pod.replace(old, content)
            except (CniError, OSError) as error:
                self.problem = f"{content.address if content else 'the removal of an address'}: {error}"
                self.say(self.problem)

    def _lower_mtu(self, mtu: int) -> None:
        try:
            self.pod.set_mtu(mtu)
        except (CniError, OSError) as error:
            self.say(f"the server's MTU of {mtu} bytes is not used: {error}")

    def save(self) -> None:
        """Store the lease. The pod keeps it even if that fails."""
        content = {
            **self.request, "identity": self.pod.identity, "mac": self.mac, "wayOut": self.way_out,
            "wasVisible": self.was_visible,
            "lease": self.lease.to_json() if self.lease else None, "wasLeased": self._was_leased,
        }  # fmt: skip
        try:
            self._store(content)
        except CniError as error:
            self.say(f"a restart of the daemon will not find the lease: {error}")

    def find_problem(self) -> str:
        """Return the difference from a valid lease, empty without one."""
        self._take_expiry()
        if self.problem and self._client:
            return f"{self.problem}; since then {self._client.summary()}"
        return self.problem

    @property
    def address(self) -> str:
        """Return the leased address, empty without one."""
        return str(self._content.address) if self._content else ""

    def is_of(self, stored: dict[str, Any]) -> bool:
        """Return True if a stored lease is of this pod, and not of an earlier one of its name."""
        return bool(stored.get("identity") == self.pod.identity)

    async def end(self, *, release: bool, withdraw: bool) -> bool:
        """End the task, take the address off the link if `withdraw`, and give the lease back if `release`.

        Return False if the last should be tried again later.
        The address leaves the link before the RELEASE: the server may lease it to another host at once.
        """
        try:
            if self._task:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            if self._client and self._client.tentative:
                self.lease = self._client.tentative
                self.save()  # in case that it cannot be given back now
            lease, content = self.lease, self._content
            self.lease = self._content = None
            if withdraw:
                with suppress(CniError, OSError):
                    self.pod.replace(content, None)
            if release and lease and not lease.expired:
                return await give_back(self.wish, lease, self.mac, self.pod, self.way_out, self.say)
            return True
        finally:
            self.pod.close()


ADVICE = {
    "DHCP": "look for the server's answers with tcpdump on the host's link; `\"broadcast\": true` in ipam helps if a"
    " switch or hypervisor drops answers to MACs that it does not know",
    "DHCPv6": "look for the server's answers with `tcpdump udp port 546` on the host's link; a switch must let"
    " multicast to ff02::1:2 pass, and answers to the pod's link-local address",
}


async def give_back(wish: Any, lease: Any, mac: str, pod: Pod | None, way_out: str, say: Say) -> bool:
    """Send a RELEASE through the pod's link, or else through the host's link beyond it. Return False without both."""
    ways: list[tuple[Any, str]] = []
    if pod and pod.link():
        ways.append((pod.inside, wish.ifname))
    if way_out:
        ways.append((nullcontext(), way_out))
    for inside, ifname in ways:
        try:
            await wish.release(inside, ifname, mac, lease)
        except (OSError, CniError) as error:
            say(f"no RELEASE of {lease.ip} through {ifname}: {error}")
        else:
            say(f"{lease.ip} released to {lease.server_id} through {ifname}")
            return True
    return False


def stored_lease(stored: dict[str, Any]) -> Any:
    """Return the lease of a stored file, None if it has none or is garbled."""
    try:
        return read_wish(stored).load(stored["lease"]) if stored.get("lease") else None
    except GARBLED:
        return None
