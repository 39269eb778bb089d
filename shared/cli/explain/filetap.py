"""Record the calls of `posix` that change files, including sysctls, and the processes that are started."""

from __future__ import annotations

import os
import posix
import time
from collections.abc import Callable
from typing import Any

from shared import libc
from shared.cli.explain.changes import State, Step
from shared.cli.explain.recorder import Recorder, wrap

SYSCTLS = "/proc/sys/"
CONTENT_LIMIT = 4096  # bytes of a file that are recorded
HARMLESS = ("setns", "prctl")  # functions of libc that change nothing of the host


def install(recorder: Recorder) -> None:
    """Record until the process ends. `os` keeps its own references to these calls, which are not recorded."""
    tap = Filetap(recorder)
    for name in ("open", "write", "close", "link", "fork", "waitpid"):
        setattr(posix, name, getattr(tap, name))
    for name, facts in CHANGES.items():
        setattr(posix, name, tap.changing(name, facts))
    wrap(libc, "call", tap.libc_call)


class WrittenFile:
    """A file that is open for writing.

    `mode` is empty if it existed before; `step` is the recorded step, if there is one.
    """

    def __init__(self, path: str, mode: str, *, has_no_name: bool) -> None:
        self.path = path
        self.mode = mode
        self.has_no_name = has_no_name
        self.content = b""
        self.step: Step | None = None

    @property
    def text(self) -> str:
        """Return the written text, cut at CONTENT_LIMIT."""
        return self.content[:CONTENT_LIMIT].decode(errors="backslashreplace")


class Filetap:
    """Stand-ins for the calls of `posix`: do the same and record it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.files: dict[int, WrittenFile] = {}
        self.children: dict[int, State] = {}
        self.real: dict[str, Callable[..., Any]] = {
            name: value for name, value in vars(posix).items() if callable(value)
        }

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Record a file that is created or emptied now, and one that is only opened at its first write."""
        full = _full(path, dir_fd)
        has_no_name = flags & posix.O_TMPFILE == posix.O_TMPFILE
        is_new = has_no_name or not os.path.lexists(full)
        descriptor: int = self.real["open"](path, flags, mode, dir_fd=dir_fd)
        self.files.pop(descriptor, None)
        if flags & (posix.O_WRONLY | posix.O_RDWR):
            file = WrittenFile(full, f"{mode:04o}" if is_new else "", has_no_name=has_no_name)
            self.files[descriptor] = file
            if not has_no_name and (is_new or flags & posix.O_TRUNC):
                self._record(file)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """Record a sysctl's value, or more of a file's content."""
        file = self.files.get(descriptor)
        if file is not None and file.path.startswith(SYSCTLS):
            return self._write_sysctl(descriptor, data, file.path.removeprefix(SYSCTLS))
        length: int = self.real["write"](descriptor, data)
        if file is not None:
            file.content += bytes(data)[:length]
            if file.step is not None:
                file.step["content"] = file.text
            elif not file.has_no_name:
                self._record(file)
        return length

    def _write_sysctl(self, descriptor: int, data: Any, name: str) -> int:
        with open(SYSCTLS + name, encoding="utf-8") as file:
            before = file.read().strip()
        length: int = self.real["write"](descriptor, data)
        value = bytes(data).decode().strip()
        self.recorder.record(self.recorder.place(), "sysctl", name=name, value=value, before=before)
        return length

    def close(self, descriptor: int) -> None:
        """Drop the descriptor: its number may be reused for another file."""
        self.files.pop(descriptor, None)
        self.real["close"](descriptor)

    def link(self, source: Any, target: Any, **how: Any) -> None:
        """Record a link; if its source had no name until now (O_TMPFILE), record a new file."""
        full, other = _full(target, how.get("dst_dir_fd")), _full(source, how.get("src_dir_fd"))
        self.real["link"](source, target, **how)
        descriptor = other.removeprefix("/proc/self/fd/")
        file = self.files.get(int(descriptor)) if descriptor.isdecimal() else None
        if file is None or not file.has_no_name:
            self.recorder.record("files", "link", path=full, target=other)
            return
        file.path, file.has_no_name = full, False
        self._record(file)

    def _record(self, file: WrittenFile) -> None:
        if not file.path.startswith(SYSCTLS):
            file.step = self.recorder.record("files", "file", path=file.path, mode=file.mode, content=file.text)

    def changing(self, name: str, facts: Callable[..., Step]) -> Callable[..., Any]:
        """Return a stand-in for another call that changes files; `facts` returns the step's data from its arguments."""

        def change(*arguments: Any, **how: Any) -> Any:
            step = facts(*arguments, **how)  # Before the call: the data may be read from the file that it deletes.
            answer = self.real[name](*arguments, **how)
            self.recorder.record("files", name, **step)
            return answer

        return change

    def fork(self) -> int:
        """Observe the state before the child starts; waitpid records the child's changes."""
        before = self.recorder.observe()
        child: int = self.real["fork"]()
        if child:
            self.children[child] = before
        return child

    def waitpid(self, process: int, options: int) -> tuple[int, int]:
        """Record the changes of a child that has ended."""
        answer: tuple[int, int] = self.real["waitpid"](process, options)
        before = self.children.pop(answer[0], None)
        if before is not None:
            self.recorder.note(before)
        return answer

    def libc_call(self, real: Callable[..., int], function: str, *arguments: int) -> int:
        """Record a libc function by its name, unless it is harmless."""
        answer = real(function, *arguments)
        if function not in HARMLESS:
            self.recorder.record(self.recorder.place(), function, arguments=list(arguments))
        return answer


def _full(path: Any, directory: int | None = None) -> str:
    """Return the absolute path of a path or of a file descriptor."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    base = os.getcwd() if directory is None else os.readlink(f"/proc/self/fd/{directory}")
    return os.path.normpath(os.path.join(base, os.fsdecode(path)))


def _one_path(path: Any, *rest: Any, dir_fd: int | None = None, **how: Any) -> Step:
    others = {name: value for name, value in how.items() if value is not None}
    return {"path": _full(path, dir_fd), **({"arguments": [*rest, *others.items()]} if rest or others else {})}


def _made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> Step:
    return {"path": _full(path, dir_fd), "mode": f"{mode:04o}"}


def _symbolic_link(target: Any, path: Any, *_rest: Any, dir_fd: int | None = None) -> Step:
    return {"path": _full(path, dir_fd), "target": os.fsdecode(target)}


def _moved(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> Step:
    return {"path": _full(source, src_dir_fd), "target": _full(target, dst_dir_fd)}


def _dated(path: Any, times: Any = None, *, ns: Any = None, dir_fd: int | None = None, **_how: Any) -> Step:
    modified = ns[1] / 1e9 if ns else times[1] if times else time.time()
    return {"path": _full(path, dir_fd), "modified": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(modified))}


CHANGES: dict[str, Callable[..., Step]] = {
    "mkdir": _made,
    "mkfifo": _made,
    "symlink": _symbolic_link,
    "rename": _moved,
    "replace": _moved,
    "utime": _dated,
    **dict.fromkeys(("unlink", "remove", "rmdir", "mknod", "truncate", "ftruncate"), _one_path),
    **dict.fromkeys(("chmod", "fchmod", "chown", "fchown", "lchown", "setxattr", "removexattr"), _one_path),
}
