"""Leave out tests of the tools, and of the tree, where the tools cannot run.

Python 3.9 and 3.10 have the executables alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.pythons import OLDEST_OF_TOOLS

TOOLS = re.compile(r"^ *(from|import) (shared\.(cli|runtime|build|cluster)|tests\.mutants|ast|tomllib)\b", re.MULTILINE)
collect_ignore = (
    [path.name for path in Path(__file__).parent.glob("test_*.py") if TOOLS.search(path.read_text())]
    if sys.version_info < OLDEST_OF_TOOLS
    else []
)
