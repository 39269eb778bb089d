"""cnitool monitor: print changes of the pods' and bridges' links, addresses and routes, a line each.

One socket receives the events of the host and of every namespace with an id here. The kernel assigns an id to a
namespace that a veth leads to. The monitor assigns one to all others with a name: their links lead to no veth.
"""

from __future__ import annotations

import errno
import json
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pyroute2 import IPRSocket
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV4_RULE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_NSID,
)

from shared.cli.networks import Options, run_guarded
from shared.cli.view.namespaces import open_kernel
from shared.cli.view.show import Refused
from shared.cli.view.topology import Pod
from shared.cli.view.watch import HERE, Event, Watch
from shared.runtime.cache import Cache

ADDRESSES = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
ROUTES = RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
RULES = RTMGRP_IPV4_RULE | 1 << (RTNLGRP_IPV6_RULE - 1)
GROUPS = RTMGRP_LINK | ADDRESSES | ROUTES | RULES | 1 << (RTNLGRP_NSID - 1)
LOOK_SECONDS = 0.05  # between looks for new namespaces
LARGEST = 65536  # bytes of a message


def run(options: Options) -> int:
    """Print events until a signal arrives or the reader closes the pipe.

    Return 1 if the kernel refused, with the reason on stderr.
    """
    return run_guarded(options, _monitor)


def _monitor(options: Options) -> None:
    show = as_json if options.json else as_line
    try:
        with _ended_by_signals() as ended, open_kernel() as ip, IPRSocket(all_ns=True) as events:
            events.bind(GROUPS)
            watch = Watch(ip, Cache(options.cache_dir))
            print(show(watch.start_event()), flush=True)
            for data, netnsid in _received(events, ended):
                for event in _found(watch, events, data, netnsid):
                    if watch.concerns(event, options.network):
                        print(show(event), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Refused(f"cannot watch the network: {error}") from error


def _found(watch: Watch, events: Any, data: bytes | None, netnsid: int) -> Iterator[Event]:
    """Return the events in a message, and those of namespaces that are new."""
    if data is None:
        yield from watch.read_again()
    elif data:
        yield from watch.events_in(events.marshal.parse(data), netnsid)
    else:
        yield from watch.meet()


@contextmanager
def _ended_by_signals() -> Iterator[socket.socket]:
    """Return a socket that SIGINT and SIGTERM make readable, so that they do not interrupt a line."""
    ended, signalled = socket.socketpair()
    signalled.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.set_wakeup_fd(signalled.fileno())
    try:
        with ended, signalled:
            yield ended
            signal.set_wakeup_fd(-1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _received(events: Any, ended: socket.socket) -> Iterator[tuple[bytes | None, int]]:
    """Return messages with the id of their namespace, None if the kernel dropped some.

    Return an empty one when it is time to look for new namespaces. End when the reader closes the pipe.
    """
    looked = 0.0
    poll = select.poll()
    poll.register(events.socket, select.POLLIN)
    poll.register(ended, select.POLLIN)
    poll.register(sys.stdout, 0)  # errors only: the reader has closed the pipe
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(LOOK_SECONDS * 1000)}
        if ended.fileno() in ready or sys.stdout.fileno() in ready:
            return
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            yield b"", HERE
        if events.socket.fileno() not in ready:
            continue
        try:
            data, control, _flags, sender = events.socket.recvmsg(LARGEST, socket.CMSG_SPACE(4))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            _drop_the_rest(events.socket)
            yield None, HERE
            continue
        if sender[0] == 0:  # from the kernel, not from another process
            yield data, next((struct.unpack("i", value)[0] for _level, _kind, value in control), HERE)


def _drop_the_rest(events: socket.socket) -> None:
    """Discard queued events after an overrun: they are older than the fresh dump and would overwrite it."""
    while True:
        try:
            events.recv(LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def as_line(event: Event) -> str:
    """Return an event as a line of text."""
    what = event.change if event.subject == "link" else f"{event.subject} {event.change}"
    words = [f"{datetime.now().astimezone():%H:%M:%S.%f}"[:-3], "host" if event.netnsid == HERE else "pod "]
    words += [f"{event.link:<15}", f"{what} {event.detail}".strip()]
    if event.pod and (event.pod.attachment or event.pod.netns):
        name = event.pod.title if event.pod.name else ""
        words.append(f"[{' '.join(part for part in (event.pod.attachment or event.pod.netns, name) if part)}]")
    return "  ".join(words)


def as_json(event: Event) -> str:
    """Return an event as JSON without unknown values."""
    pod = event.pod or Pod()
    document = {
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "where": "host" if event.netnsid == HERE else "pod",
        "subject": event.subject,
        "change": event.change,
        "link": event.link,
        "detail": event.detail,
        "network": pod.network,
        "containerID": pod.container_id,
        "ifname": pod.ifname,
        "namespace": pod.namespace,
        "name": pod.name,
        "netns": pod.netns,
    }
    return json.dumps({key: value for key, value in document.items() if value})
