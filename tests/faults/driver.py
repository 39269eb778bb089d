"""The driver inside the pretend host, alone with the standard library: it executes many calls, some at the same time.

It reads {"at_once": N, "limit": SECONDS, "calls": [...]} from stdin and prints a list of answers in the same order;
batch.py is the other end.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SHOWN = 20_000


def execute(call: dict[str, Any], pod: str, limit: float, command: str = "") -> dict[str, Any]:
    """Return one answer. A call that takes longer than `limit` seconds is killed and answers with status None."""
    environment = {
        name.encode(): value.replace("{pod}", pod).encode("utf-8", "surrogateescape")
        for name, value in call["env"].items()
    }
    if command:
        environment[b"CNI_COMMAND"] = command.encode()
    stdin = b"".join(base64.b64decode(part) * count for part, count in call["stdin"])
    argv = [call["executable"]]
    if call["redirect"]:
        argv = ["/bin/sh", "-c", f'exec "$0" {call["redirect"]}', *argv]
    start = time.monotonic()
    process = subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    )
    status: int | None
    try:
        if call["signal"]:
            number, seconds = call["signal"]
            try:
                out, err = process.communicate(stdin, timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                out, err = process.communicate(timeout=limit)
        else:
            out, err = process.communicate(stdin, timeout=limit)
        status = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        status = None
    return {
        "status": status,
        "stdout": out.decode("utf-8", "backslashreplace")[:SHOWN],
        "stderr": err.decode("utf-8", "backslashreplace")[:SHOWN],
        "seconds": time.monotonic() - start,
        "seen": {path: sorted(os.listdir(path)) if os.path.isdir(path) else [] for path in call["observe"]},
    }


def main() -> None:
    job = json.load(sys.stdin)
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(job["at_once"]):
        slots.put(slot)

    def one(call: dict[str, Any]) -> dict[str, Any]:
        slot = slots.get()
        try:
            pod = f"/run/netns/pod{slot}"
            answer = execute(call, pod, job["limit"])
            if call["undo"] and answer["status"] == 0:
                execute({**call, "redirect": ""}, pod, job["limit"], "DEL")
            return answer
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(job["at_once"]) as pool:
        json.dump(list(pool.map(one, job["calls"])), sys.stdout)


if __name__ == "__main__":
    main()
