"""doctor: check a node's pod networks and name the next step for each finding."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from shared.cli import networks
from shared.cli.commands import CACHE_DIR
from shared.cli.doctor import agent, cluster, configuration, devices, dhcp, kernel, state, switches, wiring
from shared.cli.doctor.findings import Finding, error, print_json, print_text, status
from shared.cli.doctor.node import Node

SETTLE_SECONDS = 1.0  # longer than one ADD or DEL takes

# Every check in the order of the report: its name, and the function that yields its findings.
CHECKS: tuple[tuple[str, Callable[[Node], Iterable[Finding]]], ...] = (
    ("configurations", configuration.files),
    ("default-network", configuration.default_network),
    ("refused", configuration.refused),
    ("missing-plugins", configuration.missing_plugins),
    ("plugins", configuration.answers),
    ("python", configuration.interpreter),
    ("agent", agent.state),
    ("dhcp", dhcp.daemon),
    ("settings", cluster.settings),
    ("cluster", cluster.duty),
    ("engine", cluster.engine),
    ("neighbours", cluster.neighbours),
    ("kernel", kernel.features),
    ("devices", devices.links),
    ("backends", kernel.backends),
    ("sysctls", switches.visible),
    ("forwarding", kernel.forwarding),
    ("accept-ra", switches.accept_ra),
    ("route-localnet", switches.route_localnet),
    ("bridge-nf", kernel.bridge_nf),
    ("ipv6", kernel.ipv6),
    ("chains", kernel.leftover_chains),
    ("loopback", wiring.loopback),
    ("bridges", wiring.bridges),
    ("ports", wiring.ports),
    ("attachments", wiring.attachments),
    ("mtu", wiring.mtu),
    ("gateways", wiring.duplicate_gateways),
    ("addresses", wiring.duplicate_addresses),
    ("rp-filter", wiring.rp_filter),
    ("routes", wiring.routes),
    ("cache", state.cache),
    ("links", state.stale_links),
    ("leases", state.leases),
    ("pools", state.pools),
    ("permissions", state.permissions),
)


def run(options: argparse.Namespace) -> int:
    """Check the node and print the findings.

    Return 0 if there are only notes, 1 for warnings, 2 for errors or without root.
    """
    if os.geteuid():
        print("cnitool doctor: only root can look into the pods; run it with sudo", file=sys.stderr)
        return 2
    conf_dir = Path(options.conf_dir or networks.conf_dir())
    bin_dirs = [Path(directory) for directory in options.bin_dir or networks.bin_dirs()]

    def look() -> Node:
        return Node(conf_dir, bin_dirs, Path(CACHE_DIR))

    findings = examine(look())
    if status(findings):
        # Look twice: a call that ran during the first look has finished by the second.
        time.sleep(SETTLE_SECONDS)
        again = examine(look())
        seen = {(finding.check, finding.where) for finding in findings}
        findings = [finding for finding in again if (finding.check, finding.where) in seen]
    findings.sort(key=lambda finding: -finding.severity)
    if options.json:
        print_json(findings)
    else:
        print_text(findings)
    return status(findings)


def examine(node: Node) -> list[Finding]:
    """Return the findings of all checks, and a finding for each check that fails.

    On a terminal, show the check that is running.
    """
    findings: list[Finding] = []
    with Console(stderr=True).status("") as progress:
        for name, check in CHECKS:
            progress.update(f"checking {name}")
            try:
                for finding in check(node):
                    findings.append(replace(finding, check=name))  # noqa: PERF401 - keep findings made before a failure
            except Exception as reason:  # noqa: BLE001 - one failing check must not stop the others
                failed = error(f"check {name}", f"failed: {type(reason).__name__}: {reason}", "report this as a bug")
                findings.append(replace(failed, check=name))
    return list(dict.fromkeys(findings))
