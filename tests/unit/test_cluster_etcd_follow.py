"""The pace of following etcd."""

from __future__ import annotations

from shared.cluster.etcd_follow import Pace, spread_seconds


def test_large_clusters_take_more_time_for_new_lists() -> None:
    """All nodes list after a compaction: each second brings the same bytes, whatever the number of nodes."""
    pace = Pace(spread=10.0, page_keys=1000)
    assert [spread_seconds(pace, keys) for keys in (0, 999, 1000, 2500, 30_000)] == [10.0, 10.0, 10.0, 25.0, 300.0]
