"""Data: readers, splits by time, and the items that evaluation ranks.

A reader turns files into a ``Dataset`` (histories in time order, contiguous ids), a
split says what trains and what is held out, and candidates are what a held-out item is
ranked against.
"""

from fedpeft_jax.data.candidates import sample_candidates
from fedpeft_jax.data.dataset import Dataset, build_dataset
from fedpeft_jax.data.movielens import load_movielens_1m
from fedpeft_jax.data.registry import DATASETS, load_dataset
from fedpeft_jax.data.splits import Split, leave_one_out
from fedpeft_jax.data.synthetic import generate_long_tailed, load_synthetic

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "build_dataset",
    "generate_long_tailed",
    "leave_one_out",
    "load_dataset",
    "load_movielens_1m",
    "load_synthetic",
    "sample_candidates",
]
