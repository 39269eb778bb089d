"""The answers of taps.create to refusals of the kernel."""

from __future__ import annotations

import pytest

from shared.cni.errors import InternalError
from shared.net import taps


def create(name: str, **keys: int) -> None:
    rights = {"owner": None, "group": None, **keys}
    taps.create(name, multi_queue=False, before_persistent=lambda: pytest.fail("there is a tap"), **rights)


def test_a_refusal_is_no_name_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers EINVAL to flags that it cannot use, as to a name that a link of another kind has."""
    monkeypatch.setattr(taps, "IFF_TAP", 0)
    with pytest.raises(InternalError, match="refuses a tap named nosuchlink0: Invalid argument") as caught:
        create("nosuchlink0")
    assert not isinstance(caught.value, taps.NameTaken)


def test_a_name_that_is_taken() -> None:
    with pytest.raises(taps.NameTaken, match="link lo already exists"):
        create("lo")
