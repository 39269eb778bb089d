"""Print cnitool's completion for bash and its manual page, from the declarations of the command line."""

from __future__ import annotations

import argparse

import shtab
from argparse_manpage.manpage import Manpage

from shared.cli.commands import PURPOSE, parser


def run(options: argparse.Namespace) -> int:
    """Print the completion or the manual page. Return 0."""
    print({"completion": completion, "manual": manual}[options.command.name]())
    return 0


def completion() -> str:
    """Return the completion script for bash."""
    return str(shtab.complete(parser(), shell="bash"))  # noqa: S604  (the name of a language)


def manual() -> str:
    """Return the manual page in man(7)'s format."""
    page = Manpage(parser())
    page.manual = "pycni"
    page.description = PURPOSE
    return str(page)
