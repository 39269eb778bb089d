"""Kubernetes credentials: kubeconfigs, ServiceAccounts, and the YAML that they are in."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cluster.kube_access import Access, Source, from_kubeconfig, in_cluster
from shared.cluster.plain_yaml import Unreadable, parse

KUBECONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443", "certificate-authority": "pki/ca.crt"}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u"}},
        {"name": "two", "context": {"cluster": "c", "user": "v"}},
    ],
    "users": [
        {"name": "u", "user": {"token": "secret"}},
        {"name": "v", "user": {"tokenFile": "token"}},
    ],
}
# As kubectl and kubeadm write it, with their comments, quotes and empty collections.
TEXT = """\
# made by an installer
apiVersion: v1
clusters:
- cluster:
    certificate-authority: pki/ca.crt
    server: https://192.0.2.1:6443   # the first control plane
  name: "c"
contexts:
- context: {"cluster": "c", "user": "u"}
  name: one

-
  context:
      cluster: 'c'
      user: v
  name: two
current-context: one
kind: Config
preferences: {}
users:
  - name: u
    user:
      token: secret
      extensions:
  - name: v
    user: {"tokenFile": "token"}
"""


def written(directory: Path, cluster: Mapping[str, Any], user: Mapping[str, Any], **more: Any) -> Path:
    """Write a kubeconfig as JSON, with keys changed."""
    document = json.loads(json.dumps(KUBECONFIG))
    document["clusters"][0]["cluster"].update(cluster)
    document["users"][0]["user"].update(user)
    document |= more
    path = directory / "config"
    path.write_text(json.dumps(document))
    return path


def test_yaml_and_json_are_one_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "yaml").write_text(TEXT)
    expected = Access("https://192.0.2.1:6443", ca=Source(tmp_path / "pki" / "ca.crt"), token=Source(data=b"secret"))
    assert from_kubeconfig(tmp_path / "yaml") == from_kubeconfig(written(tmp_path, {}, {})) == expected
    assert expected.headers() == {"Authorization": "Bearer secret"} and "secret" not in repr(expected)
    other = from_kubeconfig(tmp_path / "yaml", context="two", server="https://[2001:db8::1]")
    assert other.token == Source(tmp_path / "token") and other.server == "https://[2001:db8::1]"


def test_data_win_over_files(tmp_path: Path) -> None:
    user = {f"client-{name}-data": b64encode(name.encode()).decode() for name in ("certificate", "key")}
    cluster = {"certificate-authority-data": b64encode(b"ca").decode(), "tls-server-name": "kubernetes"}
    access = from_kubeconfig(written(tmp_path, cluster, {"token": None, "client-key": "unused", **user}))
    assert (access.ca, access.certificate, access.key) == (
        Source(data=b"ca"),
        Source(data=b"certificate"),
        Source(data=b"key"),
    )
    assert access.headers() == {} and access.tls().server_name == "kubernetes"


@pytest.mark.parametrize(
    ("cluster", "user", "more", "message"),
    [
        ({"insecure-skip-tls-verify": True}, {}, {}, "insecure-skip-tls-verify is true: .* set certificate-authority"),
        ({"proxy-url": "http://192.0.2.9"}, {}, {}, "proxy-url is not supported"),
        ({"server": "http://192.0.2.1"}, {}, {}, "http is for loopback addresses alone"),
        ({"server": "ftp://192.0.2.1"}, {}, {}, "is not https://HOST"),
        ({"server": 1}, {}, {}, "server must be a string"),
        ({"certificate-authority-data": "%"}, {}, {}, "certificate-authority-data is not base64"),
        ({}, {"exec": {"command": "aws"}}, {}, "users: exec is not supported"),
        ({}, {"username": "admin", "password": "secret"}, {}, "users: username is not supported"),
        ({}, {"client-key": "key"}, {}, "belong together"),
        ({}, {"token": 5}, {}, "token must be a string"),
        ({}, {}, {"current-context": "three"}, "contexts has no entry 'three'"),
        ({}, {}, {"current-context": ""}, "current-context is not set"),
        ({}, {}, {"users": None}, "users has no entry 'u'"),
        ({}, {}, {"clusters": ["c"]}, "clusters has no entry 'c'"),
    ],
)
def test_a_kubeconfig_is_refused_with_its_name(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, cluster, user, **more)
    with pytest.raises(ValueError, match=f"kubeconfig {path}: .*{message}") as raised:
        from_kubeconfig(path)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"clusters: &a\n", r"line 1 \('clusters'\) has a value .* kubectl config view"),
        (b"token: top secret: yes\n", r"line 1 \('token'\)"),
        (b"{", "invalid JSON"),
        (b"\xff", "is not UTF-8"),
        (b"- a\n", "a mapping with clusters"),
        (b"", "a mapping with clusters"),
    ],
)
def test_an_unreadable_kubeconfig_tells_how_to_make_it_readable(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        from_kubeconfig(path)
    assert "secret" not in str(raised.value)


def test_a_missing_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kubeconfig .*/config: No such file"):
        from_kubeconfig(tmp_path / "config")


def test_a_pod_has_an_account(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "2001:db8::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ValueError, match=r"ca\.crt is missing"):
        in_cluster(directory=tmp_path, environment=environment)
    (tmp_path / "ca.crt").touch()
    (tmp_path / "token").write_text("first\n")
    access = in_cluster(directory=tmp_path, environment=environment)
    assert access.server == "https://[2001:db8::1]:443"
    assert access.headers() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second")
    assert access.headers() == {"Authorization": "Bearer second"}
    assert in_cluster("https://192.0.2.1", directory=tmp_path, environment={}).server == "https://192.0.2.1"
    with pytest.raises(ValueError, match="this is no pod"):
        in_cluster(directory=tmp_path, environment={})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: -2\nc: '3'\nd: 04\ne: 1.5\n", {"a": 1, "b": -2, "c": "3", "d": "04", "e": "1.5"}),
        ("a: true\nb: ~\nc:\nd: null\n", {"a": True, "b": None, "c": None, "d": None}),
        ("a: it''s\nb: 'it''s'\nc: \"it's\\n\"\n", {"a": "it''s", "b": "it's", "c": "it's\n"}),
        ("a: x # why\nb: x#y\nc: 'x # y' # why\n", {"a": "x", "b": "x#y", "c": "x # y"}),
        ("---\n\"a b\": https://[::1]:2\n'c': d:e\n", {"a b": "https://[::1]:2", "c": "d:e"}),
        ("a:\n- b\n-   c: d\n    e: f\n- - g\n  - h\n", {"a": ["b", {"c": "d", "e": "f"}, ["g", "h"]]}),
        ("a: |\n  # kept\n    more\n\n  end\n\nb: |-\n  one\n", {"a": "# kept\n  more\n\nend\n", "b": "one"}),
        ("plain", "plain"),
        ("", None),
    ],
)
def test_yaml(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "a: 1\n  b: 2\n",
        "a:\n    b: 1\n  c: 2\n",
        "a: b\nplain\n",
        "a: 'b\n  c'\n",
        "a: 'b' c\n",
        "a: {} b\n",
        "a: {b: c}\n",
        "a: [b]\n",
        "a: >-\n  b\n",
        "a: *b\n",
        "a: !!binary b\n",
        "a: b: c\n",
        "a: b\n---\na: c\n",
        "? a\n",
        "a: b\n\tc: d\n",
    ],
)
def test_yaml_beyond_the_reader_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match=r"^line \d"):
        parse(text)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab-:# '", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def block_style(value: Any, indent: int = 0) -> str:
    """Write YAML in block style, scalars as JSON."""
    margin = " " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{margin}{json.dumps(key)}:{_after(one, indent + 2)}" for key, one in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{margin}-{_after(one, indent + 2)}" for one in value)
    return f"{margin}{json.dumps(value)}\n"


def _after(value: Any, indent: int) -> str:
    return f"\n{block_style(value, indent)}" if isinstance(value, list | dict) and value else f" {json.dumps(value)}\n"


@given(documents)
def test_each_document_in_block_style_is_read(document: Any) -> None:
    assert parse(block_style(document)) == document


@given(st.text("ab:- \n'\"#|{[&", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Unreadable):
        parse(text)


@pytest.mark.parametrize("server", ["https://root:secret@192.0.2.1", "https://root:secret@", "ftp://root:secret@x"])
def test_a_password_in_a_url_is_refused_and_not_told(server: str) -> None:
    with pytest.raises(ValueError, match="is not https") as caught:
        Access(server)
    assert "secret" not in str(caught.value)
