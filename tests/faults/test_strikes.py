"""Rows 1, 2, 3, 10, 11 and 17: a call is struck at each of its system calls in turn, and nothing is left, nor lost.

Each has a sample in the normal run, and every point in `./tests/run --faults`.
"""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import stepper
from tests.faults.chains import CHAINS, ENDS, Attachments
from tests.faults.plugin import Tally
from tests.faults.stepper import CAN_BE_INTERRUPTED, CHANGES, MESSAGE, ON_DISK, RECEIVE, Strike
from tests.plugins import marked
from tests.pretend import Answer, PretendHost

SAMPLE = 1  # of each plugin, with each verb
SLOW_SAMPLE, SLOW_ALL = 1, 4  # the same on the stock kernel; there, of all points
KILLS = ("plugin", "tree", "child")
ON_DISK_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
NETWORK_ERRORS = (errno.EPERM, errno.ENOMEM, errno.ENOBUFS)
Points = list[tuple[int, int, str]]  # place of the plugin, number of the call, its name


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stepper.compiled(tmp_path_factory.mktemp("stepper"))


@pytest.fixture(params=[marked(name, chain.needs) for name, chain in CHAINS.items()])
def attachments(request: pytest.FixtureRequest, host: PretendHost, program: Path) -> Attachments:
    """Return attachments on a host where another pod has the same, and everything that pods share is there."""
    found = Attachments(host, CHAINS[request.param], program)
    found.warm_up()
    return found


@pytest.fixture(params=[marked(name, chain.needs) for name, chain in CHAINS.items()])
def first(request: pytest.FixtureRequest, host: PretendHost, program: Path) -> Attachments:
    """Return attachments on a host where each pod is the first."""
    found = Attachments(host, CHAINS[request.param], program)
    found.cool_down()
    return found


many = pytest.mark.parametrize("sample", [SAMPLE, pytest.param(0, marks=pytest.mark.faults, id="all")])


def points(attachments: Attachments, verb: str, classes: int, sample: int, whose: str = "") -> Points:
    """Return the system calls of those classes in a call without a strike, or some of them.

    With `whose`, "plugin" or "child", only the calls of one side are counted, as the actions `own` and `child` do.
    """
    found = []
    for place, steps in enumerate(attachments.calls(verb, classes)):
        counted = [step for step in steps if step.startswith(whose)]
        found += [(place, number, step.partition(" ")[2]) for number, step in enumerate(counted, 1)]
    if attachments.chain.needs:
        sample = SLOW_SAMPLE if sample else SLOW_ALL
    return sorted(random.sample(found, min(sample, len(found)))) if sample else found


def keep_host_lines(lines: set[str]) -> set[str]:
    """Return the lines of the host, without those inside the pod, which go with its namespace."""
    return {line for line in lines if not line.startswith("c1: ")}


def strikes(verb: str, attachments: Attachments, sample: int) -> Iterator[tuple[int, int, str, Strike]]:
    is_slow = bool(attachments.chain.needs and sample)
    for whose, kills in (("", KILLS[:2]), ("child", KILLS[2:])):
        for place, number, name in points(attachments, verb, CHANGES, sample, whose):
            for kill in random.sample(kills, 1) if is_slow else kills:
                yield place, number, name, Strike(kill, number)


@many
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.row(1, 2, 3)
def test_killed(attachments: Attachments, verb: str, sample: int, tally: Tally) -> None:
    before = attachments.state()
    complaints: list[str] = []
    for turn, (place, number, name, strike) in enumerate(strikes(verb, attachments, sample)):
        end = list(ENDS)[turn % len(ENDS)]
        so_far = len(complaints)
        if verb == "ADD":
            attachments.add(strike, place)
        else:
            attachments.must_add()
            attachments.delete(end, strike, place)
        point = f"{strike.action} at {number} ({name}) of {attachments.chain.plugins[place]['type']}, namespace {end}"
        for _ in range(2):
            complaints += [f"{point}: {answer}" for answer in attachments.delete(end) if answer.status or answer.stdout]
        if end != "whole":
            now = attachments.state()
            complaints += [
                f"{point}: {what}" for what in attachments.differences(keep_host_lines(before), keep_host_lines(now))
            ]
            attachments.renew()
        now = attachments.state()
        complaints += [f"{point}: {what}" for what in attachments.differences(before, now)]
        for row in (("ADD", "DEL").index(verb) + 1, *([3] if end != "whole" else [])):
            tally(row, 1, len(complaints) - so_far)
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])


