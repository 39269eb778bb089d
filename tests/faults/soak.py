"""The soak inside the pretend host, alone with the standard library: workers attach, check, detach and lose pods.

It reads {"seconds", "workers", "seed", "bin_dir", "chain"} from stdin and prints {"calls", "killed", "violations"};
test_soak.py is the other end. A model follows the pods. A worker has namespaces of its own; each attachment has a
container id that is used once.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

SLOTS = 3  # namespaces of a worker
KILLED = 0.25  # of the ADDs and DELs
LONGEST = 0.08  # seconds until the kill; about as long as the longest call
LIMIT = 120  # seconds for one call
LAST_TRIES = 3  # at the end, since a call may have no answer
AHEAD = 20  # container ids that a worker may have begun to use by the time that GC comes to them
NETWORK = "net"
NO_ANSWER = "the worker of pycni-agent ended without an answer"  # it was killed, like the calls in KILLED
ABSENT, WHOLE, UNKNOWN = "absent", "whole", "unknown"
Json = dict[str, Any]


class Model:
    """The workers' common knowledge: the owner of each address, the living attachments, the violations."""

    def __init__(self, workers: int) -> None:
        self.lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.killed = 0
        self.violations: list[str] = []
        self.addresses: dict[str, str] = {}
        self.alive: set[str] = set()
        self.counters = [0] * workers

    def complain(self, text: str) -> None:
        with self.lock:
            if NO_ANSWER in text:
                self.calls["no answer"] += 1
            else:
                self.violations.append(text[:1000])

    def take(self, container_id: str, result: Json) -> None:
        """Record the addresses of a new attachment; no other may have them."""
        with self.lock:
            for ip in result["ips"]:
                other = self.addresses.get(ip["address"])
                if other is not None:
                    self.violations.append(f"{ip['address']} is given to {container_id} and to {other}")
                self.addresses[ip["address"]] = container_id

    def forget(self, container_id: str) -> None:
        """Forget an attachment's addresses before a DEL or a loss: another may get them from now on."""
        with self.lock:
            self.addresses = {address: one for address, one in self.addresses.items() if one != container_id}

    def valid(self) -> list[Json]:
        """Return GC's list: the living attachments, and those that may come to life while it runs."""
        with self.lock:
            coming = [f"w{n}-{last + ahead}" for n, last in enumerate(self.counters) for ahead in range(1, AHEAD)]
            return [{"containerID": one, "ifname": "eth0"} for one in ["kept", *self.alive, *coming]]


