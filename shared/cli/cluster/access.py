"""Reach the cluster's engine from the command line, and read its content once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from shared.cli.networks import Options
from shared.cluster import engines
from shared.cluster import settings as cluster_settings
from shared.cluster.engine import Engine, EngineError
from shared.cluster.model import Snapshot
from shared.cluster.settings import KUBERNETES, Settings


class NoAnswer(ValueError):
    """The engine did not answer, or refused; `failure` is the reason alone, without the next step."""

    def __init__(self, failure: str, todo: str = "") -> None:
        super().__init__(f"{failure}{todo}")
        self.failure = failure


@dataclass(frozen=True)
class Cluster:
    """An engine, and its content when the command began. `node` is the name of this machine's node."""

    settings: Settings
    node: str
    engine: Engine
    snapshot: Snapshot


@contextmanager
def reached(options: Options, *, is_quiet: bool = False) -> Iterator[Cluster]:
    """Yield the cluster of the command line. Raise ValueError for settings, NoAnswer for the engine.

    Name objects that cannot be read on stderr, unless `is_quiet`.
    """
    settings = read_settings(options)
    node = settings.node_name()
    engine = engines.connect(settings, node)
    try:
        snapshot = read_snapshot(engine, options.wait)
        for key, text in sorted(snapshot.unreadable.items()) if not is_quiet else ():
            print(f"cnitool: warning: object {key} is passed over: {text}", file=sys.stderr)
        yield Cluster(settings, node, engine, snapshot)
    except EngineError as error:
        raise NoAnswer(f"engine {settings.engine}: {error}") from error
    finally:
        engine.close()


def read_settings(options: Options) -> Settings:
    """Return the settings, with the command line's credentials. Raise ValueError that names file and key."""
    settings = cluster_settings.read(Path(options.settings))
    if options.kubeconfig or options.context:
        if settings.engine != KUBERNETES:
            raise ValueError(f"--kubeconfig and --context: {options.settings} has the engine {settings.engine}")
        keys = settings.kubernetes
        keys.kubeconfig = str(Path(options.kubeconfig).absolute()) if options.kubeconfig else keys.kubeconfig
        keys.context = options.context or (keys.context if not options.kubeconfig else "")
    return settings


def read_snapshot(engine: Engine, wait_seconds: float) -> Snapshot:
    """Return the engine's first current state; `follow` goes on in a thread until `close`. Raise NoAnswer."""
    states: SimpleQueue[Snapshot] = SimpleQueue()
    Thread(target=engine.follow, args=(states.put,), daemon=True).start()
    deadline = time.monotonic() + wait_seconds
    failure = "it said nothing"
    while (left := deadline - time.monotonic()) > 0:
        try:
            state = states.get(timeout=left)
        except Empty:
            break
        if state.is_current:
            return state
        failure = state.failure or failure
    raise NoAnswer(
        f"the engine's content was not read in {wait_seconds:g} seconds: {failure}",
        ". `cnitool cluster status` shows what this node knows without it; --wait gives it more time",
    )
