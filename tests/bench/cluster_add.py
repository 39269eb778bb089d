"""Times of ADD with and without the cluster duty: `python -m tests.bench.cluster_add BIN_DIR [CALLS]`.

Calls alternate between two nodes, so that both see the same load. It prints the medians in milliseconds, and their ratio.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack

from shared.net.netns import open_netns
from tests.pretend import PretendHost
from tests.system.cluster_node import POOL, ClusterNode


def joined(host: PretendHost, stack: ExitStack) -> ClusterNode:
    """Return a node whose duty has joined a cluster, with a bridge."""
    netns = open_netns(f"/proc/{host.first_pid}/ns/net")
    stack.callback(netns.close)
    node = ClusterNode(host, netns)
    node.start_etcd()
    node.put("pools/pods", POOL)
    node.begin()
    node.until(lambda: len(node.published()) == 2)
    node.addresses("warm")
    return node


def time_add(node: ClusterNode) -> float:
    """Return the milliseconds of an ADD, and delete the pod."""
    node.netns("pod")
    start = time.perf_counter()
    node.add("pod")
    found = time.perf_counter() - start
    node.delete("pod")
    return 1000 * found


def main() -> None:
    bin_dir, calls = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with ExitStack() as stack:
        with_duty, without = (joined(stack.enter_context(PretendHost(bin_dir)), stack) for _ in range(2))
        without.kill_agent()
        without.etcd.members[0].kill()
        times = [(time_add(with_duty), time_add(without)) for _ in range(calls)]
        one, other = (statistics.median(found) for found in zip(*times, strict=True))
        sys.stdout.write(f"with the duty {one:.1f} ms, without {other:.1f} ms, ratio {one / other:.3f}\n")


if __name__ == "__main__":
    main()
