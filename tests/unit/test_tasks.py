"""Several steps of one call, some of which fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.cni.errors import CniError, IOFailure, TryAgainLater
from shared.cni.plugin import Unrestored, restore, run_all


def failing(done: list[str], name: str, error: Exception | None = None) -> Callable[[], None]:
    def step() -> None:
        done.append(name)
        if error is not None:
            raise error

    return step


@pytest.mark.parametrize("first", [TryAgainLater("the lock is held"), OSError(5, "the disk is gone")])
def test_each_has_its_turn(first: Exception) -> None:
    """The first failure is raised with its code, and its details have the others."""
    done: list[str] = []
    said = str(first)
    tasks = [
        failing(done, "one"), failing(done, "two", first), failing(done, "three"),
        failing(done, "four", IOFailure("cannot write", "no space")), failing(done, "five", PermissionError(1, "no")),
        failing(done, "six"),
    ]  # fmt: skip
    with pytest.raises(CniError) as caught:
        run_all(*tasks)
    assert done == ["one", "two", "three", "four", "five", "six"]
    assert caught.value.code == (11 if isinstance(first, TryAgainLater) else 999) and said in caught.value.msg
    assert "cannot write: no space" in caught.value.details and "PermissionError" in caught.value.details


def test_none_fails() -> None:
    done: list[str] = []
    run_all(*(failing(done, name) for name in "ab"))
    assert done == ["a", "b"]


def test_a_defect_is_no_failure_of_one_step() -> None:
    """Only errors that a step can meet are collected."""
    with pytest.raises(KeyError):
        run_all(failing([], "one", KeyError("x")))


def test_a_part_that_cannot_be_made_keeps_no_other_from_its_turn() -> None:
    """The repairs that succeeded are told with the failure."""
    missing = {"first", "second", "third", "fourth"}

    def look(name: str) -> list[str]:
        if name == "third":
            raise IOFailure("no look")
        return sorted(missing & {name})

    def make(name: str) -> None:
        if name == "first":
            raise TryAgainLater("no room")
        missing.discard(name)

    names = ("first", "second", "third", "fourth")
    with pytest.raises(Unrestored) as caught:
        restore("not as made", [(lambda name=name: look(name), lambda name=name: make(name)) for name in names])  # type: ignore[misc]
    assert caught.value.made == ["second", "fourth"]
    assert str(caught.value) == "not as made: no room; first; no look"
    assert restore("not as made", [(lambda: look("second"), None)]) == []
