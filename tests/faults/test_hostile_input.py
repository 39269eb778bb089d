"""Row 8: for any stdin and environment, the answer is a success or one CNI error object, and nothing is touched."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import batch, hostile_calls, hostile_documents, hostile_keys
from tests.faults.batch import Call, Outcome
from tests.faults.hostile_cases import CHANGING, EVERY, Case
from tests.kernel.features import has
from tests.plugins import SAMPLES, links
from tests.pretend import PATIENCE, PretendHost

CODES = {*range(1, 9), 11, 50, 51, 999}
SECONDS = 3.0 * PATIENCE  # one second, on a machine that may be busy with something else
HALF = 0.5
LONGEST_ERROR = 16_384  # bytes: a long path may be told twice, but megabytes are nobody's to read
BOOKKEEPING = ("/lock", "/last_reserved_ip.0", "/last_reserved_ip.1", "/boot")  # files that host-local keeps for good
MAKE_HOSTILE_PATHS = """
mkdir /run/hostile
cd /run/hostile
: >file
mkfifo fifo
ln -s loop loop
ln -s /proc/1/ns/net own
exec "$0" -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
"""


@pytest.mark.slow
@pytest.mark.row(8, 19)
@pytest.mark.parametrize("plugin", EVERY)
def test_every_case_is_answered_and_touches_nothing(
    request: pytest.FixtureRequest, host: PretendHost, plugin: str
) -> None:
    """Half of the cases, at random, or all with --faults."""
    every = (*hostile_documents.cases(), *hostile_keys.cases(), *hostile_calls.cases())
    table = [case for case in every if case.call.plugin == plugin]
    assert len(table) > 200
    if not request.config.getoption("--faults"):
        table = [case for case in table if random.random() < HALF]
    batch.make_pods(host, 2)
    host.run("sh", "-c", MAKE_HOSTILE_PATHS, sys.executable)
    sample = SAMPLES[plugin]
    host.run("sh", "-ec", links([sample]))
    fails = plugin in CHANGING or sample.is_served or not has(sample.needs)
    for pod in () if fails else (0, 1):  # the things that stay for good exist before: the bridge, addresses of lo
        call = Call(plugin, "ADD", EVERY[plugin], {"CNI_NETNS": f"/run/netns/pod{pod}"}, undo=True)
        [answer] = batch.run(host, [call])
        assert answer.status == 0, answer
    before = _state(host)

    at_once = 1 if plugin == "host-device" else 2  # one device cannot be in two pods
    outcomes = batch.run(host, [case.call for case in table], at_once=at_once)

    complaints = [
        f"{case.name}: {what}"
        for case, answer in zip(table, outcomes, strict=True)
        for what in _wrong(_without_success(case) if fails else case, answer)
    ]
    after = _state(host)
    complaints += [f"host changed: {key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
    assert not complaints, f"{len(complaints)} complaints about {len(table)} cases:\n" + "\n".join(complaints[:150])


def _state(host: PretendHost) -> dict[str, Any]:
    state = host.snapshot(["pod0", "pod1"])
    state["files"] = {name: text for name, text in state["files"].items() if not name.endswith(BOOKKEEPING)}
    state["processes"] = host.run("sh", "-c", "for p in /proc/[0-9]*; do cat $p/comm; done").stdout.split()
    return state


def _wrong(case: Case, answer: Outcome) -> Iterator[str]:
    """Yield the flaws of one answer."""
    said = f"status {answer.status}, stdout {answer.stdout[:300]!r}, stderr {answer.stderr[:300]!r}"
    if answer.seconds > SECONDS:
        yield f"took {answer.seconds:.1f} s"
    if "Traceback" in answer.stdout + answer.stderr:
        yield f"traceback: {said}"
    if case.mute:
        if answer.stdout or answer.status not in ((0, 1) if case.may_succeed else (1,)):
            yield f"not as a call that cannot answer: {said}"
    elif answer.status == 0:
        if not case.may_succeed or not _is_success(case, answer):
            yield f"succeeded, or seems to: {said}"
    elif answer.status == 1:
        yield from (f"{what}: {said}" for what in _wrong_in_error(case, answer))
    else:
        yield f"neither 0 nor 1: {said}"


def _without_success(case: Case) -> Case:
    """Return the case on a kernel that lacks what the plugin needs: an ADD that may succeed fails."""
    return replace(case, codes=tuple(CODES)) if case.may_succeed and case.call.command == "ADD" else case


def _is_success(case: Case, answer: Outcome) -> bool:
    if case.call.command not in ("ADD", "VERSION"):
        return not answer.stdout
    try:
        return isinstance(answer.json["cniVersion"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _wrong_in_error(case: Case, answer: Outcome) -> Iterator[str]:
    try:
        error = answer.json
        code, msg, details = error["code"], error["msg"], error.get("details", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        yield "not one error object"
        return
    if not set(error) <= {"cniVersion", "code", "msg", "details"} or not isinstance(error.get("cniVersion"), str):
        yield "other members than an error's"
    if not isinstance(code, int) or code not in (case.codes or CODES) or (case.may_succeed and not case.codes):
        yield f"code {code}, not {case.codes or 'success'}"
    if not isinstance(msg, str) or not msg or msg.startswith("unexpected "):
        yield "not foreseen"
    if len(answer.stdout) > LONGEST_ERROR:
        yield f"{len(answer.stdout)} bytes"
    text = "".join(f"{msg} {details}".split())
    yield from (f"does not say {needle}" for needle in case.says if "".join(needle.split()) not in text)
