"""Run an ADD, and a DEL on request, in a throw-away copy of the node, and record every step.

The runtime's own code runs the list. Plugins of this installation serve their call in this process; others are
executed.
"""

from __future__ import annotations

import importlib
import json
import os
import posix
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared.cli import throwaway
from shared.cli.explain import changes as state
from shared.cli.explain import filetap, mirror, story, wiretap
from shared.cli.explain.recorder import Recorder, wrap
from shared.cli.explain.story import EXAMPLE_LEASE
from shared.cni import execute, plugin, suite, turn
from shared.cni.errors import CniError
from shared.cni.versions import CURRENT
from shared.dhcp import channel
from shared.executables import PLUGINS
from shared.net import taps
from shared.net.netns import open_netns
from shared.runtime import attach
from shared.runtime.attach import PluginError
from shared.runtime.attachment import Attachment
from shared.runtime.conflist import parse

TREE = Path(__file__).resolve().parents[3]
FUNCTIONS = ("add", "delete")
STREAMS = (0, 1)
LEASE = {
    "ips": [{"address": EXAMPLE_LEASE, "gateway": "192.0.2.1"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}],
}
SYSTEM_BUS = "DBUS_SYSTEM_BUS_ADDRESS"  # names a daemon outside: the usual path is hidden with /run


def main() -> None:
    """Read the task from standard input and print the answer, both as JSON."""
    task = json.load(sys.stdin)
    try:
        throwaway.expect_own(task["outside"])
        answer = rehearse(task)
    except throwaway.Failure as failure:
        answer = {"failure": str(failure)}
    json.dump(answer, sys.stdout, default=_plain)


def _plain(value: Any) -> Any:
    """Return a JSON value for bytes (hexadecimal) and sets (sorted lists)."""
    if isinstance(value, frozenset):
        return sorted(value)
    return value.hex(" ") if isinstance(value, bytes) else str(value)


def rehearse(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the calls, their steps with a `text` each, the result, and the error if there was one."""
    network = parse(task["network"])
    os.environ.pop(SYSTEM_BUS, None)
    posix.environ.pop(SYSTEM_BUS.encode(), None)
    directories = mirror.hide_files(network, [TREE, *map(Path, task["bin_dirs"])])
    mirror.recreate(task["node"])
    with suppress(OSError):  # calls go on without it
        posix.close(turn.open_or_create())  # the node has it since its first call, so that it is none of the steps
    attachment = Attachment(**task["attachment"])
    throwaway.new_netns(Path(attachment.netns))
    pod = open_netns(attachment.netns)
    host, inside = (os.fstat(descriptor).st_ino for descriptor in (pod.home, pod.descriptor))
    recorder = Recorder(host, inside, lambda: state.observe(pod, directories))
    _listen(recorder)
    answer: dict[str, Any] = {"result": None, "error": None}
    try:
        answer["result"] = attach.add(network, attachment, task["bin_dirs"])
        if task["delete"]:
            attach.delete(network, attachment, task["bin_dirs"], answer["result"])
    except PluginError as error:
        facts = {"plugin": error.plugin, "command": error.verb, "code": error.code, "msg": error.msg}
        answer["error"] = {**facts, "details": error.details, "notes": getattr(error, "__notes__", [])}
    story.describe(recorder.steps)
    return {"calls": recorder.calls, "steps": recorder.steps, **answer}


def _listen(recorder: Recorder) -> None:
    """Record every call of a plugin, by the runtime or by another plugin."""
    suite.plugins = PLUGINS
    for name, module in PLUGINS.items():
        for function in FUNCTIONS:
            wrap(importlib.import_module(module), function, _recording(recorder, name))
    recorder.install()
    wiretap.install(recorder)
    filetap.install(recorder)

    def executed(real: Callable[..., bytes], path: str, call: Any, command: str) -> bytes:
        with recorder.call(path.rpartition("/")[2], command, executed=True):
            return real(path, call, command)

    wrap(execute, "execute", executed)

    def run(real: Callable[..., bytes], executable: Path, verb: str, message: Mapping[str, Any], *rest: Any) -> bytes:
        own = _own_plugin(executable)
        with recorder.call(own or executable.name, verb, executed=not own):
            if own:
                return _serve(own, verb, message, *rest)
            with recorder.differences():
                return real(executable, verb, message, *rest)

    wrap(attach, "execute", run)

    _record_others(recorder)


def _record_others(recorder: Recorder) -> None:
    """Record leases, which a daemon gives, and taps, which no message creates."""

    def ask(_real: Callable[..., Any], path: str, request: Mapping[str, Any], **_limits: Any) -> dict[str, Any]:
        """Answer as a dhcp daemon that no rehearsal can reach."""
        recorder.record("host", "dhcp", path=path, operation=request["op"])
        return {"cniVersion": CURRENT, **LEASE} if request["op"] == "acquire" else {}

    wrap(channel, "ask", ask)

    def create(real: Callable[..., None], name: str, **keys: Any) -> None:
        """Record a tap, which no message creates, before its attributes."""
        facts = {key: keys[key] for key in ("multi_queue", "owner", "group")}
        step = recorder.record(recorder.place(), "tap", name=name, **facts)
        try:
            real(name, **keys)
        except CniError:
            recorder.steps.remove(step)
            raise

    wrap(taps, "create", create)


def _recording(recorder: Recorder, name: str) -> Callable[..., Any]:
    """Return a wrapper for a plugin's function that records a call by another plugin as a call of its own."""

    def record(real: Callable[..., Any], call: Any, *rest: Any) -> Any:
        if recorder.plugin == name:
            return real(call, *rest)
        with recorder.call(name, call.command, executed=False):
            return real(call, *rest)

    return record


def _own_plugin(executable: Path) -> str:
    """Return the name of this installation's plugin that an executable starts, empty if it is another's.

    The executable may have another name than the plugin.
    """
    tree, plugin = suite.launched(str(executable)) or ("", "")
    if plugin not in PLUGINS or Path(tree).resolve() != TREE:
        return ""
    suite.tree = tree  # by this a plugin finds the plugins that it calls
    return plugin


def _serve(name: str, verb: str, message: Mapping[str, Any], env: Mapping[str, str], _limit: float) -> bytes:
    """Return the plugin's answer to a call, as its executable would give it. Raise PluginError."""
    posix.environ.update({os.fsencode(key): os.fsencode(value) for key, value in env.items()})
    with _standard_streams(json.dumps(message).encode()) as output:
        status = plugin.serve(PLUGINS[name])
        answer = os.pread(output, os.fstat(output).st_size, 0)
    if status:
        error = json.loads(answer)
        raise PluginError(name, verb, error["code"], error["msg"], error.get("details", ""))
    return answer


@contextmanager
def _standard_streams(given: bytes) -> Iterator[int]:
    """Replace standard input by the given bytes, and standard output by a file; yield that file's descriptor."""
    saved = [os.dup(stream) for stream in STREAMS]
    files = [os.memfd_create(f"stream {stream}") for stream in STREAMS]
    os.write(files[0], given)
    os.lseek(files[0], 0, os.SEEK_SET)
    try:
        for file, stream in zip(files, STREAMS, strict=True):
            os.dup2(file, stream)
        yield files[1]
    finally:
        for file, stream, before in zip(files, STREAMS, saved, strict=True):
            os.dup2(before, stream)
            os.close(before)
            os.close(file)
