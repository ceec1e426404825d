"""Tests of readers/download.py against a server on loopback that fails."""

import gzip
import io
import threading
import zipfile

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.download import File
from tests.data.readers.failing_server import CONTENT, MD5, fetch, file_of


@pytest.mark.parametrize(
    "kinds",
    [
        ("whole",),
        ("cut",),
        ("cut-and-forget",),
        ("redirect",),
        ("slow",),
        ("missing", "whole"),
        ("broken", "whole"),
        ("wrong", "whole"),
        ("wrong", "missing", "broken", "cut"),
        ("empty", "whole"),
        ("no-length",),
        ("half-without-length", "whole"),
        ("bad-chunks", "whole"),
        ("garbage", "whole"),
        ("redirect-away", "whole"),
    ],
)
def test_the_file_arrives_whole(server, tmp_path, kinds):
    reports = []
    report = lambda done, total: reports.append((done, total))  # noqa: E731
    path = fetch(file_of(server, *kinds), tmp_path / "new" / "folder", report)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["x.zip"]
    assert reports[-1][0] == len(CONTENT)
    assert reports[-1][1] == (0 if kinds == ("no-length",) else len(CONTENT))


def test_a_cut_transfer_goes_on_where_it_ended(server, tmp_path):
    fetch(file_of(server, "cut"), tmp_path)
    starts = [start for _, start in server.asked]
    assert starts[0] == 0 and starts == sorted(set(starts)) and len(starts) > 2


def test_what_an_earlier_run_left_is_completed(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(CONTENT[:500_000])
    assert fetch(file_of(server, "resumable"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/resumable/x.zip", 500_000)]


def test_a_complete_part_is_only_checked(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(CONTENT)
    assert fetch(file_of(server, "full-range"), tmp_path).read_bytes() == CONTENT


def test_a_part_of_another_file_is_fetched_again(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(b"z" * 500_000)
    assert fetch(file_of(server, "resumable"), tmp_path).read_bytes() == CONTENT


def test_what_is_there_is_not_fetched(server, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"mine")
    assert fetch(file_of(server, "whole"), tmp_path).read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("missing",), "404"),
        (("broken",), "500"),
        (("wrong",), "its checksum does not match"),
        (("empty",), "the answer was empty"),
        (("half-without-length",), "its checksum does not match"),
        (("bad-chunks",), "(cut|chunk|invalid|checksum)"),
        (("garbage",), "no HTTP at all"),
        (("redirect-away",), "file"),
        (("missing", "wrong"), "404.*its checksum does not match"),
    ],
)
def test_no_address_gives_it(server, tmp_path, kinds, message):
    with pytest.raises(InputError, match=message) as caught:
        fetch(file_of(server, *kinds), tmp_path)
    assert f"put the file at {tmp_path / 'x.zip'} by hand" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.zip").exists()


def test_offline(tmp_path):
    file = File("x.zip", ("http://127.0.0.1:9/x.zip",), MD5)
    with pytest.raises(InputError, match="check the connection, or put the file at"):
        fetch(file, tmp_path)


def test_a_published_checksum_is_asked_for(server, tmp_path):
    server.digests["whole"] = "0" * 32
    with pytest.raises(InputError, match="checksum"):
        fetch(file_of(server, "whole", md5=None), tmp_path)
    server.digests["whole"] = MD5
    assert fetch(file_of(server, "whole", md5=None), tmp_path).exists()


@pytest.mark.parametrize("name", ["x.zip", "x.json.gz"])
def test_without_any_checksum_the_archive_has_to_be_whole(server, tmp_path, name):
    with pytest.raises(InputError, match="it is damaged, or not such an archive"):
        fetch(file_of(server, "whole", md5=None, name=name), tmp_path)
    if name.endswith(".gz"):
        server.content = gzip.compress(CONTENT)
    else:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("member", CONTENT)
        server.content = packed.getvalue()
    path = fetch(file_of(server, "whole", md5=None, name=name), tmp_path)
    assert path.read_bytes() == server.content


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written .*set `data_dir`"):
        fetch(file_of(server, "whole"), tmp_path / "file")


def test_two_at_once_fetch_once(server, tmp_path):
    file, paths = file_of(server, "slow"), []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(file, tmp_path)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [CONTENT] * 3
    assert len(server.asked) == 1
