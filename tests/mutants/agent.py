"""Mistakes in shared/agent: whom a worker serves, and the moments at which a process ends."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/agent/callers.py", "        if found.places[name] != place:\n            raise Refused(PLACES[name])\n", "        pass\n",
        "a worker serves callers in its own place alone", "tests/agent/test_worker.py -k elsewhere",
    ),
    Mutant(
        "shared/agent/callers.py", "if own.capabilities & ~found.capabilities:", "if False:",
        "a worker lends nobody its capabilities", "tests/agent/test_worker.py -k elsewhere",
    ),
    Mutant(
        "shared/agent/callers.py", '    if user != 0:\n        raise Refused("not root")\n', "",
        "a worker serves root alone", "tests/agent/test_worker.py -k another_user",
    ),
    Mutant(
        "shared/agent/worker.py", "        if received:  # they travel with GO, and not before\n            raise callers.Refused(UNREADABLE)\n", "",
        "a worker keeps no descriptor of a caller that it declined", "tests/agent/test_worker.py -k hostile",
    ),
    Mutant(
        "shared/agent/worker.py", "        posix.environ.clear()\n", "",
        "the agent's environment is not the call's", "tests/agent/test_worker.py -k no_state",
    ),
    Mutant(
        "shared/agent/worker.py", "        posix.umask(umask)\n", "",
        "a call has its launcher's umask", "tests/agent/test_worker.py -k descriptors_and_place",
    ),
    Mutant(
        "shared/agent/worker.py", "        handover.close_others(connection.fileno(), self.reports)\n", "",
        "the pod's namespace is not in use after the call", "tests/agent/test_worker.py -k in_use",
    ),
    Mutant(
        "shared/agent/worker.py", "    fcntl.fcntl(descriptor, fcntl.F_SETFL, posix.O_RDWR | fcntl.FASYNC)\n", "",
        "a killed launcher's ADD is undone", "tests/agent/test_worker.py -k death_of_the_launcher",
    ),
    Mutant(
        "shared/agent/worker.py", "        signal.signal(DISMISSAL, self._note_dismissal)\n", "",
        "a call in progress outlives the server", "tests/agent/test_server.py -k outlive",
    ),
    Mutant(
        "shared/agent/worker.py", '        libc.call("prctl", PR_SET_PDEATHSIG, DISMISSAL, 0, 0, 0)\n', "",
        "idle workers end with the server", "tests/agent/test_server.py -k outlive",
    ),
    Mutant(
        "shared/agent/crew.py", "        if state in (WARMING, IDLE) and self.wanted:\n            self.pause.lengthen()\n", "",
        "workers that fail are forked with pauses", "tests/agent/test_server.py -k with_pauses",
    ),
    Mutant(
        "shared/agent/crew.py", "        return BUSY in self.workers.values()", "        return False",
        "no worker is forked beside a call", "tests/agent/test_server.py -k beside_a_call",
    ),
    Mutant(
        "shared/agent/server.py", "            place.sweep()\n", "",
        "a killed agent's sockets are replaced", "tests/agent/test_server.py -k killed_agent",
    ),
    Mutant(
        "shared/agent/pages.py", "            libc.advise(ranges, MADV_POPULATE_WRITE)\n", "",
        "a warm call has few page faults", "tests/agent/test_worker.py -k page_faults",
    ),
)  # fmt: skip
