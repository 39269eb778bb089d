"""When events lead to a pass: debounce, one pass for all reasons, longer pauses for reasons that lead to nothing."""

from __future__ import annotations

from shared.cli.agent.pacing import DEBOUNCE_SECONDS, LONGEST_SECONDS, Pacing


def test_events_of_one_change_lead_to_one_pass() -> None:
    pacing = Pacing()
    assert pacing.due is None
    for now in (10.0, 10.01, 10.05):
        pacing.note("a", now)
    pacing.note("b", 10.02)
    assert pacing.due == 10.0 + DEBOUNCE_SECONDS
    assert pacing.begin() == ["a", "b"]
    assert pacing.due is None


def test_a_reason_that_leads_to_nothing_waits_longer_each_time() -> None:
    pacing, now, passes = Pacing(), 0.0, []
    while now < 600:  # an event every second
        pacing.note("busy", now)
        if pacing.due is not None and pacing.due <= now:
            passes.append(now)
            pacing.end(pacing.begin(), now, has_repaired=False)
        now += 1
    assert len(passes) < 6 + 600 / LONGEST_SECONDS
    assert max(later - earlier for earlier, later in zip(passes, passes[1:])) <= LONGEST_SECONDS + 2


def test_another_reason_does_not_wait_with_it() -> None:
    pacing = Pacing()
    for _ in range(10):
        pacing.note("busy", 0)
        pacing.end(pacing.begin(), 0, has_repaired=False)
    pacing.note("busy", 1)
    pacing.note("flush", 1)
    assert pacing.due == 1 + DEBOUNCE_SECONDS


def test_a_repair_ends_the_pauses() -> None:
    pacing = Pacing()
    for has_repaired in (False, False, True):
        pacing.note("a", 0)
        pacing.end(pacing.begin(), 0, has_repaired=has_repaired)
    pacing.note("a", 1)
    assert pacing.due == 1 + DEBOUNCE_SECONDS


def test_a_rest_ends_the_pause() -> None:
    pacing = Pacing()
    for _ in range(3):
        pacing.note("a", 0)
        pacing.end(pacing.begin(), 0, has_repaired=False)
    pacing.note("a", 100)
    pacing.end(pacing.begin(), 100, has_repaired=False)
    pacing.note("a", 100)
    assert pacing.due == 101


def test_a_withdrawn_reason_leads_to_no_pass() -> None:
    pacing = Pacing()
    pacing.note("link veth1", 0)
    pacing.note("link cni0", 0)
    pacing.withdraw("link veth1")
    pacing.withdraw("link veth2")
    assert pacing.begin() == ["link cni0"]
