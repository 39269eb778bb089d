"""Attach a container to a network: execute a list's plugins, each with the previous result."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.cni.versions import SUPPORTED
from shared.runtime.attachment import Attachment, environment_of
from shared.runtime.conflist import OLDEST_VERSION, NetworkConfigList
from shared.runtime.find import PluginNotFound, find
from shared.runtime.presence import expect_new

Result = dict[str, Any]

TIME_LIMIT = 60.0  # seconds for one plugin
BUSY_LIMIT = 5.0  # seconds to wait while another process writes the executable
BUSY_PAUSE = 0.05  # seconds; the kernel has no event for "no longer written"

# Error codes of the specification that a runtime itself can raise.
INCOMPATIBLE_VERSION = 1
DECODING_FAILURE = 6
INTERNAL_ERROR = 999
UNKNOWN_VERSION = "unknown CNI_COMMAND: VERSION"  # the answer of plugins that are older than VERSION


class PluginError(Exception):
    """A plugin reported an error, crashed, was too slow, is missing, or printed no valid result."""

    def __init__(self, plugin: str, verb: str, code: int, msg: str, details: str = "") -> None:
        self.plugin, self.verb, self.code, self.msg, self.details = plugin, verb, code, msg, details
        super().__init__(f"{plugin} {verb}: {msg}{f': {details}' if details else ''} (code {code})")


def add(
    network: NetworkConfigList,
    attachment: Attachment,
    bin_dirs: Sequence[Path | str],
    *,
    limit: float = TIME_LIMIT,
    keep_failed: bool = False,
) -> Result:
    """Execute ADD of every plugin in order; return the last result. Raise the first PluginError.

    All plugins are looked up before the first is executed. After a failure, every plugin that was tried, the failing
    one included, gets a DEL, in reverse order; errors of these are added to the error as notes. That DEL must not reach
    another ADD's attachment: raise AttachmentExists, before any plugin is executed, if the interface exists. With
    `keep_failed`, skip this check and the DELs: the caller does both.
    """
    for plugin in network.plugins:
        _executable(plugin, "ADD", bin_dirs)
    if not keep_failed:
        expect_new(network.name, attachment)
    result: Result | None = None
    for position, plugin in enumerate(network.plugins):
        try:
            result = _call(network, plugin, "ADD", attachment, bin_dirs, result, limit)
        except BaseException as error:
            if not keep_failed:
                for tried in reversed(network.plugins[: position + 1]):
                    try:
                        _call(network, tried, "DEL", attachment, bin_dirs, result, limit)
                    except PluginError as another:
                        error.add_note(f"then, cleaning up: {another}")
            raise
    return result or {}


def check(
    network: NetworkConfigList,
    attachment: Attachment,
    bin_dirs: Sequence[Path | str],
    prev_result: Result,
    *,
    limit: float = TIME_LIMIT,
) -> bool:
    """Execute CHECK of every plugin in order against ADD's result. Raise the first PluginError.

    Return False, and execute nothing, if the network has no CHECK: cniVersion below 0.4.0, or disableCheck.
    """
    if network.disable_check or not network.supports("0.4.0"):
        return False
    for plugin in network.plugins:
        _call(network, plugin, "CHECK", attachment, bin_dirs, prev_result, limit)
    return True


def delete(
    network: NetworkConfigList,
    attachment: Attachment,
    bin_dirs: Sequence[Path | str],
    prev_result: Result | None = None,
    *,
    limit: float = TIME_LIMIT,
    before_each: Callable[[], object] = lambda: None,
) -> None:
    """Execute DEL of every plugin in reverse. Raise the first PluginError, and stop there.

    To continue could let a later plugin release an address to which an earlier one's rules still lead. DEL can be
    repeated at any time. An exception of `before_each()` stops it, too.
    """
    for plugin in reversed(network.plugins):
        before_each()
        _call(network, plugin, "DEL", attachment, bin_dirs, prev_result, limit)


def gc(
    network: NetworkConfigList,
    plugin: Mapping[str, Any],
    valid: Iterable[tuple[str, str]],
    bin_dirs: Sequence[Path | str],
    *,
    limit: float = TIME_LIMIT,
) -> None:
    """Execute GC of one plugin: it removes all attachments but the `valid`. Raise PluginError.

    `valid` has (container id, ifname).
    """
    executable = _executable(plugin, "GC", bin_dirs)
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(valid)]
    message = {key: value for key, value in plugin.items() if key != "capabilities"}
    message |= {"name": network.name, "cniVersion": network.cni_version}
    # The specification's name for it, and the one that it had in libcni at first.
    message |= {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}
    execute(executable, "GC", message, environment_of("GC", bin_dirs), limit)


def status(network: NetworkConfigList, bin_dirs: Sequence[Path | str], *, limit: float = TIME_LIMIT) -> None:
    """Execute STATUS of every plugin in order; before 1.1.0 only check that the plugins exist.

    Raise the first PluginError: a plugin is missing, or could not serve an ADD now.
    """
    executables = [_executable(plugin, "STATUS", bin_dirs) for plugin in network.plugins]
    if network.supports("1.1.0"):
        for plugin, executable in zip(network.plugins, executables, strict=True):
            message = {key: value for key, value in plugin.items() if key != "capabilities"}
            message |= {"name": network.name, "cniVersion": network.cni_version}
            execute(executable, "STATUS", message, environment_of("STATUS", bin_dirs), limit)


def versions(plugin_type: str, bin_dirs: Sequence[Path | str], *, limit: float = TIME_LIMIT) -> tuple[str, ...]:
    """Return the specification versions that a plugin supports; 0.1.0 if it is older than VERSION.

    Raise PluginError.
    """
    executable = _executable({"type": plugin_type}, "VERSION", bin_dirs)
    # Old plugins require all variables for any command.
    environment = environment_of("VERSION", bin_dirs) | dict.fromkeys(
        ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"), "dummy"
    )
    try:
        stdout = execute(executable, "VERSION", {"cniVersion": SUPPORTED[-1]}, environment, limit)
    except PluginError as error:
        if error.msg == UNKNOWN_VERSION:
            return (OLDEST_VERSION,)
        raise
    answer = _object(stdout)
    supported = (answer or {}).get("supportedVersions")
    if supported is None and answer is not None and answer.get("cniVersion") == "0.2.0":
        return ("0.1.0", "0.2.0")  # version 0.2.0 had VERSION, but not the list
    if not isinstance(supported, list) or not all(isinstance(version, str) for version in supported):
        raise PluginError(plugin_type, "VERSION", DECODING_FAILURE, "no list of supportedVersions", _text(stdout))
    return tuple(supported)


def request(
    network: NetworkConfigList, plugin: Mapping[str, Any], attachment: Attachment, prev_result: Result | None
) -> dict[str, Any]:
    """Return a plugin's input: its own keys, and the keys that the runtime adds."""
    wanted = plugin.get("capabilities")
    capabilities = wanted if isinstance(wanted, dict) else {}
    supplied = {key: value for key, value in attachment.capability_args.items() if capabilities.get(key) is True}
    message = {key: value for key, value in plugin.items() if key != "capabilities"}
    message |= {"name": network.name, "cniVersion": network.cni_version}
    if supplied:
        message["runtimeConfig"] = supplied
    if prev_result is not None:
        message["prevResult"] = prev_result
    return message


