"""A kubelet's view: containerd makes, stops and removes pods with each suite in turn. Run as `tests/bench/run --clients`.

The network is the chain of bridge with ipMasq, portmap, bandwidth and firewall, of both families. Each suite has a host
and a containerd of its own.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.cells import SETTLE_SECONDS
from tests.clients.container_host import ContainerHost, chain
from tests.clients.containerd import BIN_DIR, Containerd, pod_config
from tests.pretend import PATH

Rows = dict[str, dict[str, list[float]]]
FILTERS = ("iptables", "ip6tables")  # the reference executes them


def start(stack: ExitStack, bin_dir: Path) -> Containerd:
    """Start containerd on a host of its own, and the agent if it is installed there."""
    state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp")))
    host = stack.enter_context(ContainerHost(bin_dir, state))
    host.configure(chain("pods", 0, "cni0"))
    host.start_agent()
    containerd = stack.enter_context(Containerd(host))
    for program in FILTERS:
        found = shutil.which(program, path=PATH)
        if found is None:
            sys.exit(f"bench: {program} is missing, which the reference executes")
        host.path(f"{BIN_DIR}/{program}").symlink_to(found)
    return containerd


def timed(containerd: Containerd, method: str, **fields: object) -> tuple[float, object]:
    """Return the ms that a call takes, and its answer."""
    time.sleep(SETTLE_SECONDS)
    begin = time.perf_counter()
    answer = containerd.ask(method, **fields)
    return (time.perf_counter() - begin) * 1000, answer


def measure(bin_dirs: dict[str, Path], rounds: int) -> Rows:
    """Return the samples. Round -1 is the warm-up, which is not kept."""
    rows: Rows = {}
    with ExitStack() as stack:
        daemons = {name: start(stack, bin_dir) for name, bin_dir in bin_dirs.items()}
        for number in range(-1, rounds):
            names = list(daemons)
            for name in names if number % 2 else names[::-1]:
                config = pod_config(f"web{number}", ports=[(9090, 80)], ingress_bandwidth="8M", egress_bandwidth="8M")
                times = {}
                times["RunPodSandbox"], made = timed(daemons[name], "RunPodSandbox", config=config)
                for method in ("StopPodSandbox", "RemovePodSandbox"):
                    times[method], _ = timed(daemons[name], method, pod_sandbox_id=made.pod_sandbox_id)  # type: ignore[attr-defined]
                for method, value in times.items() if number >= 0 else ():
                    rows.setdefault(method, {}).setdefault(name, []).append(round(value, 4))
        for daemon in daemons.values():
            daemon.host.assert_agent_served()
    return rows
