"""cnitool's completion for bash and its manual page, made from the declarations of the command line."""

from __future__ import annotations

import argparse

import shtab
from argparse_manpage.manpage import Manpage

from shared.cli.commands import PURPOSE, parser


def run(options: argparse.Namespace) -> int:
    """Prints one of the two; the exit status."""
    print({"completion": completion, "manual": manual}[options.command.name]())
    return 0


def completion() -> str:
    """What bash reads to complete cnitool's commands and options."""
    return str(shtab.complete(parser(), shell="bash"))  # noqa: S604  (the name of a language)


def manual() -> str:
    """The manual page, as man(7) reads it."""
    page = Manpage(parser())
    page.manual = "pycni"
    page.description = PURPOSE
    return str(page)
