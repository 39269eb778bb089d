"""Row 8: the parser, fuzzed by what it executes; a sample here, more with --faults."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.chains import CHAINS
from tests.faults.hostile_cases import EVERY, FULL
from tests.pretend import TREE

CORPUS = Path(__file__).with_name("corpus")
DICTIONARY = ("NaN", "\\u", "1e9", "null", "true", "{", "[", ":", "10.8.0.0/24", "fd00::/64", "02:00:00:00:00:01", "-1")


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.version_info >= (3, 14), reason="no wheel of atheris")
@pytest.mark.slow
@pytest.mark.row(8)
@pytest.mark.parametrize("runs", [20_000, pytest.param(300_000, marks=pytest.mark.faults)])
def test_the_parser(tmp_path: Path, runs: int) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(CORPUS, corpus)
    seeds = [FULL, *EVERY.values(), *(keys for chain in CHAINS.values() for keys in chain.plugins)]
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_text(json.dumps({"cniVersion": "1.1.0", "name": "net", **seed}))
    words = tmp_path / "words"
    words.write_text("".join(f"{json.dumps(word)}\n" for word in DICTIONARY))
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.faults.fuzz", corpus, f"-runs={runs}", "-max_len=2000", f"-dict={words}", "-timeout=10",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=TREE, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    found = [path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
    assert done.returncode == 0 and not found, f"{found}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
