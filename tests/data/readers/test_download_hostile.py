"""Tests of readers/download.py against answers, names and archives that are hostile."""

import gzip
import io
import zipfile

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.download import File
from tests.data.helpers import with_size
from tests.data.readers.failing_server import CONTENT, MD5, fetch, file_of


def test_an_answer_of_another_part_is_not_appended(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(CONTENT[:500_000])
    file = file_of(server, "other-range")
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert [start for _, start in server.asked] == [500_000, 0]


@pytest.mark.parametrize("name", ["x.json.gz", "x.zip", "x.txt"])
def test_an_empty_answer_is_no_file(server, tmp_path, name):
    (tmp_path / name).write_bytes(b"")  # such as an earlier version accepted
    with pytest.raises(InputError, match="the answer was empty"):
        fetch(file_of(server, "empty", md5=None, name=name), tmp_path)
    server.content = gzip.compress(b"")
    if name == "x.json.gz":
        with pytest.raises(InputError, match="it unpacks to nothing"):
            fetch(file_of(server, "whole", md5=None, name=name), tmp_path)


@pytest.mark.parametrize(
    "name", ["../x.zip", "a/x.zip", "/x.zip", "..", "", "a\\x", "a\nb", "\0", "x" * 300]
)
def test_a_name_is_no_path(server, tmp_path, name):
    (tmp_path / "in").mkdir()
    file = File(name, (f"{server.url}/whole/x.zip",), MD5)
    with pytest.raises(InputError, match="is not the name of a file"):
        fetch(file, tmp_path / "in")
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]
    assert server.asked == []


@pytest.mark.parametrize("kind", ["size", "path", "gzip"])
def test_an_archive_has_bounds(server, tmp_path, kind):
    packed, name = io.BytesIO(), "x.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../member" if kind == "path" else "member", CONTENT)
    server.content = packed.getvalue()
    message = "leads out of the folder"
    if kind == "size":
        server.content = with_size(server.content, (2 << 30) + 1)
        message = "more than the 2147483648 that are allowed"
    elif kind == "gzip":
        server.content, name = gzip.compress(bytes(70 << 20), 1), "x.gz"
        message = "unpacks to more than 200 times its size"
    with pytest.raises(InputError, match=message):
        fetch(file_of(server, "whole", md5=None, name=name), tmp_path)
    assert list(tmp_path.iterdir()) == []
