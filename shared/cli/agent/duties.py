"""cnitool agent run: the process of the duties.

The call server starts it, sends it a line of JSON for each call, and ends it by closing its stdin. Each duty has a
thread: the kernel's network namespace belongs to a thread, and no duty waits for another one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

from shared.agent import settings
from shared.cli.agent.counts import Counts, Sayings, say, unexpected
from shared.cli.commands import UsageError
from shared.cli.networks import Options, bin_dirs, conf_dir
from shared.cni.errors import CniError
from shared.dhcp import channel
from shared.runtime.client import Client

if TYPE_CHECKING:
    from shared.agent.settings import Settings

PAUSE_SECONDS = 60.0  # until a duty that failed begins anew
FALLBACKS = "/run/pycni/fallbacks"  # launchers append a byte for each call that they execute themselves


def run(options: Options) -> int:
    """Run the duties that are switched on until stdin ends. Return 1 if the settings are invalid."""
    try:
        chosen = settings.read()
    except ValueError as error:
        say(str(error))
        return 1
    counts = _tell(chosen)
    if chosen.heal:
        _start("heal", lambda: _heal(options, counts))
    if chosen.collect:
        _start("collect", lambda: _collect(options, chosen, counts))
    if chosen.dhcp:
        refusals = Sayings()
        _start("dhcp", lambda: _dhcp(refusals))
    if chosen.cluster:
        problems = Sayings()
        _start("cluster", lambda: _cluster(problems))
    for line in sys.stdin.buffer:
        _count(counts, line)
    os._exit(0)  # without waiting for the duties, which lose nothing


def _count(counts: Counts, line: bytes) -> None:
    try:
        record = json.loads(line)
    except ValueError:
        return
    if isinstance(record, dict):
        counts.call(record)


def _start(name: str, duty: Callable[[], None]) -> None:
    Thread(target=_guarded, args=(name, duty), name=name, daemon=True).start()


def _guarded(name: str, duty: Callable[[], None]) -> None:
    """Run a duty without end. If it fails, report the error once, and start the duty again after a pause."""
    sayings = Sayings()
    while True:
        try:
            duty()
        except Exception as error:  # noqa: BLE001  (the other duties share the process)
            sayings.say([f"{name}: unexpected {unexpected(error)}; it begins anew after {PAUSE_SECONDS:.0f} s"])
        time.sleep(PAUSE_SECONDS)


def _heal(options: Options, counts: Counts) -> None:
    from shared.cli.agent.heal import Heal

    Heal(options.cache_dir, bin_dirs(), counts).run()


def _collect(options: Options, chosen: Settings, counts: Counts) -> None:
    from shared.cli.agent.collect import Collect

    client = Client(bin_dirs(), cache_dir=options.cache_dir)
    Collect(client, conf_dir(), chosen.graceSeconds, counts).run()


def _dhcp(refusals: Sayings) -> None:
    """Run the dhcp daemon. Return without its library, or if another daemon is at work."""
    try:
        from shared.cli.dhcp import command
        from shared.cli.dhcp.settings import Settings as DaemonSettings
    except ImportError as error:
        refusals.say([f"no dhcp: it needs pyroute2 ({error}); install it with `./install.sh --with-tools`"])
        return
    try:
        command.serve(DaemonSettings(channel.SOCKET_PATH), lambda text: say(f"dhcp: {text}"))
    except UsageError as error:
        refusals.say([f"dhcp: {error}; the duty begins when that one has ended"])


def _cluster(problems: Sayings) -> None:
    """Run the cluster duty. Return if its settings cannot be used, or the node's memory cannot."""
    from shared.cluster import settings as cluster_settings
    from shared.cluster.duty import Duty

    try:
        duty = Duty(cluster_settings.read(), lambda text: say(f"cluster: {text}"))
    except (ValueError, CniError) as error:
        problems.say([f"cluster: {error}; it is tried again after {PAUSE_SECONDS:.0f} s"])
        return
    duty.run()


def _tell(chosen: Settings) -> Counts:
    """Return the counts, which are served if metrics are on and their library is installed."""
    if not chosen.metrics:
        return Counts()
    try:
        from shared.cli.agent import scraped
        from shared.cli.agent.metrics import Metrics

        metrics = Metrics(conf_dir(), FALLBACKS)
    except Exception as error:  # noqa: BLE001  (a library that is damaged, or another one of its name)
        say(f"no metrics: they need prometheus_client ({error}); install it with `./install.sh --with-tools`")
        return Counts()
    try:
        scraped.serve(settings.METRICS_SOCKET if chosen.metrics == settings.UNIX else chosen.metrics, metrics.text)
    except scraped.Refused as error:
        say(str(error))
    return metrics
