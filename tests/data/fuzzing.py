"""Bad input, and the check of what is made of it, for the tests that fuzz."""

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import Dataset

USERS, ITEMS = 6, 9
ROWS = [
    (f"u{user}", f"i{(3 * user + step) % ITEMS}", 1_600_000_000 + 60 * step, step % 5)
    for user in range(USERS)
    for step in range(5)
]
HEADER = "user,item,time,rating"
TEXTS = [f"Film {item} about {'love war sea'.split()[item % 3]}" for item in range(9)]


def csv(rows=ROWS):
    return "\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n"


def damaged(rng, content):
    """The bytes with one to three faults: flipped, cut, removed, added or repeated."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(max(len(content), 1)))
        kind = rng.integers(6)
        if kind == 0 and content:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            del content[place : place + int(rng.integers(1, 20))]
        elif kind == 3:
            content[place:place] = rng.bytes(int(rng.integers(1, 20)))
        elif kind == 4:
            content[place:place] = content[: int(rng.integers(1, 200))]
        else:
            content[place : place + 4] = b"\xff" * 4
    return bytes(content)


def right_or_refused(load_it):
    """A data set that is consistent, or None after one error of one line."""
    try:
        data = load_it()
    except InputError as error:
        text = str(error)
        assert "\n" not in text and 10 < len(text) < 1500, text
        return None
    assert isinstance(data, Dataset)
    check(data)
    return data


def check(data):
    """The ids are usable and distinct, and every history is one of distinct items."""
    for ids in (data.user_ids, data.item_ids):
        listed = ids.tolist()
        assert len(set(listed)) == len(listed)
        if ids.dtype.kind == "U":
            assert listed == sorted(listed, key=lambda one: one.encode())
            for one in listed:
                assert one.strip() and not any(ord(c) < 32 for c in one)
                assert one not in ("NULL", "NA", "nan", r"\N", "None")
        else:
            assert ids.dtype == np.int64 and (np.diff(ids) > 0).all()
    assert data.items.counts.min() > 0 and data.items.counts.sum() > 2
    assert data.items.values.min() >= 0 and data.items.values.max() < data.num_items
    for user in range(data.num_users):
        row = data.items.row(user)
        assert len(set(row.tolist())) == len(row)
    if data.times is not None:
        assert np.isfinite(data.times).all() and (data.times >= 0).all()
