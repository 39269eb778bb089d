"""The rollback of a failed call."""

from __future__ import annotations

import os

import pytest

from shared.cni.errors import TryAgainLater
from shared.undo import Undo
from tests.unit.python import run


def test_steps_run_backwards_on_an_error() -> None:
    done: list[int] = []
    with pytest.raises(KeyError), Undo() as undo:  # noqa: PT012 - the whole block fails
        for number in range(3):
            undo.push(f"step {number}", lambda number=number: done.append(number))  # type: ignore[misc]
        raise KeyError
    assert done == [2, 1, 0]


def test_success_keeps_everything() -> None:
    with Undo() as undo:
        undo.push("never", lambda: pytest.fail("was taken back"))


def test_a_failing_step_hides_neither_the_others_nor_the_error(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError(5, "the disk is gone")

    def refuse() -> None:
        raise TryAgainLater("the lock is held")

    with pytest.raises(KeyError, match="first"), Undo() as undo:  # noqa: PT012 - the whole block fails
        undo.push("free the address", lambda: done.append("address"))
        undo.push("remove é", fail)
        undo.push("remove the rules", refuse)
        undo.push("remove the link", lambda: done.append("link"))
        raise KeyError("first")
    assert done == ["link", "address"]
    assert capfd.readouterr().err == (
        "pycni: could not remove the rules: the lock is held\npycni: could not remove é: [Errno 5] the disk is gone\n"
    )


def test_a_failing_step_that_nobody_hears_of_does_not_stop_the_others() -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError

    undo = Undo()
    undo.push("be first", lambda: done.append("first"))
    undo.push("fail", fail)
    stderr = os.dup(2)
    os.close(2)
    try:
        undo.__exit__(KeyError, KeyError(), None)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    assert done == ["first"]


def test_a_step_that_is_pushed_while_undoing() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), Undo() as undo:  # noqa: PT012 - the whole block fails
        undo.push("outer", lambda: undo.push("inner", lambda: done.append("inner")))
        raise KeyError
    assert done == ["inner"]


def test_nothing_interrupts_the_taking_back() -> None:
    """SIGTERM ends no undo step, not even one that waits for a lock. Before the rollback, SIGTERM starts it."""
    told = run("""
        import os, signal
        from shared import signals
        from shared.undo import Undo
        signals.install()
        def waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            with signals.interruptible(5):
                print("two")
        try:
            with Undo() as undo:
                undo.push("one", lambda: print("one"))
                undo.push("two", waiting)
                os.kill(os.getpid(), signal.SIGTERM)
                print("made")
                undo.push("three", lambda: print("three"))
                print("not reached")
        except signals.Terminated as termination:
            print(termination.args)
    """)
    assert told.split("\n") == ["made", "three", "two", "one", "(15,)", ""]