def execute(executable: Path, verb: str, message: Mapping[str, Any], env: Mapping[str, str], limit: float) -> bytes:
    """Run one plugin and return its stdout. Raise PluginError.

    `env` is added to this process's environment. After `limit` seconds the plugin's whole process group is killed.
    """
    name = executable.name
    try:
        process = _start(executable, {**os.environ, **env})
    except OSError as error:
        raise PluginError(name, verb, INTERNAL_ERROR, f"cannot execute {executable}", str(error.strerror)) from error
    with process:
        try:
            stdout, stderr = process.communicate(json.dumps(message).encode(), limit)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise PluginError(name, verb, INTERNAL_ERROR, f"killed: no answer within {limit:g} s") from None
            raise
    if process.returncode:
        raise _failure(name, verb, process.returncode, stdout, stderr)
    return stdout


def _call(
    network: NetworkConfigList,
    plugin: Mapping[str, Any],
    verb: str,
    attachment: Attachment,
    bin_dirs: Sequence[Path | str],
    prev_result: Result | None,
    limit: float,
) -> Result:
    """Execute one plugin of the list. Return its result for ADD, else an empty one."""
    executable = _executable(plugin, verb, bin_dirs)
    message = request(network, plugin, attachment, prev_result)
    stdout = execute(executable, verb, message, attachment.environment(verb, bin_dirs), limit)
    if verb != "ADD":
        return {}
    result = _object(stdout)
    if result is None:
        raise PluginError(executable.name, verb, DECODING_FAILURE, "the result is not a JSON object", _text(stdout))
    # Plugins of the first specifications leave the version out; the next plugin and DEL need it.
    result["cniVersion"] = result.get("cniVersion") or network.cni_version
    return result


def _executable(plugin: Mapping[str, Any], verb: str, bin_dirs: Sequence[Path | str]) -> Path:
    try:
        return find(plugin["type"], bin_dirs)
    except (PluginNotFound, ValueError) as error:
        raise PluginError(plugin["type"], verb, INTERNAL_ERROR, str(error)) from error


def _start(executable: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a plugin in its own process group; wait while its file is still being written (ETXTBSY)."""
    deadline = time.monotonic() + BUSY_LIMIT
    while True:
        try:
            return subprocess.Popen(
                [executable],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY or time.monotonic() > deadline:
                raise
        time.sleep(BUSY_PAUSE)


def _failure(plugin: str, verb: str, status: int, stdout: bytes, stderr: bytes) -> PluginError:
    """Return the error that a plugin printed, or one made from its exit status and output."""
    reported = _object(stdout)
    if reported is not None and isinstance(reported.get("code"), int):
        msg, details = (str(reported.get(key) or "") for key in ("msg", "details"))
        return PluginError(plugin, verb, reported["code"], msg, details)
    ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return PluginError(plugin, verb, INTERNAL_ERROR, ended, _text(stderr) or _text(stdout) or "no message")


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
