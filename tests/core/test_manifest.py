"""Tests of core/manifest.py: a folder that differs from its manifest is noticed."""

import json

import pytest

from fedpeft_jax.core.manifest import read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "kept"
    (path / "in").mkdir(parents=True)
    (path / "one").write_bytes(b"content")
    (path / "in" / "two").write_bytes(b"more")
    write_manifest(path, {"round": 3, "list": [1, None]})
    return path


def test_the_facts_come_back(folder):
    assert read_manifest(folder) == {"round": 3, "list": [1, None]}


def test_every_flipped_byte_of_a_file_is_noticed(folder):
    for name in ("one", "in/two"):
        content = (folder / name).read_bytes()
        for place in range(len(content)):
            flipped = bytearray(content)
            flipped[place] ^= 1
            (folder / name).write_bytes(flipped)
            with pytest.raises(ValueError, match=f"{name} has another content"):
                read_manifest(folder)
        (folder / name).write_bytes(content)
    read_manifest(folder)


def test_a_flipped_byte_of_the_manifest_changes_no_fact(folder):
    content = (folder / "manifest.json").read_bytes()
    noticed = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (folder / "manifest.json").write_bytes(flipped)
        try:
            assert read_manifest(folder) == {"round": 3, "list": [1, None]}
        except ValueError:
            noticed += 1
    assert noticed > len(content) / 2


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"3", b"{", b"\xff\xfe", b"[" * 100_000,
     b'{"files": 3, "facts": {}, "sha256": ""}',
     b'{"files": {}, "facts": 3, "sha256": ""}'],
)  # fmt: skip
def test_a_manifest_of_another_form(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError):
        read_manifest(folder)


def test_a_changed_fact_is_noticed(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["facts"]["round"] = 4
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json has another content"):
        read_manifest(folder)


def test_files_that_are_gone_or_more(folder):
    (folder / "more").write_text("")
    with pytest.raises(ValueError, match="not those of its manifest"):
        read_manifest(folder)
    (folder / "more").unlink()
    (folder / "one").unlink()
    with pytest.raises(ValueError, match="not those of its manifest"):
        read_manifest(folder)
    (folder / "one").symlink_to(folder / "in" / "two")
    with pytest.raises(ValueError, match="one is a link"):
        read_manifest(folder)
