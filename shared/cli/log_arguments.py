"""Declare the arguments of `cnitool log`."""

from __future__ import annotations

import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cnitool log`."""
    parser.epilog = """a line: time, verb, plugin, network, container, interface, milliseconds, longest steps, outcome

examples:
  cnitool log --errors --since 2h          failed calls of the last two hours
  cnitool log --container 4f2a --slowest 3 the three slowest calls of a container, by the start of its id
  cnitool log --histogram --verb ADD       the durations of ADDs, for each plugin
  cnitool log --follow --json | jq .       new calls as they happen"""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", nargs="?", metavar="FILE", help="the log (default: the one in /etc/cni/pycni.json)")
    chosen = parser.add_argument_group("filters")
    chosen.add_argument("--network", metavar="NAME", help="calls of this network")
    chosen.add_argument("--container", metavar="ID", help="calls of containers with an id that begins with this")
    chosen.add_argument("--ifname", metavar="NAME", help="calls for the interface of this name")
    chosen.add_argument(
        "--verb", type=str.upper, metavar="VERB", help="calls with this verb: ADD, DEL, CHECK, GC, STATUS or VERSION"
    )
    chosen.add_argument("--plugin", metavar="NAME", help="calls of this plugin")
    chosen.add_argument("--errors", action="store_true", help="failed calls")
    chosen.add_argument(
        "--since",
        metavar="WHEN",
        help="calls since a time (2026-01-31T22:15, or 22:15 today) or of this age: 90s, 15m, 2h, 3d",
    )
    shown = parser.add_argument_group("output").add_mutually_exclusive_group()
    shown.add_argument("--slowest", type=positive, metavar="N", help="only the N slowest, the slowest first")
    shown.add_argument("--histogram", action="store_true", help="a histogram of durations for each verb and plugin")
    shown.add_argument(
        "--follow", action="store_true", help="new calls as they happen; with --since earlier ones first"
    )
    parser.add_argument("--json", action="store_true", help="print the log's own lines, or the histogram as JSON")


def positive(text: str) -> int:
    """Return a number of 1 or more in an argument. Raise ArgumentTypeError."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
