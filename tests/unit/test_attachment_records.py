"""Records of attachments whose names together are one text."""

from __future__ import annotations

from pathlib import Path

from shared.cni import record
from shared.cni.call import Call
from shared.net import attachment_records


def call(container_id: str, ifname: str) -> Call:
    names = {"COMMAND": "DEL", "CONTAINERID": container_id, "IFNAME": ifname, "PATH": "/bin"}
    made = Call({f"CNI_{name}": value for name, value in names.items()})
    made.network = "net"
    return made


def test_two_attachments_have_a_record_each(tmp_path: Path) -> None:
    """In any order of DELs; the first one has the reference's name."""
    directory = str(tmp_path)
    one, other = call("a_b", "c"), call("a", "b_c")

    def path(of: Call) -> str:
        return attachment_records.path(directory, of)

    def add(of: Call) -> None:
        record.write(path(of), {"of": of.ifname, **attachment_records.marks(of, "1:2:3")})

    for first, second in ((one, other), (other, one)):
        add(first)
        assert Path(path(first)).name == "a_b_c.json"
        add(second)
        assert [record.read(path(of))["of"] for of in (first, second)] == [first.ifname, second.ifname]
        record.remove(path(first))
        assert record.read(path(second))["of"] == second.ifname and record.read(path(first)) == {}
        record.remove(path(second))
        assert not list(tmp_path.iterdir())


def test_a_record_of_the_reference_is_used(tmp_path: Path) -> None:
    (tmp_path / "a_eth0.json").write_text("{}")
    assert attachment_records.path(str(tmp_path), call("a", "eth0")) == f"{tmp_path}/a_eth0.json"
