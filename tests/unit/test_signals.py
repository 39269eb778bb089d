"""Termination and deadlines, each in an interpreter of its own."""

from __future__ import annotations

import pytest

from tests.unit.python import run

HEAD = """
import os, signal, sys
from shared import signals

def strike(number):
    os.kill(os.getpid(), number)

def attempt(what):
    try:
        what()
    except (signals.Terminated, signals.DeadlineExpired) as error:
        return type(error).__name__, error.args
    return "returned"
"""


def told(script: str) -> list[str]:
    return run(HEAD + script).splitlines()


@pytest.mark.parametrize("number", [15, 2])
def test_a_signal_waits_for_a_safe_point(number: int) -> None:
    assert told(f"""
signals.install()
signals.safe_point()
strike({number})
print("goes on")
print(attempt(signals.safe_point))
""") == ["goes on", f"('Terminated', ({number},))"]


def test_a_waiting_call_is_left_at_once() -> None:
    """A read would block for ever. If the signal is faster, the call does not begin to wait."""
    assert told("""
signals.install()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(0)
def wait():
    with signals.interruptible(60):
        os.read(reader, 1)
print(attempt(wait))
""") == ["('Terminated', (15,))"]


def test_a_signal_that_does_not_wake_the_waiting_call() -> None:
    """Another thread handles the signal, so the read goes on, as if the signal came just before the read blocks."""
    assert told("""
import threading, time
signals.install()
reader, writer = os.pipe()
def from_aside():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(30)
threading.Thread(target=from_aside, daemon=True).start()
def wait():
    with signals.interruptible(60):
        os.read(reader, 1)
start = time.monotonic()
print(attempt(wait))
print(time.monotonic() - start < 10, signal.getitimer(signal.ITIMER_REAL)[0])
os._exit(sys.stdout.flush() or 0)
""") == ["('Terminated', (15,))", "True 0.0"]


def test_a_long_wait_is_not_ended_by_its_ticks() -> None:
    assert told("""
import time
signals.TICK = 0.01
signals.install()
reader, writer = os.pipe()
def wait():
    with signals.interruptible(0.3):
        os.read(reader, 1)
start = time.monotonic()
print(attempt(wait))
print(time.monotonic() - start >= 0.3)
""") == ["('DeadlineExpired', ())", "True"]


def test_a_signal_that_came_before_strikes_on_entry() -> None:
    assert told("""
signals.install()
strike(signal.SIGTERM)
def wait():
    with signals.interruptible(60):
        print("not reached")
print(attempt(wait))
""") == ["('Terminated', (15,))"]


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
def test_a_deadline(seconds: float) -> None:
    assert told(f"""
signals.install()
reader, writer = os.pipe()
def wait():
    with signals.interruptible({seconds}):
        os.read(reader, 1)
print(attempt(wait))
print(signal.getitimer(signal.ITIMER_REAL)[0])
""") == ["('DeadlineExpired', ())", "0.0"]


def test_a_deadline_that_is_not_reached_leaves_no_timer() -> None:
    assert told("""
signals.install()
with signals.interruptible(60):
    pass
print(signal.getitimer(signal.ITIMER_REAL)[0])
strike(signal.SIGALRM)  # a late one, from a timer that had fired already
print(attempt(signals.safe_point))
""") == ["0.0", "returned"]


def test_after_the_answer_nothing_interrupts() -> None:
    assert told("""
signals.install()
strike(signal.SIGTERM)
signals.ignore()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
    strike(number)
print(attempt(signals.safe_point))
""") == ["returned"]