class Slot:
    """One namespace and its attachment, if it has one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = ABSENT
        self.container_id = ""
        self.result: Json = {}
        self.keys: list[Json] = []


class Worker(threading.Thread):
    """A worker that does one random thing after the other."""

    def __init__(self, number: int, job: Json, model: Model, end: float) -> None:
        super().__init__()
        self.number = number
        self.job = job
        self.model = model
        self.end = end
        self.random = random.Random(f"{job['seed']} {number}")
        self.slots = [Slot(f"w{number}s{place}") for place in range(SLOTS)]

    def run(self) -> None:
        try:
            for slot in self.slots:
                command("ip", "netns", "add", slot.name)
            while time.monotonic() < self.end:
                self.step(self.random.choice(self.slots))
            for slot in self.slots * LAST_TRIES:
                self.delete(slot, may_kill=False)
        except Exception as error:  # noqa: BLE001  (told by the model)
            self.model.complain(f"worker {self.number}: {type(error).__name__}: {error}")

    def step(self, slot: Slot) -> None:
        choice = self.random.random()
        if choice < 0.05:
            self.collect()
        elif slot.state == ABSENT:
            self.add(slot)
        elif slot.state == UNKNOWN or choice < 0.55:
            if choice > 0.5:
                self.lose(slot)
            else:
                self.delete(slot)
        else:
            self.check(slot)

    def add(self, slot: Slot) -> None:
        with self.model.lock:
            self.model.counters[self.number] += 1
            count = self.model.counters[self.number]
            slot.container_id = f"w{self.number}-{count}"
            self.model.alive.add(slot.container_id)
        slot.keys = [self._with_own(keys, count) for keys in self.job["chain"]]
        slot.state = UNKNOWN
        struck = self.random.randrange(len(slot.keys)) if self.random.random() < KILLED else -1
        slot.result = {}
        for place, keys in enumerate(slot.keys):
            status, said = self.call(slot, "ADD", keys, kill=place == struck)
            if status != 0:
                if place != struck:
                    self.model.complain(f"ADD of {keys['type']} for {slot.container_id}: {status} {said}")
                return
            slot.result = json.loads(said)
        slot.state = WHOLE
        self.model.take(slot.container_id, slot.result)

    def _with_own(self, keys: Json, count: int) -> Json:
        """Return keys with a MAC and a host port of the pod's own."""
        if "mac" in keys:
            return {**keys, "mac": f"02:00:00:{self.number:02x}:{count >> 8 & 255:02x}:{count & 255:02x}"}
        if keys["type"] != "portmap":
            return keys
        port = 10000 + self.number * 5000 + count % 5000
        return {**keys, "runtimeConfig": {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]}}

    def check(self, slot: Slot) -> None:
        for keys in slot.keys:
            status, said = self.call(slot, "CHECK", keys)
            if status:
                self.model.complain(f"CHECK of {keys['type']} for {slot.container_id}: {status} {said}")

    def delete(self, slot: Slot, *, may_kill: bool = True) -> None:
        if slot.state == ABSENT:
            return
        self.model.forget(slot.container_id)
        kill = may_kill and self.random.random() < KILLED
        struck = self.random.randrange(len(slot.keys)) if kill else -1
        slot.state = UNKNOWN
        for place, keys in reversed(list(enumerate(slot.keys))):
            status, said = self.call(slot, "DEL", keys, kill=place == struck)
            if status:
                if place != struck:
                    self.model.complain(f"DEL of {keys['type']} for {slot.container_id}: {status} {said}")
                return
        slot.state = ABSENT
        with self.model.lock:
            self.model.alive.discard(slot.container_id)

    def lose(self, slot: Slot) -> None:
        """Lose the pod, and its runtime's memory of it: only GC can clean up."""
        command("ip", "netns", "del", slot.name)
        command("ip", "netns", "add", slot.name)
        self.model.forget(slot.container_id)
        slot.state = ABSENT
        with self.model.lock:
            self.model.calls["lost"] += 1
            self.model.alive.discard(slot.container_id)

    def collect(self) -> None:
        valid = self.model.valid()
        for keys in self.job["chain"]:
            status, said = self.call(Slot(""), "GC", {**keys, "cni.dev/valid-attachments": valid})
            if status:
                self.model.complain(f"GC of {keys['type']}: {status} {said}")

    def call(self, slot: Slot, verb: str, keys: Json, *, kill: bool = False) -> tuple[int, str]:
        config = {"cniVersion": "1.1.0", "name": NETWORK, **keys}
        if verb in ("ADD", "CHECK") and slot.result:
            config["prevResult"] = slot.result
        environment = {"PATH": self.job["path"], "CNI_COMMAND": verb, "CNI_PATH": self.job["bin_dir"]}
        if slot.name:
            environment |= {
                "CNI_CONTAINERID": slot.container_id, "CNI_NETNS": f"/run/netns/{slot.name}", "CNI_IFNAME": "eth0",
            }  # fmt: skip
        with subprocess.Popen(
            [f"{self.job['bin_dir']}/{keys['type']}"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(
                    json.dumps(config), timeout=self.random.random() * LONGEST if kill else LIMIT
                )
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
                with self.model.lock:
                    self.model.killed += kill
        with self.model.lock:
            self.model.calls[verb] += 1
        return process.returncode, said


def command(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def main() -> None:
    job = json.load(sys.stdin)
    model = Model(job["workers"])
    end = time.monotonic() + job["seconds"]
    workers = [Worker(number, job, model, end) for number in range(job["workers"])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for _ in range(0 if model.violations else LAST_TRIES):
        workers[0].collect()
    json.dump({"calls": model.calls, "killed": model.killed, "violations": model.violations}, sys.stdout)


if __name__ == "__main__":
    main()
