"""The engine on Debian 13's etcd 3.5: the contract, and the tests of users, leases, watches and members."""

from __future__ import annotations

import subprocess

import pytest

from tests import systems
from tests.system.test_cluster_etcd import (  # noqa: F401 - pytest collects the tests, and the fixtures for them
    TestPlain,
    TestSecure,
    plain,
    relay,
    running_plain,
    running_secure,
    secure,
    test_a_new_token_after_a_restart,
    test_a_new_token_when_the_old_one_is_refused,
    test_a_restored_backup,
    test_a_sign_of_life_that_is_refused,
    test_a_watch_goes_on_where_it_ended,
    test_compaction_under_a_watch,
    test_keys_and_leases,
    test_large_values,
    test_pages,
    test_refusals,
    test_three_members,
)


@pytest.fixture(scope="module")
def etcd_program() -> str:
    """Return the etcd of the other system; it runs on this one."""
    return str(systems.root("trixie") / "usr/bin/etcd")


def test_version(etcd_program: str) -> None:
    said = subprocess.run([etcd_program, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("etcd Version: 3.5.")
