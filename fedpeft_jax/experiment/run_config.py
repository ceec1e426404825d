"""A resolved configuration: all settings of a run, in groups."""

import dataclasses
import pathlib
from typing import Any

from fedpeft_jax.core.sampling import CohortSampling, FixedCohorts, PoissonCohorts
from fedpeft_jax.core.specs import name_of
from fedpeft_jax.data import DataSettings
from fedpeft_jax.experiment.build import embedding_uses_text
from fedpeft_jax.experiment.link import LinkSettings
from fedpeft_jax.experiment.privacy_settings import PrivacySettings
from fedpeft_jax.experiment.run_settings import RunSettings
from fedpeft_jax.experiment.settings import (
    EvaluationSettings,
    ModelSettings,
    ServerSettings,
    TextSettings,
    TrainingSettings,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A resolved configuration, as `configure` returns it.

    Attributes:
      data: how the data set is read and split.
      text: how item text is encoded, and what is learned from it.
      model: the recommender and its item embedding.
      training: what every client does.
      server: what the server does.
      privacy: the mechanism of differential privacy and its guarantee.
      evaluation: how the run is validated, and its baselines.
      link: the speed of the clients' links.
      run: the run's length, seed, folder and shapes.
    """

    data: DataSettings
    text: TextSettings
    model: ModelSettings
    training: TrainingSettings
    server: ServerSettings
    privacy: PrivacySettings
    evaluation: EvaluationSettings
    link: LinkSettings
    run: RunSettings

    def flat(self) -> dict[str, Any]:
        """Returns all settings by name; `configure` turns these into an equal value."""
        return {
            name: value
            for group in GROUPS
            for name, value in vars(getattr(self, group)).items()
        }

    @property
    def has_embedding(self) -> bool:
        """Whether there is a compressed embedding."""
        return self.model.embedding != "none"

    @property
    def has_adapter(self) -> bool:
        """Whether a compressed embedding is trained beside a frozen table."""
        return self.model.full == "frozen" and self.has_embedding

    @property
    def uses_text(self) -> bool:
        """Whether the full table or the compressed embedding starts from item text."""
        if self.model.full != "none" and self.model.full_init == "text":
            return True
        return self.has_embedding and embedding_uses_text(self.model)

    @property
    def has_random_table(self) -> bool:
        """Whether there is a full table, and nothing in the model starts from text."""
        return self.model.full != "none" and not self.uses_text

    @property
    def name(self) -> str:
        """A short name for the run folder, e.g. `synthetic-fedmf-frozen-lora`."""
        data = self.data.category or self.data.dataset
        if self.data.dataset == "table" and self.data.interactions is not None:
            file = pathlib.Path(self.data.interactions).name
            data = file.partition(".")[0] or "table"
        model = self.model
        parts = [data.lower(), model.backbone, model.full, model.embedding]
        return "-".join(name_of(part) for part in parts)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The names of the baselines of the result, in order."""
        names = (name.strip() for name in self.evaluation.baselines.split(","))
        return tuple(name for name in names if name)

    def sampling(self, num_clients: int) -> CohortSampling:
        """Returns the object that draws the cohorts, for a number of clients U."""
        size = self.server.cohort_size
        if size is None:
            size = max(1, round(self.server.cohort_fraction * num_clients))
        if self.server.cohort == "poisson":
            return PoissonCohorts(num_clients, size / num_clients)
        return FixedCohorts(num_clients, size)

    def places(self, num_clients: int) -> int:
        """Returns C, the size of the run's largest cohort, for a number of clients."""
        return self.sampling(num_clients).most(self.run.seed, self.run.rounds)


GROUPS: dict[str, type[Any]] = {
    field.name: field.type  # type: ignore[misc]
    for field in dataclasses.fields(RunConfig)
}
"""The dataclass of each group of settings."""

FIELDS: dict[str, dataclasses.Field[Any]] = {
    field.name: field
    for group in GROUPS.values()
    for field in dataclasses.fields(group)
}
"""Every setting by name."""
