"""Records the name of a data set that is given to a run as an object."""

import dataclasses

from fedpeft_jax.data import DataSettings
from fedpeft_jax.experiment.config import RunConfig

# The settings of the data that apply to every data set, however it was read.
_SPLITTING = ("split", "valid_items", "time_cut", "data_seed")


def name_dataset(config: RunConfig, name: str) -> RunConfig:
    """Returns the configuration of a run on a data set that is given as an object.

    Settings about files and filters have no effect on such a data set: they get their
    defaults. Those of the split are kept.

    Args:
      config: the configuration that the data set was given beside.
      name: the name of the data set.

    Example:
      >>> from fedpeft_jax.experiment.config import configure
      >>> name_dataset(configure(data_seed=3), "mine").data.dataset
      'mine'
    """
    data = config.data
    if name == data.dataset or data.split == "given":
        return config
    kept = {field: getattr(data, field) for field in _SPLITTING}
    return dataclasses.replace(config, data=DataSettings(dataset=name, **kept))
