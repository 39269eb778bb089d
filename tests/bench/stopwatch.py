"""The stopwatch inside a pretend host, alone with the standard library: it executes calls and measures their cost.

Each line of stdin is a job, each line of stdout its answer, in JSON. It is the parent of every plugin that it times,
from just before posix_spawn until wait4 has returned. A job's calls begin at once; the time ends with the last of them.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
from typing import Any

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
PR_SET_CHILD_SUBREAPER = 36
Json = dict[str, Any]

libc = ctypes.CDLL(None, use_errno=True)


def libc_call(name: str, *arguments: Any) -> None:
    """Call a C library function. Raise OSError if it answers anything but 0."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def make_netns(path: str) -> None:
    """Make a network namespace as a runtime does, lo down."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc_call("unshare", CLONE_NEWNET)
    try:
        libc_call("mount", b"/proc/self/ns/net", path.encode(), None, MS_BIND, None)
    finally:
        libc_call("setns", here, CLONE_NEWNET)
        os.close(here)


def memory_file(content: bytes = b"") -> int:
    descriptor = os.memfd_create("bench")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def read_all(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb") as file:
        return file.read().decode(errors="replace")


def execute(calls: list[Json], settle: float) -> Json:
    """Execute calls at once. Return the time in ms until the last has ended, and their answers."""
    streams = [[memory_file(call["stdin"].encode()), memory_file(), memory_file()] for call in calls]
    actions = [[(os.POSIX_SPAWN_DUP2, own, number) for number, own in enumerate(files)] for files in streams]
    time.sleep(settle)
    pids, statuses = [], {}
    start = time.perf_counter_ns()
    for call, action in zip(calls, actions, strict=True):
        argv = call["argv"]
        pids.append(os.posix_spawn(argv[0], argv, call["env"], file_actions=action, setsigdef=[signal.SIGPIPE]))
    for _ in calls:
        pid, status, _ = os.wait4(-1, 0)
        statuses[pid] = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter_ns() - start
    answers = []
    for pid, (stdin, stdout, stderr) in zip(pids, streams, strict=True):
        os.close(stdin)
        answers.append({"status": statuses[pid], "stdout": read_all(stdout), "stderr": read_all(stderr)})
    return {"wall": wall / 1e6, "answers": answers}


def measure_peak(call: Json) -> Json:
    """Execute one call. Return the peak memory in MiB of its largest process, and its answer.

    ru_maxrss of a spawned process counts its parent's pages too, because until exec it lives in the parent's memory.
    So a shell of about 1 MiB forks the plugin and ends, and the plugin falls to this process, a subreaper.
    """
    stdin, stdout, stderr = memory_file(call["stdin"].encode()), memory_file(), memory_file()
    # a shell gives its background jobs /dev/null as stdin
    actions = [(os.POSIX_SPAWN_DUP2, own, number) for number, own in enumerate((stdin, stdout, stderr, stdin))]
    libc_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    argv = ["/bin/sh", "-c", '"$0" "$@" <&3 3<&- &', *call["argv"]]
    shell = os.posix_spawn(argv[0], argv, call["env"], file_actions=actions, setsigdef=[signal.SIGPIPE])
    os.waitpid(shell, 0)
    peak, status = 0, 0
    while True:  # children that outlive the plugin fall to this process, too
        try:
            _, ended, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        status = status or os.waitstatus_to_exitcode(ended)
        peak = max(peak, usage.ru_maxrss)
    libc_call("prctl", PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    os.close(stdin)
    return {
        "peak": peak / 1024,
        "answers": [{"status": status, "stdout": read_all(stdout), "stderr": read_all(stderr)}],
    }


def main() -> None:
    gc.disable()  # no collection in the middle of a call
    for line in sys.stdin:
        job = json.loads(line)
        if "netns" in job:
            make_netns(job["netns"])
            answer: Json = {}
        elif "peak" in job:
            answer = measure_peak(job["peak"])
        else:
            answer = execute(job["calls"], job["settle"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
