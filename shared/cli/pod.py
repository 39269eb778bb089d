"""cnitool pod: set up a pod by hand as a kubelet does, loopback and then the default network."""

from __future__ import annotations

import os
from pathlib import Path

from shared.cli.networks import (
    Options,
    bin_dirs,
    capability_args,
    conf_dir,
    container_id_of,
    print_json,
    run_guarded,
    warn,
)
from shared.runtime.pods import Pod, PodNetwork


def run(options: Options) -> int:
    """Run `up`, `down` or `status` for the pod in a namespace.

    Return 1 if it failed, with the reason on stderr.
    """
    return run_guarded(options, {"up": _up, "down": _down, "status": _status}[options.action])


def _network(options: Options) -> PodNetwork:
    return PodNetwork(conf_dir(), bin_dirs(), cache_dir=options.cache_dir, warn=warn)


def _pod(options: Options) -> Pod:
    netns = os.path.abspath(options.netns)
    return Pod(
        options.namespace, options.name or Path(netns).name, options.container_id or container_id_of(netns), netns,
        capability_args(),
    )  # fmt: skip


def _up(options: Options) -> None:
    network, pod = _network(options), _pod(options)
    network.expect_new(pod)
    network.status()
    result = network.set_up(pod)
    if options.json:
        print_json({"network": result.network.name, "loopback": result.loopback, "result": result.default})
    else:
        _print_addresses(pod, result.network.name, network.addresses(pod))


def _down(options: Options) -> None:
    _network(options).tear_down(_pod(options))


def _status(options: Options) -> None:
    network, pod = _network(options), _pod(options)
    found, addresses = network.network_of(pod).name, network.addresses(pod)
    if options.json:
        print_json({"network": found, "containerID": pod.container_id, "addresses": addresses})
    else:
        _print_addresses(pod, found, addresses)


def _print_addresses(pod: Pod, network: str, addresses: list[str]) -> None:
    print(f"{pod.namespace}/{pod.name} ({pod.container_id}) on {network}: {' '.join(addresses) or 'no address'}")