@many
@pytest.mark.row(16)
def test_killed_and_collected(attachments: Attachments, sample: int, tally: Tally) -> None:
    """Nobody calls DEL for the pod of a killed ADD: GC deletes the remains."""
    points_to_strike = list(strikes("ADD", attachments, sample))
    attachments.lose()
    attachments.collect()
    before = keep_host_lines(attachments.state())
    attachments.renew()
    complaints: list[str] = []
    for place, number, name, strike in points_to_strike:
        attachments.add(strike, place)
        attachments.lose()
        point = f"{strike.action} at {number} ({name}) of {attachments.chain.plugins[place]['type']}"
        found = [f"{point}: {answer}" for answer in attachments.collect() if answer.status or answer.stdout]
        after = keep_host_lines(attachments.state())
        found += [f"{point}: {what}" for what in attachments.differences(before, before | after)]
        attachments.renew()
        complaints += found
        tally(16, 1, len(found))
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])


@many
@pytest.mark.row(1)
def test_first_killed(first: Attachments, sample: int, tally: Tally) -> None:
    """No remaining part of the shared things disturbs the next pod."""
    first.forget()
    before = first.state()
    complaints: list[str] = []
    for place, number, name, strike in strikes("ADD", first, sample):
        so_far = len(complaints)
        first.add(strike, place)
        point = f"{strike.action} at {number} ({name}) of {first.chain.plugins[place]['type']}"
        complaints += [f"{point}: {answer}" for answer in first.delete() if answer.status or answer.stdout]
        complaints += [f"{point}: {what}" for what in first.differences(before, first.state())]
        first.is_cold = False  # the remains of the first pod are there for the second
        answer = first.add()
        complaints += [f"{point}: then {answer}"] if answer.status else []
        check = first.check()
        complaints += [f"{point}: CHECK {check}"] if check.status else []
        complaints += [f"{point}: then {answer}" for answer in first.delete() if answer.status]
        first.is_cold = True
        tally(1, 1, len(complaints) - so_far)
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])


@many
@pytest.mark.row(10, 11)
def test_first_refused(first: Attachments, sample: int, tally: Tally) -> None:
    """Rules that all pods share may stay; the bridge, which the failed ADD made, does not."""
    first.forget()
    before = first.state()
    complaints: list[str] = []
    for place, number, name, strike in errors(first, "ADD", sample):
        so_far = len(complaints)
        answer = first.add(strike, place)
        point = f"{strike.action} {errno.errorcode.get(strike.errno, '')} at {number} ({name}) of {first.chain.plugins[place]['type']}"
        is_whole = answer.status == 0
        if not is_whole and (not is_error(answer) or "could not" in answer.stderr):
            complaints.append(f"{point}: {answer}")
        if is_whole or len(first.chain.plugins) > 1:
            complaints += [f"{point}: {one}" for one in first.delete() if one.status]
        undone = not is_whole and len(first.chain.plugins) == 1
        found = first.differences(before, first.state(), undone=undone)
        complaints += [f"{point}: {what}" for what in found]
        if found:
            first.delete()
        tally(row_of(strike), 1, len(complaints) - so_far)
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])


def errors(attachments: Attachments, verb: str, sample: int) -> Iterator[tuple[int, int, str, Strike]]:
    # iptables decides itself what to do if the kernel refuses half of its requests
    for place, number, name in points(attachments, verb, MESSAGE, sample, "plugin"):
        yield place, number, name, Strike("spoil", number, MESSAGE)
        yield place, number, name, Strike("own", number, MESSAGE, NETWORK_ERRORS[number % 3])
    for place, number, name in points(attachments, verb, ON_DISK, sample, "plugin"):
        for error in ON_DISK_ERRORS[number % 3 :: 3] if sample else ON_DISK_ERRORS:
            yield place, number, name, Strike("own", number, ON_DISK, error)


def row_of(strike: Strike) -> int:
    return 10 if strike.classes == ON_DISK else 11


