"""The addresses of published data sets, official ones first and then mirrors."""

from collections.abc import Sequence

from fedpeft_jax.data.readers.download import File

_AMAZON = {
    "amazon-2018": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/",
        "https://jmcauley.ucsd.edu/data/amazon_v2/",
        "http://deepyeti.ucsd.edu/jianmo/amazon/",
    ),
    "amazon-2023": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/",
        "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_2023/raw/",
    ),
}
_AMAZON_FOLDERS = {
    "amazon-2018": ("categoryFilesSmall", "metaFiles2"),
    "amazon-2023": ("review_categories", "meta_categories"),
}


def movielens_file(name: str, md5: str | None) -> File:
    """Returns the archive of a MovieLens data set at GroupLens."""
    return File(
        f"{name}.zip",
        (f"https://files.grouplens.org/datasets/movielens/{name}.zip",),
        md5,
    )


def amazon_files(name: str, files: Sequence[str]) -> list[File]:
    """Returns a category's files of reviews and items, with their addresses."""
    return [
        File(file, tuple(f"{base}{folder}/{file}" for base in _AMAZON[name]))
        for folder, file in zip(_AMAZON_FOLDERS[name], files, strict=True)
    ]
