"""The mutants of all areas; a new one stands in the file of its area."""

from __future__ import annotations

from tests.mutants import (
    agent,
    cli,
    cluster,
    cluster_console,
    cluster_duty,
    cluster_hosts,
    cni,
    duties,
    encryption,
    etcd,
    ipam,
    kernel,
    kubernetes,
    launcher,
    plugins,
    routing,
    rules,
    runtime,
)

TABLE = (
    *plugins.TABLE, *kernel.TABLE, *rules.TABLE, *ipam.TABLE, *cni.TABLE, *runtime.TABLE, *cli.TABLE, *launcher.TABLE,
    *routing.TABLE, *agent.TABLE, *duties.TABLE, *kubernetes.TABLE, *etcd.TABLE, *cluster.TABLE, *cluster_console.TABLE,
    *cluster_duty.TABLE, *cluster_hosts.TABLE, *encryption.TABLE,
)  # fmt: skip
