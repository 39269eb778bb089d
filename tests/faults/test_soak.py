"""Row 20: workers attach, check, detach and lose pods of the sample chain, a quarter of the calls killed, against a model."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest

from tests.faults.chains import CHAINS, Attachments
from tests.faults.plugin import Tally
from tests.faults.state import state
from tests.pretend import PATH, PretendHost

SOAK = str(Path(__file__).with_name("soak.py"))
SECONDS = float(os.environ.get("FAULTS_SOAK") or 10)
WORKERS = 2 * min(4, os.cpu_count() or 1)


@pytest.mark.slow
@pytest.mark.row(20)
def test_soak(host: PretendHost, tally: Tally) -> None:
    chain = CHAINS["sample chain"]
    Attachments(host, chain, Path()).warm_up()
    before = state(host, ["kept"])
    seed = random.randrange(1 << 32)
    job = {
        "seconds": SECONDS, "workers": WORKERS, "seed": seed, "bin_dir": host.bin_dir, "path": PATH,
        "chain": list(chain.plugins),
    }  # fmt: skip
    done = json.loads(host.run(sys.executable, "-I", "-S", SOAK, input=json.dumps(job), timeout=SECONDS + 300).stdout)
    left = [f"left: {line}" for line in sorted(state(host, ["kept"]) - before)]
    lost = [f"lost: {line}" for line in sorted(before - state(host, ["kept"]))]
    complaints = [*done["violations"], *left, *lost]
    tally(20, sum(done["calls"].values()), len(complaints))
    assert not complaints, f"seed {seed}, {done['calls']}, {len(complaints)} complaints:\n" + "\n".join(complaints[:60])
    assert done["killed"] > 0 and done["calls"]["GC"] > 0
