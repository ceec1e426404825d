"""Data: readers, the data set, its splits, and the candidates of sampled evaluation.

A reader turns files into rows (``readers/``), ``build`` turns rows into a data set
(contiguous ids, histories in time order), a split determines which interactions train
and which are held out, and candidates are the items that a held-out item is ranked
against.
"""

from fedpeft_jax.data.candidates import sample_candidates
from fedpeft_jax.data.dataset import Dataset, build
from fedpeft_jax.data.generated import generate_long_tailed, load_synthetic
from fedpeft_jax.data.given_candidates import describe_candidates, given_candidates
from fedpeft_jax.data.loading import from_frame, load, load_dataset
from fedpeft_jax.data.readers.raw import Raw
from fedpeft_jax.data.readers.synthetic import synthetic_interactions
from fedpeft_jax.data.registry import DATASETS, Source, check_source
from fedpeft_jax.data.settings import DataSettings
from fedpeft_jax.data.splits import Split, leave_one_out, make_split

__all__ = [
    "DATASETS",
    "DataSettings",
    "Dataset",
    "Raw",
    "Source",
    "Split",
    "build",
    "check_source",
    "describe_candidates",
    "from_frame",
    "generate_long_tailed",
    "given_candidates",
    "leave_one_out",
    "load",
    "load_dataset",
    "load_synthetic",
    "make_split",
    "sample_candidates",
    "synthetic_interactions",
]
