"""Run an action of `cnitool cluster`."""

from __future__ import annotations

from shared.cli.networks import Options, run_guarded


def run(options: Options) -> int:
    """Run the action of the command line; return its exit status."""
    if options.action == "status":
        from shared.cli.cluster import status

        return status.run(options)
    if options.action == "release":
        from shared.cli.cluster import release

        return release.run(options)
    if options.action == "pool" and options.pool_action != "show":
        from shared.cli.cluster import pool

        return run_guarded(options, pool.set_pool if options.pool_action == "set" else pool.reserve)
    if options.action == "explain":
        from shared.cli.cluster import explain

        return run_guarded(options, explain.explain)
    if options.action == "clean":
        from shared.cli.cluster import clean

        return run_guarded(options, clean.clean)
    from shared.cli.cluster import tables

    return run_guarded(options, {"blocks": tables.blocks, "peers": tables.peers, "pool": tables.pools}[options.action])
