"""Row 20: workers attach, check, detach and lose pods of the sample chain, a quarter of the calls killed, against a model."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chains import CHAINS, Attachments
from tests.faults.plugin import Tally
from tests.faults.state import state
from tests.pretend import PATH, PretendHost

SOAK = str(Path(__file__).with_name("soak.py"))
SECONDS = float(os.environ.get("FAULTS_SOAK") or 10)
WORKERS = 2 * min(4, os.cpu_count() or 1)
OUTCOME = "run/soak"


class Soak:
    """A soak that runs on a host."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        chain = CHAINS["sample chain"]
        Attachments(host, chain, Path()).warm_up()
        self.before = state(host, ["kept"])
        self.seed = random.randrange(1 << 32)
        job = {
            "seconds": SECONDS, "workers": WORKERS, "seed": self.seed, "bin_dir": host.bin_dir, "path": PATH,
            "chain": list(chain.plugins),
        }  # fmt: skip
        with (host.root / OUTCOME).open("wb") as outcome:
            self.process = host.popen(sys.executable, "-I", "-S", SOAK, stdout=outcome, stderr=outcome)
        assert self.process.stdin
        self.process.stdin.write(json.dumps(job).encode())
        self.process.stdin.close()

    def finish(self, tally: Tally, *rows: int) -> Any:
        """Wait until the soak ends. Fail with its violations, and the differences that it left."""
        status = self.process.wait(SECONDS + 300)
        said = (self.host.root / OUTCOME).read_text()
        assert status == 0, said
        done = json.loads(said)
        after = state(self.host, ["kept"])
        left = [f"left: {line}" for line in sorted(after - self.before)]
        lost = [f"lost: {line}" for line in sorted(self.before - after)]
        complaints = [*done["violations"], *left, *lost]
        for row in rows:
            tally(row, sum(done["calls"].values()), len(complaints))
        found = "\n".join(complaints[:60])
        assert not complaints, f"seed {self.seed}, {done['calls']}, {len(complaints)} complaints:\n{found}"
        assert done["killed"] > 0 and done["calls"]["GC"] > 0
        return done


@pytest.mark.slow
@pytest.mark.row(20)
def test_soak(host: PretendHost, tally: Tally) -> None:
    Soak(host).finish(tally, 20)
