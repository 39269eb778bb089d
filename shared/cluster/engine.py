"""The engine's interface. etcd and Kubernetes have it, and one contract test is for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shared.cluster.model import Block, Cidr, Peer, Pool, Snapshot


class EngineError(Exception):
    """The engine did not answer, or refused. The effect of a write is unknown, unless a subclass says it."""


class Taken(EngineError):
    """The object exists already, or has another revision: nothing was changed."""


class Refused(EngineError):
    """The engine does not let this node do that: credentials or rights. Nothing was changed."""


@dataclass(frozen=True)
class Counts:
    """Requests to an engine since the process began, for the tests of scale and for metrics."""

    requests: int
    sent_bytes: int
    received_bytes: int
    events: int


class Engine(Protocol):
    """One cluster's objects. Each method ends within its time-out, and tries once: the caller decides anew."""

    def follow(self, take: Callable[[Snapshot], None]) -> None:
        """Read everything, then watch, until `close`; runs in a thread of its own.

        `take` gets each new state; with `is_current` False as soon as nothing was heard for twice the interval of
        the engine's signs of life. A watch that is too old is replaced by a new list, and its differences are one new
        state. Never raises: a failure is a state, too, and is tried again after a jittered pause.
        """

    def close(self) -> None:
        """End `follow`, and every request in progress."""

    def claim(self, block: Block) -> Block:
        """Create the block. Return it with its revision. Raise Taken if somebody has it."""

    def read_block(self, network: str, cidr: Cidr) -> Block | None:
        """Return the block as it is now, not as a cache has it; None without one."""

    def update_block(self, block: Block) -> Block:
        """Write the block if it still has `block.revision`. Return it with the new one. Raise Taken otherwise."""

    def release(self, block: Block) -> None:
        """Delete the block if it still has `block.revision`. Raise Taken otherwise; one that is gone is a success."""

    def announce(self, peer: Peer) -> Peer:
        """Write this node's own peer object, whatever its revision. Return it with the new one."""

    def withdraw(self, peer: Peer) -> None:
        """Delete a peer object if it still has `peer.revision`. Raise Taken otherwise; one that is gone is a success.

        `cnitool cluster release` does so for a node that is gone.
        """

    def show_life(self, node: str, uid: str) -> None:
        """Let `follow` keep a sign of life of this machine from now on, if the engine needs one. Send nothing yet."""

    def find_life_refusal(self) -> str:
        """Return why the engine does not let this machine keep its sign of life; empty if it does."""

    def find_life(self, node: str, uid: str) -> str:
        """Return the sign of life of a machine with this name and id, in words; empty without one.

        A machine that is cut off from the engine has none, though its pods live.
        """

    def write_pool(self, pool: Pool) -> None:
        """Write a pool, for administrators."""

    def counts(self) -> Counts:
        """Return the requests so far."""
