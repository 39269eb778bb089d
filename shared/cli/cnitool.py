"""cnitool: parse the command line and run the command's module.

The operator tools' libraries are looked for only if the command needs them.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from shared.cli.commands import TOOLS, UsageError, parser

NO_TOOLS = "cnitool {}: this command needs {}; install with `./install.sh --with-tools`"


def main(tree: str) -> NoReturn:
    """Run the command line and exit.

    `tree` is the directory of the installation's code; the tools' libraries are beside it.
    """
    sys.exit(run(tree))


def run(tree: str, arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status."""
    options = parser().parse_args(arguments)
    command, options.tree = options.command, Path(tree)
    if command.needs_tools or command.may_use_tools:
        _add_tools(options.tree)
    if command.needs_tools:
        missing = [name for name in TOOLS if find_spec(name) is None]
        if missing:
            print(NO_TOOLS.format(command.name, " and ".join(missing)), file=sys.stderr)
            return 2
    try:
        status: int = importlib.import_module(f"shared.cli.{command.module}").run(options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"cnitool {command.name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        sys.stdout = None  # otherwise the flush at exit fails once more
        return 0
    return status


def _add_tools(tree: Path) -> None:
    """Add the private environment's packages for this Python, if there are any."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path.append(str(tree.parent / "tools" / "lib" / version / "site-packages"))
