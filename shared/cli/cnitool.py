"""cnitool: from the command line to the command's module; the tools' libraries are looked for only where they serve."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from shared.cli.commands import TOOLS, UsageError, parser

NO_TOOLS = "cnitool {}: this command needs {}, which `./install.sh --with-tools` installs"


def main(tree: str) -> NoReturn:
    """Runs the command line; `tree` is the installation's code, beside which the tools' libraries are."""
    sys.exit(run(tree))


def run(tree: str, arguments: list[str] | None = None) -> int:
    """Runs a command; the exit status."""
    options = parser().parse_args(arguments)
    command, options.tree = options.command, Path(tree)
    if command.needs_tools:
        _add_tools(options.tree)
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
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = None  # its flush at exit would fail once more
        return 0
    return status


def _add_tools(tree: Path) -> None:
    """The private environment's packages, those for the Python that runs; none is no error here."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path.append(str(tree.parent / "tools" / "lib" / version / "site-packages"))
