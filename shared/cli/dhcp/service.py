"""Answer the dhcp plugins, and look after the leases: restore them at the start, give back those of dead pods."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from shared.cli.dhcp import client6, content, requests
from shared.cli.dhcp.client6 import Wish6
from shared.cli.dhcp.content import Content
from shared.cli.dhcp.pod import Pod, PodNetns, find
from shared.cli.dhcp.settings import Settings
from shared.cli.dhcp.tenancy import GARBLED, Tenancy, give_back, stored_lease
from shared.cni import record
from shared.cni.errors import CniError, InternalError, InvalidConfig, InvalidNetns, TryAgainLater, UnknownContainer
from shared.dhcp import records

WATCH_SECONDS = 2.0  # between two looks at the pods' namespaces and at leases to be given back
ACCEPT_SECONDS = 1.0  # until another try, after a connection that could not be accepted
REQUEST_SECONDS = 10.0  # for a plugin to send its request
STRANGER = b"HTTP/1.0 501 This dhcp daemon is pycni's, and the dhcp plugin is another suite's\r\n\r\n"


class Service:
    """The leases of a node, by their keys."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.say = say
        self.tenancies: dict[str, Tenancy] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # those in use
        self._connections: set[asyncio.Task[None]] = set()
        self._said: dict[str, str] = {}  # the last line about a file that stays

    def _file(self, name: str, directory: str = records.LEASES) -> str:
        return self.settings.host_prefix + records.path(name, directory)

    async def serve(self, listener: socket.socket) -> None:
        """Keep the leases, the stored ones first, and answer plugins until cancelled. The leases stay."""
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                await self._accept(listener)
        finally:
            watch.cancel()
            await asyncio.gather(*(one.end(release=False, withdraw=False) for one in self.tenancies.values()))

    async def _accept(self, listener: socket.socket) -> None:
        """Accept one connection, and begin to answer it. Wait if the kernel has no descriptor left."""
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: the leases must be renewed all the same
            self.say(f"no connection can be accepted: {error}; trying again")
            await asyncio.sleep(ACCEPT_SECONDS)
            return
        task = asyncio.create_task(self._answer(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _restore(self) -> None:
        """Resume the stored leases of pods that are there. Leave those of pods that are gone to be given back."""
        for name in self._names(records.LEASES):
            if name in self.tenancies or self._turn(name).locked():
                continue
            try:
                self._restore_one(name)
            except Exception as error:  # noqa: BLE001  (the other pods keep their leases all the same)
                self._say_once(name, f"{self._file(name)}: {error}; trying again as long as the lease is valid")

    def _restore_one(self, name: str) -> None:
        """Resume a stored lease. Raise CniError or OSError if that may be possible later."""
        file = self._file(name)
        stored = record.read(file)
        try:
            self._resume(name, stored)
        except (CniError, OSError, *GARBLED) as error:
            lease = stored_lease(stored)
            if isinstance(error, (UnknownContainer, *GARBLED)) or (lease and lease.expired):
                if os.path.lexists(file):  # a DEL may have moved it
                    self.say(f"{file}: {error}; the lease is given back")
                    self._give_up(name)
                return
            raise

    def _give_up(self, name: str) -> None:
        """Leave a stored lease to be given back. Raise OSError."""
        record.make_directories(self.settings.host_prefix + records.RELEASED)
        with suppress(FileNotFoundError):
            os.replace(self._file(name), self._file(name, records.RELEASED))

    def _names(self, directory: str) -> list[str]:
        """Return the keys of the stored leases in a directory."""
        try:
            return [name.removesuffix(".json") for name in record.names(self.settings.host_prefix + directory)]
        except CniError as error:
            self._say_once(directory, str(error))
            return []

    def _resume(self, name: str, stored: dict[str, Any]) -> None:
        if not stored["wasLeased"]:
            raise UnknownContainer("its ADD did not come to an end")
        request, lease = requests.kept_of(stored), stored_lease(stored)
        mac, way_out = str(stored["mac"]), str(stored["wayOut"])
        pod = find(stored, self.settings.host_prefix)
        try:
            tenancy = self._tenancy(name, request, pod)
            tenancy.resume(lease, mac=mac, way_out=way_out)
        except BaseException:
            pod.close()
            raise
        self.tenancies[name] = tenancy

    def _tenancy(self, name: str, request: dict[str, Any], pod: Pod) -> Tenancy:
        settings = self.settings
        file = self._file(name)
        return Tenancy(
            request, pod, self.say, lambda content: record.write(file, content),
            limits=settings.limits, broadcast=settings.broadcast,
        )  # fmt: skip

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001  (the leases of other pods need this loop)
                self.say(f"unexpected {type(error).__name__}: {error}")
            await asyncio.sleep(WATCH_SECONDS)

    async def _look(self) -> None:
        """Restore leases, and give back those of pods that are gone, and those that a DEL left without the daemon."""
        self._restore()
        for name in list(self.tenancies):
            if not self._turn(name).locked():  # no request is at work
                await self._attempt(name, self._release_of_dead(name))
        for name in self._names(records.RELEASED):
            if not self._turn(name).locked():
                file = self._file(name, records.RELEASED)
                await self._attempt(file, self._settle(name, file))

    async def _attempt(self, subject: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  (the other leases must be given back all the same)
            self._say_once(subject, f"{subject}: {type(error).__name__}: {error}")

    def _say_once(self, subject: str, text: str) -> None:
        if self._said.get(subject) != text:
            self._said[subject] = text
            self.say(text)

    async def _release_of_dead(self, name: str) -> None:
        async with self._turn(name):
            tenancy = self.tenancies.get(name)
            if tenancy and (tenancy.has_ended() or (tenancy.was_visible and not tenancy.pod.is_visible())):
                tenancy.say("the pod is gone without a DEL")
                await self._release(name)

    async def _settle(self, name: str, file: str) -> None:
        """Give a lease back that a DEL left to the daemon."""
        async with self._turn(name):
            stored = record.read(file)
            if name in self.tenancies and self.tenancies[name].is_of(stored):
                self.tenancies[name].save()  # in the place of the file
                record.remove(file)
                await self._release(name)
            else:
                await self._give_back(file, stored)

    async def _give_back(self, file: str, stored: dict[str, Any]) -> None:
        """Send the RELEASE of a stored lease, and remove its file. Keep it if no link leads to the server now."""
        lease, attempt = stored_lease(stored), f"RELEASE of {file}"
        pod: Pod | None = None

        def say(text: str) -> None:
            self._say_once(attempt, text)

        try:
            wish = requests.read_wish(stored)
            mac, way_out = str(stored["mac"]), str(stored["wayOut"])
            with suppress(UnknownContainer, InvalidNetns):
                pod = find(stored, self.settings.host_prefix)
        except GARBLED:
            record.remove(file)
            return
        try:
            with suppress(CniError, ValueError):
                if pod and lease:
                    pod.replace(wish.read(lease), None)
            successor = self._successor(wish, mac, lease)
            if successor and successor.lease is None:
                return  # until its ADD has come to an end
            if lease is None or lease.expired or successor or await give_back(wish, lease, mac, pod, way_out, say):
                record.remove(file)
                self._said.pop(file, None)
                self._said.pop(attempt, None)
            else:
                self._say_once(file, f"{lease.ip} cannot be released now: no link leads to its server; it may expire")
                if (known := lease.to_json()) != stored["lease"]:
                    record.write(file, {**stored, "lease": known})  # a lease of another boot expires from now on
        finally:
            if pod:
                pod.close()

    def _successor(self, wish: Any, mac: str, lease: Any) -> Tenancy | None:
        """Return a living tenancy that has the lease, too, or may get it in its ADD.

        A server knows a lease by its client id and address alone: a RELEASE would take it from the living pod.
        """
        if lease is None:
            return None
        client_id, given = wish.identify(mac), (lease.server_id, lease.ip)
        for tenancy in self.tenancies.values():
            had = tenancy.lease and (tenancy.lease.server_id, tenancy.lease.ip)
            if had in (None, given) and tenancy.wish.identify(tenancy.mac) == client_id:
                if had:
                    tenancy.say(f"{lease.ip} stays leased: another pod had it with the same client id")
                return tenancy
        return None

    async def _release(self, name: str) -> None:
        """End a tenancy, and give its lease back. The caller has the turn."""
        tenancy = self.tenancies.pop(name, None)
        if tenancy is None:
            self._give_up(name)  # perhaps its pod could not be reached
            return
        tenancy.save()
        successor = self._successor(tenancy.wish, tenancy.mac, tenancy.lease)
        is_done = await tenancy.end(release=successor is None, withdraw=True)
        if is_done and not (successor and successor.lease is None):
            record.remove(self._file(name))
        else:
            self._give_up(name)

    async def _answer(self, connection: socket.socket) -> None:
        """Serve one connection."""
        descriptors: list[int] = []
        try:
            with connection:
                connection.setblocking(False)
                try:
                    async with asyncio.timeout(REQUEST_SECONDS):
                        line = await requests.receive(connection, descriptors)
                    if line.startswith(b"CONNECT "):
                        await asyncio.get_running_loop().sock_sendall(connection, STRANGER)
                        return
                    answer = {"result": await self._work(line, descriptors, connection)}
                except CniError as error:
                    kind = type(error).__name__
                    answer = {"error": {"kind": kind, "msg": error.msg, "details": error.details}}
                await asyncio.get_running_loop().sock_sendall(connection, json.dumps(answer).encode() + b"\n")
        except (OSError, TimeoutError):
            return  # the plugin is gone
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _work(self, line: bytes, descriptors: list[int], connection: socket.socket) -> dict[str, Any]:
        """Return the answer to a request. Raise CniError, also for an error that is the daemon's own."""
        try:
            return await self._serve(line, descriptors, connection)
        except CniError:
            raise
        except Exception as error:  # noqa: BLE001  (one request must not end the others' daemon)
            reason = f"{type(error).__name__}: {error}"
            self.say(f"unexpected {reason}")
            raise InternalError("the dhcp daemon met an error; its log says more", reason) from None

    async def _serve(self, line: bytes, descriptors: list[int], connection: socket.socket) -> dict[str, Any]:
        """Return the answer to a request. Raise CniError."""
        try:
            request = json.loads(line)
            operation = request["op"]
            if operation == "status":
                return {"leases": len(self.tenancies)}
            if operation == "gc":
                return await self._collect(str(request["network"]), {(one, two) for one, two in request["valid"]})
            if operation == "release":
                for name in records.keys(requests.key(request)):
                    async with self._turn(name):
                        await self._release(name)
                return {}
            names = requests.names(request)
            if operation == "look":
                return self._describe(names)
            if operation == "acquire" and descriptors:
                wanted = requests.by_lease(request)
                inform = requests.read_stateless(request)
                return await requests.while_connected(connection, self._acquire_all(wanted, inform, descriptors[0]))
        except GARBLED as error:
            raise InvalidConfig("the dhcp daemon cannot read the request", f"{type(error).__name__}: {error}") from None
        raise InvalidConfig(f"the dhcp daemon does not know the request {str(request)[:80]!r}")

    def _turn(self, name: str) -> asyncio.Lock:
        """Return the lock for an attachment: its requests wait for each other."""
        return self._turns.setdefault(name, asyncio.Lock())

    async def _acquire_all(
        self, wanted: dict[str, dict[str, Any]], inform: Wish6 | None, descriptor: int
    ) -> dict[str, Any]:  # fmt: skip
        """Return the result of new leases, acquired at the same time. If one fails, give back the others."""
        further = asyncio.ensure_future(self._inform(inform, descriptor))
        tasks = [asyncio.ensure_future(self._acquire(name, one, descriptor)) for name, one in wanted.items()]
        try:
            dns, *leases = await asyncio.gather(further, *tasks)
        except BaseException:
            for task in (further, *tasks):
                if not task.cancelling():  # the second time it would end a release
                    task.cancel()
            await asyncio.wait((further, *tasks))
            for name, task in zip(wanted, tasks, strict=True):
                if not task.cancelled() and task.exception() is None:
                    await self._give_up_acquired(name, task.result()[0])
            raise
        return content.to_json((one for _, one in leases), dns)

    async def _give_up_acquired(self, name: str, tenancy: Tenancy) -> None:
        """Give the lease of a failed ADD back, unless another ADD has taken its place."""
        async with self._turn(name):
            if self.tenancies.get(name) is tenancy:
                await self._release(name)

    async def _inform(self, wish: Wish6 | None, descriptor: int) -> dict[str, Any]:
        """Return the DNS settings of a DHCPv6 server that leases nothing, if they are wanted."""
        if wish is None:
            return {}
        opened = PodNetns("", os.dup(descriptor))
        try:
            return await client6.inform(wish, opened, self.settings.resend_timeout, self.settings.limits)
        finally:
            opened.close()

    async def _acquire(self, name: str, request: dict[str, Any], descriptor: int) -> tuple[Tenancy, Content]:
        """Return a new lease. Give it back if the plugin goes away meanwhile, or if there is any error."""
        async with self._turn(name):
            tenancy, address = await self._begin(name, request, PodNetns(request["netns"], os.dup(descriptor)))
            try:
                return tenancy, await tenancy.acquire(self.settings.resend_timeout, address)
            except BaseException as error:
                if isinstance(error, TryAgainLater):
                    tenancy.say(str(error))
                await self._release(name)
                raise

    async def _begin(self, name: str, request: dict[str, Any], opened: PodNetns) -> tuple[Tenancy, str]:
        """Return a new tenancy in the place of a former one, and the address of that one."""
        try:
            pod = Pod(opened, request["ifname"], self.settings.host_prefix)
            pod.require_link()
            address = await self._former_address(name, self.tenancies.pop(name, None))
            tenancy = self._tenancy(name, request, pod)
            if not tenancy.was_visible:
                tenancy.say(f"{pod.path} is not visible here: a pod that dies without DEL keeps its lease")
            tenancy.save()
        except BaseException:
            opened.close()
            if name not in self.tenancies:
                self._give_up(name)  # the former lease
            raise
        self.tenancies[name] = tenancy
        return tenancy, address

    async def _former_address(self, name: str, former: Tenancy | None) -> str:
        """Return the address that the attachment had, to ask for it again. Forget that lease."""
        file = self._file(name, records.RELEASED)
        stored = stored_lease(record.read(file))
        record.remove(file)
        lease = former.lease if former else stored
        if former:
            await former.end(release=False, withdraw=False)
        return lease.ip if lease else ""

    def _describe(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the state of an attachment's leases: problems and addresses."""
        answer: dict[str, Any] = {"problems": [], "addresses": []}
        for name in names:
            tenancy = self.tenancies.get(name)
            problem = tenancy.find_problem() if tenancy else self._said.get(name) or "the daemon has no lease for it"
            answer["problems"] += [problem] if problem else []
            answer["addresses"] += [tenancy.address] if tenancy and tenancy.address else []
        return answer

    async def _collect(self, network: str, valid: set[tuple[str, str]]) -> dict[str, Any]:
        """Give back the leases of a network's attachments that are not valid. Pass over those in an ADD."""
        for name in {*self.tenancies, *self._names(records.LEASES)}:
            if self._turn(name).locked():
                continue
            async with self._turn(name):
                tenancy = self.tenancies.get(name)
                owner = tenancy.request if tenancy else record.read(self._file(name))
                if owner.get("network") == network and (owner.get("containerID"), owner.get("ifname")) not in valid:
                    await self._release(name)
        return {}
