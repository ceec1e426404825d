"""Data: readers, splits, and the items that training and evaluation set against them.

A reader turns files into rows, `dataset.py` numbers them (histories in time order,
contiguous ids), a split says what trains and what is held out, and candidates are what
a held-out item is ranked against.
"""

from fedpeft_jax.data.candidates import sample_candidates
from fedpeft_jax.data.dataset import Dataset, build_dataset
from fedpeft_jax.data.readers.frames import from_frame
from fedpeft_jax.data.readers.movielens import load_movielens_1m
from fedpeft_jax.data.readers.raw import Raw
from fedpeft_jax.data.readers.synthetic import (
    generate_long_tailed,
    load_synthetic,
    synthetic_interactions,
)
from fedpeft_jax.data.registry import DATASETS, Source, check_source, load, load_dataset
from fedpeft_jax.data.settings import DataSettings
from fedpeft_jax.data.splits import Split, leave_one_out, make_split

__all__ = [
    "DATASETS",
    "DataSettings",
    "Dataset",
    "Raw",
    "Source",
    "Split",
    "build_dataset",
    "check_source",
    "from_frame",
    "generate_long_tailed",
    "leave_one_out",
    "load",
    "load_dataset",
    "load_movielens_1m",
    "load_synthetic",
    "make_split",
    "sample_candidates",
    "synthetic_interactions",
]
