"""Metrics of the cluster duty, from its report. Without a report there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.cluster import report
from shared.cni.errors import CniError

GAUGES = {
    "peers": ("pycni_cluster_peers", "Other nodes of the cluster"),
    "routes": ("pycni_cluster_routes", "Routes to other nodes that this node shall have"),
    "missingRoutes": ("pycni_cluster_missing_routes", "Routes that the kernel refused"),
    "updated": ("pycni_cluster_step_timestamp_seconds", "Time of the last look at node and cluster"),
}
COUNTERS = {
    "requests": ("pycni_cluster_requests", "Requests to the engine"),
    "sentBytes": ("pycni_cluster_sent_bytes", "Bytes sent to the engine"),
    "receivedBytes": ("pycni_cluster_received_bytes", "Bytes received from the engine"),
    "events": ("pycni_cluster_events", "Changes heard from the engine"),
    "steps": ("pycni_cluster_steps", "Decisions executed"),
    "failures": ("pycni_cluster_step_failures", "Decisions that failed"),
}


class ClusterMetrics(Collector):
    """Values that are read from the report at each scrape."""

    def __init__(self, path: Path = report.PATH) -> None:
        self._path = path

    def describe(self) -> Iterator[Metric]:
        """Return nothing: registering must not read."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return the values of the report; none if it is missing or garbled."""
        try:
            found = report.read(self._path)
            yield from list(_describe(found)) if found else ()
        except (CniError, ValueError, KeyError, TypeError, AttributeError):
            return


def _describe(found: dict[str, Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "pycni_cluster_synchronised", "1 if the engine tells this node all changes", value=int(found["isCurrent"])
    )
    for key, (name, text) in GAUGES.items():
        yield GaugeMetricFamily(name, text, value=found[key])
    for key, (name, text) in COUNTERS.items():
        yield CounterMetricFamily(name, text, value=found["counts"][key])
    alarms = GaugeMetricFamily("pycni_cluster_alarms", "Alarms that are on; see the report or doctor", labels=("name",))
    for name, number in sorted(Counter(one["name"] for one in found["alarms"]).items()):
        alarms.add_metric((name,), number)
    yield alarms
    yield from _describe_networks(found["networks"])


def _describe_networks(networks: dict[str, Any]) -> Iterator[Metric]:
    ranges = GaugeMetricFamily(
        "pycni_cluster_ranges", "Blocks and assigned CIDRs of this node", labels=("network", "family", "state")
    )
    addresses = GaugeMetricFamily(
        "pycni_cluster_addresses", "Addresses of this node's ranges; free ones of the conflist's ranges",
        labels=("network", "family", "state"),
    )  # fmt: skip
    for network, one in networks.items():
        numbers: Counter[tuple[str, str]] = Counter()
        leases: Counter[tuple[str, str]] = Counter()
        for entry in one["ranges"]:
            family = "IPv6" if ":" in entry["cidr"] else "IPv4"
            numbers[family, entry["state"]] += 1
            leases[family, "used"] += entry["used"]
            leases[family, "free"] += entry["free"] if entry["isPublished"] else 0
        for key, number in sorted(numbers.items()):
            ranges.add_metric((network, *key), number)
        for key, number in sorted(leases.items()):
            addresses.add_metric((network, *key), number)
    yield ranges
    yield addresses