def is_error(answer: Answer) -> bool:
    """Return True if the answer is a foreseen error; stdout itself may be struck."""
    if not answer.stdout:
        return answer.status == 1 and "cannot write the answer" in answer.stderr
    return answer.status == 1 and bool(answer.code) and not json.loads(answer.stdout)["msg"].startswith("unexpected ")


@many
@pytest.mark.row(10, 11)
def test_refused_in_add(attachments: Attachments, sample: int, tally: Tally) -> None:
    """An ADD that fails has left nothing, without any DEL. An ADD that succeeds all the same is whole."""
    before = attachments.state()
    complaints: list[str] = []
    for place, number, name, strike in errors(attachments, "ADD", sample):
        so_far = len(complaints)
        answer = attachments.add(strike, place)
        point = f"{strike.action} {errno.errorcode.get(strike.errno, '')} at {number} ({name}) of {attachments.chain.plugins[place]['type']}"
        if answer.status == 0:
            check = attachments.check()
            complaints += [f"{point}: succeeded, CHECK: {check}"] if check.status else []
            complaints += [f"{point}: {one}" for one in attachments.delete() if one.status]
        elif not is_error(answer) or "could not" in answer.stderr:
            complaints.append(f"{point}: {answer}")
        if len(attachments.chain.plugins) > 1:  # the others have done their part
            attachments.delete()
        now = attachments.state()
        complaints += [f"{point}: {what}" for what in attachments.differences(before, now)]
        if now != before:
            attachments.delete()
        tally(row_of(strike), 1, len(complaints) - so_far)
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])


@many
@pytest.mark.row(10, 11)
def test_refused_in_del(attachments: Attachments, sample: int, tally: Tally) -> None:
    """A DEL that could not do its work says so, and the next one does it. A DEL that succeeds has done it."""
    before = attachments.state()
    complaints: list[str] = []
    for place, number, name, strike in errors(attachments, "DEL", sample):
        so_far = len(complaints)
        attachments.must_add()
        answers = attachments.delete("whole", strike, place)
        point = f"{strike.action} {errno.errorcode.get(strike.errno, '')} at {number} ({name}) of {attachments.chain.plugins[place]['type']}"
        if all(answer.status == 0 for answer in answers):
            complaints += [
                f"{point}: succeeded, {what}" for what in attachments.differences(before, attachments.state())
            ]
        complaints += [f"{point}: {answer}" for answer in answers if answer.status and not is_error(answer)]
        complaints += [f"{point}: then {answer}" for answer in attachments.delete() if answer.status]
        complaints += [f"{point}: then {what}" for what in attachments.differences(before, attachments.state())]
        tally(row_of(strike), 1, len(complaints) - so_far)
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])


@many
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.row(17)
def test_interrupted(attachments: Attachments, verb: str, sample: int, tally: Tally) -> None:
    """Up to four dumps are interrupted, a socket's buffer overruns, signals come: the result is right."""
    before = attachments.state()
    complaints: list[str] = []
    found = [
        (place, Strike("interrupt", times, RECEIVE), f"{times} interrupted dumps")
        for place in range(len(attachments.chain.plugins))
        for times in range(1, 5)
    ]
    found += [
        (place, Strike("own", number, RECEIVE, errno.ENOBUFS), f"ENOBUFS at {number} ({name})")
        for place, number, name in points(attachments, verb, RECEIVE, sample, "plugin")
        if not attachments.chain.is_served  # the kernel has no such error for the stream from the daemon
    ]
    found += [
        (place, Strike("own", number, CAN_BE_INTERRUPTED, errno.EINTR), f"EINTR at {number} ({name})")
        for place, number, name in points(attachments, verb, CAN_BE_INTERRUPTED, sample, "plugin")
    ]
    for place, strike, what in found:
        so_far = len(complaints)
        point = f"{attachments.chain.plugins[place]['type']}: {what}"
        answer = attachments.add(*((strike, place) if verb == "ADD" else ()))
        complaints += [f"{point}: {answer}"] if answer.status else []
        check = attachments.check() if answer.status == 0 else answer
        complaints += [f"{point}: CHECK {check}"] if check.status else []
        answers = attachments.delete("whole", *((strike, place) if verb == "DEL" else ()))
        complaints += [f"{point}: {one}" for one in answers if one.status]
        complaints += [f"{point}: {what}" for what in attachments.differences(before, attachments.state())]
        tally(17, 1, len(complaints) - so_far)
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])
