"""Short names for the rows of a comparison, made from the settings that differ."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.embeddings import EMBEDDINGS
from fedpeft_jax.experiment.config import FIELDS

Settings = Mapping[str, Any]

_NAMES = {"lora": "LoRA", "hash": "Hash", "rq": "RQ"}
# The arguments that say how large an embedding is; its label has their values alone.
_SIZES = {
    "lora": ("rank",),
    "hash": ("num_buckets",),
    "rq": ("num_codebooks", "codebook_size"),
}
# They are in the first part of every label, or have words of their own.
_WORDED = ("full", "embedding", "merge_every", "upload", "download")
# Nobody can guess their defaults from a label without them.
_ALWAYS = {"backbone": "{}", "rounds": "{} rounds", "features": "{} features"}


def without_followers(row: Settings) -> dict[str, Any]:
    """Returns settings in which `private_optimizer` is None if it follows.

    By default the private part has the optimizer of the client, so that a row that
    changes the one seems to change both.

    Args:
      row: the settings of a run, as its folder holds them.

    Example:
      >>> without_followers({"client_optimizer": "sgd()", "private_optimizer": "sgd()"})
      {'client_optimizer': 'sgd()', 'private_optimizer': None}
    """
    if "private_optimizer" not in row:
        return dict(row)
    own = row["private_optimizer"]
    follows = own == row.get("client_optimizer")
    return {**row, "private_optimizer": None if follows else own}


def row_labels(rows: Sequence[Settings]) -> list[str]:
    """Returns a short label for every row, which no other row has.

    A label begins with the item embedding. The other settings follow if they differ
    between the rows and do not have their default. A setting whose default depends on
    the embedding follows if it differs between rows of the same kind of embedding.

    Args:
      rows: the settings of each row; no two rows have the same ones.

    Example:
      >>> full = {"full": "trained", "embedding": "none"}
      >>> lora = {"full": "frozen", "embedding": "lora(rank=8)"}
      >>> row_labels([full, {**full, "upload": "int8()"}, lora])
      ['Full', 'Full, up int8', 'LoRA 8']
      >>> row_labels([{**lora, "merge_every": 0}, {**lora, "merge_every": 50}])
      ['LoRA 8, no merges', 'LoRA 8']
    """
    varied = _varied(rows)
    labels = []
    for row in rows:
        kin = _varied([other for other in rows if _kind(other) == _kind(row)])
        words = [_base(row)]
        if lacks_merges(row, rows):
            words.append("no merges")
        elif "merge_every" in kin:
            words.append(f"merges every {row['merge_every']}")
        words += _stages(row, varied)
        for name in varied:
            if name in _WORDED:
                continue
            field = FIELDS.get(name)
            depends = field is not None and field.default is None
            default = None if field is None else field.default
            told = name in kin if depends else row.get(name) != default
            if told or name in _ALWAYS:
                words.append(_word(row, name))
        labels.append(", ".join(words))
    return _distinct(labels, rows)


def family(row: Settings, rows: Sequence[Settings]) -> tuple[str, str]:
    """Returns the family of a row, which a plot shows by its colour, and its variant.

    Args:
      row: the settings of the row.
      rows: the settings of all rows.

    Returns:
      `Full`, `LoRA`, `Hash`, `RQ` or `other`, and `''`, `'without merges'` or
      `'without table'`.

    Example:
      >>> row = {"full": "none", "embedding": "lora"}
      >>> family(row, [row])
      ('LoRA', 'without table')
    """
    full, embedding = row["full"], row["embedding"]
    if full == "trained" and embedding == "none":
        return "Full", ""
    name = _NAMES.get(specs.name_of(embedding))
    if name is None or full == "trained":
        return "other", ""
    if full == "none":
        return name, "without table"
    return name, "without merges" if lacks_merges(row, rows) else ""


def lacks_merges(row: Settings, rows: Sequence[Settings]) -> bool:
    """Returns whether a row has no merges, and others of the same embedding have some.

    Args:
      row: the settings of the row.
      rows: the settings of all rows.

    Example:
      >>> row = {"full": "frozen", "embedding": "lora", "merge_every": 0}
      >>> lacks_merges(row, [row]), lacks_merges(row, [row, {**row, "merge_every": 9}])
      (False, True)
    """
    same = (other for other in rows if _kind(other)[:2] == _kind(row)[:2])
    return not row.get("merge_every") and any(o.get("merge_every") for o in same)


def _kind(row: Settings) -> tuple[str, str, bool]:
    """Returns what the defaults of other settings depend on."""
    merges = bool(row.get("merge_every"))
    return row["full"], specs.name_of(row["embedding"]), merges


def _varied(rows: Sequence[Settings]) -> list[str]:
    """Returns the settings that differ between rows, in their usual order."""
    names = dict.fromkeys([*FIELDS, *(name for row in rows for name in row)])
    return [name for name in names if len({repr(row.get(name)) for row in rows}) > 1]


def _base(row: Settings) -> str:
    full, embedding = str(row["full"]), str(row["embedding"])
    if embedding == "none":
        return {"trained": "Full", "frozen": "Frozen"}.get(full, full)
    text = _embedding(embedding)
    return {"trained": f"Full + {text}", "none": f"{text}, no table"}.get(full, text)


def _embedding(spec: str) -> str:
    """Returns a spec with its size alone, e.g. `'LoRA 4'`, and what else it sets."""
    try:
        name, given = specs.parse(spec)
    except InputError:
        return spec
    if name not in _NAMES:
        return spec
    known = specs.arguments(EMBEDDINGS[name])
    size = [str(given.pop(key, known[key].default)) for key in _SIZES[name]]
    rest = ", ".join(f"{key}={value}" for key, value in given.items())
    return f"{_NAMES[name]} {'x'.join(size)}" + (f" ({rest})" if rest else "")


def _stages(row: Settings, varied: Sequence[str]) -> list[str]:
    """Returns the words for the stages of both ways, if rows differ in them."""
    up, down = (
        str(row.get(name, "identity")).replace("()", "").replace(", ", " then ")
        if name in varied
        else "identity"
        for name in ("upload", "download")
    )
    if up == down:
        return [] if up == "identity" else [up]
    ways = {"up": up, "down": down}
    return [f"{way} {stages}" for way, stages in ways.items() if stages != "identity"]


def _word(row: Settings, name: str) -> str:
    return _ALWAYS.get(name, f"{name}={{}}").format(row.get(name))


def _distinct(labels: Sequence[str], rows: Sequence[Settings]) -> list[str]:
    """Returns the labels, and where several rows have one, what these differ in."""
    counts = Counter(labels)
    found = []
    for label, row in zip(labels, rows, strict=True):
        same = [r for other, r in zip(labels, rows, strict=True) if other == label]
        more = _varied(same) if counts[label] > 1 else []
        found.append(", ".join([label, *(f"{n}={row.get(n)}" for n in more)]))
    return found
