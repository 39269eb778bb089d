"""cnitool agent: run the duties, or show the agent's state."""

from __future__ import annotations

from shared.cli.networks import Options


def run(options: Options) -> int:
    """Run the action of the command line; return its exit status."""
    if options.action == "run":
        from shared.cli.agent import duties

        return duties.run(options)
    from shared.cli.agent import status

    return status.run(options)
