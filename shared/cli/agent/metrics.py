"""The duty `tell`: metrics for Prometheus.

Values are counted as things happen. Addresses and fallbacks are read when somebody asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.cli.agent.cluster_metrics import ClusterMetrics
from shared.cli.agent.counts import Counts
from shared.cli.config import reading
from shared.cni.errors import CniError
from shared.cni.ip import Address
from shared.runtime import conflist
from shared.runtime.conflist import ConfigError

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
PASS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics(Counts):
    """The counts of the duties in Prometheus's form."""

    def __init__(self, conf_dir: Path | str, fallbacks: Path | str) -> None:
        mine = self.registry = CollectorRegistry()
        self._calls = Counter(
            "pycni_calls", "Calls that workers served; outcome is ok or the error code",
            ("plugin", "verb", "outcome"), registry=mine,
        )  # fmt: skip
        self._seconds = Histogram(
            "pycni_call_seconds", "Duration of a worker's calls", ("plugin", "verb"), registry=mine,
            buckets=CALL_SECONDS,
        )  # fmt: skip
        labels = ("network", "plugin")
        self._repaired = Counter("pycni_repairs", "Things created again for running pods", labels, registry=mine)
        self._unrepaired = Counter("pycni_repair_failures", "Repairs that failed", labels, registry=mine)
        self._passes = Histogram(
            "pycni_heal_pass_seconds", "Duration of a pass over all attachments", registry=mine, buckets=PASS_SECONDS
        )
        self._collected = Counter(
            "pycni_collected", "Dead attachments whose remains were deleted", ("network",), registry=mine
        )
        mine.register(_Read(lambda: _fallbacks(Path(fallbacks))))
        mine.register(_Read(lambda: _addresses(conf_dir)))
        mine.register(ClusterMetrics())

    def call(self, record: dict[str, Any]) -> None:
        """Count a plugin's call; ignore a record of another form."""
        with suppress(KeyError, TypeError, ValueError):
            plugin, verb, code, seconds = (record[key] for key in ("plugin", "verb", "code", "seconds"))
            duration = float(seconds)
            self._calls.labels(str(plugin), str(verb), str(code) if code else "ok").inc()
            self._seconds.labels(str(plugin), str(verb)).observe(duration)

    def heal_pass(self, seconds: float) -> None:
        """Count a pass over the attachments."""
        self._passes.observe(seconds)

    def repaired(self, network: str, plugin: str, things: int) -> None:
        """Count repaired things of an attachment."""
        self._repaired.labels(network, plugin).inc(things)

    def unrepaired(self, network: str, plugin: str) -> None:
        """Count a repair that failed."""
        self._unrepaired.labels(network, plugin).inc()

    def collected(self, network: str) -> None:
        """Count an attachment whose remains were deleted."""
        self._collected.labels(network).inc()

    def text(self) -> bytes:
        """Return all values in Prometheus's text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    """Values that are read at each scrape."""

    def __init__(self, read: Callable[[], Metric]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield self._read()

    def describe(self) -> Iterator[Metric]:
        """Return nothing: registering must not read."""
        return iter(())


def _fallbacks(path: Path) -> Metric:
    """Return the number of calls that a launcher executed because no worker took them: a byte each in a file."""
    made = CounterMetricFamily("pycni_fallbacks", "Calls that were executed because no worker took them")
    with suppress(OSError):
        made.add_metric((), path.stat().st_size)
    return made


def _addresses(conf_dir: Path | str) -> Metric:
    """Return the leased and the free addresses of host-local's ranges in the configurations."""
    made = GaugeMetricFamily(
        "pycni_addresses", "Addresses of host-local's ranges, without gateways", labels=("network", "ranges", "state")
    )
    seen: set[tuple[str, str]] = set()
    for network, ranges, used, size in _usage(conf_dir):
        if (network, ranges) not in seen:
            seen.add((network, ranges))
            made.add_metric((network, ranges, "used"), used)
            made.add_metric((network, ranges, "free"), size - used)
    return made


def _usage(conf_dir: Path | str) -> Iterator[tuple[str, str, int, int]]:
    """Return network, ranges, the number of leases, and the number of addresses of each range set."""
    try:
        networks = conflist.load(conf_dir, lambda _: None)
    except (ConfigError, OSError):
        return
    for network in networks:
        for plugin in network.plugins:
            with suppress(CniError):
                pool = reading.pool(network, plugin)
                leases = _leases(f"{pool.store.data_dir}/{network.name}") if pool else []
                for one in pool.sets if pool else ():
                    places = {one.place(address) for address in leases} - one.gateways - {None}
                    yield network.name, str(one), len(places), one.capacity


def _leases(directory: str) -> list[Address]:
    """Return the addresses that are files' names in a directory of leases."""
    found = []
    with suppress(OSError):
        for name in os.listdir(directory):
            with suppress(ValueError):
                found.append(Address.parse(name))
    return found
