"""All settings of a run in one frozen dataclass, from which flags are made.

Python users, command-line flags, checkpoints and result files share this one schema.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import optax

from fedpeft_jax import specs
from fedpeft_jax.backbones import BACKBONES, Backbone
from fedpeft_jax.data import DATASETS
from fedpeft_jax.embeddings import EMBEDDINGS, CompressedEmbedding, ItemEmbedding
from fedpeft_jax.errors import InputError
from fedpeft_jax.federated.aggregators import (
    AGGREGATORS,
    Aggregator,
    with_server_optimizer,
)
from fedpeft_jax.losses import LOSSES, Loss
from fedpeft_jax.optimizers import OPTIMIZERS

REGISTRIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "backbone": BACKBONES,
    "embedding": EMBEDDINGS,
    "aggregator": AGGREGATORS,
    "loss": LOSSES,
    "client_optimizer": OPTIMIZERS,
    "server_optimizer": OPTIMIZERS,
}
"""The plugins that each setting may name."""

WARM_UP_ROUNDS = 20
"""Default warm-up of a frozen table with a compressed part beside it (the paper's)."""

_MINIMA = {
    "features": 1,
    "num_candidates": 1,
    "num_negatives": 1,
    "rounds": 1,
    "local_epochs": 1,
    "eval_every": 1,
    "local_batch_size": 0,
    "client_chunk": 0,
    "tile_rows": 1,
    "seed": 0,
    "data_seed": 0,
}


def _setting(default: Any, help_: str, choices: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(
        default=default, metadata={"help": help_, "choices": choices}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of one run. `None` means: derived, as the setting's help says.

    Raises:
      InputError: for a value that is not allowed, or a combination that cannot work.

    Example:
      >>> RunConfig(embedding="lora(rank=8)").warm_up
      20
      >>> RunConfig(full="trained", embedding="none").warm_up
      0
    """

    dataset: str = _setting("synthetic", "data set", tuple(DATASETS))
    data_dir: str | None = _setting(None, "folder of the data set's files")
    data_seed: int = _setting(0, "seed of candidates and of generated data")
    num_candidates: int = _setting(100, "negatives a user in the sampled ranking")

    text_encoder: str = _setting(
        "tfidf", "'tfidf', or a sentence-transformers name or local folder"
    )
    text_embeddings: str | None = _setting(
        None, ".npz with item_id and embedding, instead of encoding text"
    )
    features: int = _setting(32, "size of an item's and a user's embedding")
    full_init: str = _setting(
        "text", "initial full table: from item text, or random", ("text", "random")
    )
    latent_scale: float = _setting(
        1.0, "standard deviation of the full table's initial entries, per dimension"
    )

    backbone: str = _setting("fedmf", "recommender, a spec")
    full: str = _setting("frozen", "full item table", ("trained", "frozen", "none"))
    embedding: str = _setting(
        "lora(rank=4)", "compressed item embedding, a spec, or 'none'"
    )
    loss: str = _setting("bpr", "local loss, a spec")
    num_negatives: int = _setting(1, "training negatives a positive")

    rounds: int = _setting(1000, "federated rounds, the warm-up included")
    warm_up_rounds: int | None = _setting(
        None,
        f"rounds that train the full table before it is frozen; {WARM_UP_ROUNDS} for a "
        "frozen table with a compressed embedding, else 0",
    )
    cohort_size: int | None = _setting(
        None, "clients a round, instead of cohort_fraction"
    )
    cohort_fraction: float = _setting(0.1, "share of all clients in a round")
    local_epochs: int = _setting(2, "passes of a client over its pairs")
    local_batch_size: int = _setting(0, "pairs in a local step, 0 for all at once")
    client_optimizer: str = _setting(
        "adam(learning_rate=0.01)", "optax optimizer of the clients, a spec"
    )
    aggregator: str = _setting("mean", "how the server combines updates, a spec")
    server_optimizer: str = _setting(
        "sgd(learning_rate=5.0)", "optax optimizer of the server, a spec"
    )

    eval_every: int = _setting(50, "rounds between validations")
    client_chunk: int = _setting(
        0, "most clients trained at once, to bound memory; 0 chooses"
    )
    tile_rows: int = _setting(
        16384, "positives trained at once: more fill a larger device and need memory"
    )
    seed: int = _setting(0, "seed of everything but the data")
    out: str | None = _setting(None, "run folder; runs/NAME-N by default")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if choices and value not in choices:
                raise InputError(
                    f"{field.name}={value!r} is not known: "
                    f"use one of {', '.join(choices)}"
                )
        for name, least in _MINIMA.items():
            if getattr(self, name) < least:
                raise InputError(
                    f"{name}={getattr(self, name)} is too small: "
                    f"it must be at least {least}"
                )
        if not 0 < self.cohort_fraction <= 1:
            raise InputError(
                f"cohort_fraction={self.cohort_fraction} is no share: "
                "it must be above 0 and at most 1"
            )
        if not 0 < self.latent_scale < math.inf:
            raise InputError(
                f"latent_scale={self.latent_scale} must be above 0 and finite"
            )
        if self.full == "none" and self.full_init != "text":
            raise InputError("full_init has no effect with full=none: leave it out")
        if not 0 <= self.warm_up <= self.rounds:
            raise InputError(
                f"warm_up_rounds={self.warm_up} is not within rounds={self.rounds}: "
                "set --warm_up_rounds"
            )
        if self.warm_up and self.full != "frozen":
            raise InputError(
                f"warm_up_rounds={self.warm_up} makes no sense with full={self.full}: "
                "only a table that is frozen afterwards is warmed up"
            )
        # Build everything once, so that a bad spec ends the run before it starts.
        self.make_model(num_items=1)
        self.make_loss()
        self.make_client_optimizer()
        self.make_aggregator()
        if self.text_embeddings is not None and not self.uses_text:
            raise InputError(
                f"text_embeddings={self.text_embeddings!r} has no effect with "
                f"full={self.full}, full_init={self.full_init}: leave it out"
            )

    @property
    def warm_up(self) -> int:
        """The number of warm-up rounds."""
        if self.warm_up_rounds is not None:
            return self.warm_up_rounds
        return WARM_UP_ROUNDS if self.full == "frozen" and self.has_embedding else 0

    @property
    def has_embedding(self) -> bool:
        """Whether there is a compressed part."""
        return self.embedding != "none"

    @property
    def uses_text(self) -> bool:
        """Whether item text matters: to a full table's start, or to an embedding."""
        if self.full != "none" and self.full_init == "text":
            return True
        if not self.has_embedding:
            return False
        plugin = self.resolve("embedding").func  # type: ignore[attr-defined]
        return plugin.fit is not CompressedEmbedding.fit

    @property
    def name(self) -> str:
        """A short name for the run folder, e.g. `synthetic-fedmf-frozen-lora`."""
        parts = [self.dataset, self.backbone, self.full, self.embedding]
        return "-".join(part.partition("(")[0].strip() for part in parts)

    def cohort(self, num_clients: int) -> int:
        """Returns the number of clients in a round."""
        if self.cohort_size is not None:
            return self.cohort_size
        return max(1, round(self.cohort_fraction * num_clients))

    def resolve(self, setting: str) -> Callable[..., Any]:
        """Returns the factory that a setting's spec names, its arguments bound."""
        kind = setting.replace("_", " ")
        return specs.resolve(getattr(self, setting), REGISTRIES[setting], kind)

    def make_model(self, num_items: int, *, warm_up: bool = False) -> Backbone:
        """Builds the recommender: of the main phase, or of the warm-up."""
        full: Any = None if self.full == "none" else self.full
        compressed = self.resolve("embedding") if self.has_embedding else None
        if warm_up:
            full, compressed = "trained", None
        embedding = ItemEmbedding(
            num_items=num_items,
            features=self.features,
            full=full,
            compressed=compressed,
            init_scale=self.latent_scale,
        )
        if compressed is not None:
            embedding.check()
        return _build(self, "backbone")(item_embedding=embedding)

    def make_loss(self) -> Loss:
        """Builds the local loss."""
        return _build(self, "loss")()

    def make_client_optimizer(self) -> optax.GradientTransformation:
        """Builds the optimizer that every participation starts afresh."""
        return _build(self, "client_optimizer")()

    def make_aggregator(self) -> Aggregator:
        """Builds the aggregator with the server optimizer behind it."""
        aggregator = _build(self, "aggregator")()
        return with_server_optimizer(aggregator, _build(self, "server_optimizer")())


def _build(config: RunConfig, setting: str) -> Callable[..., Any]:
    """The setting's factory; what it cannot make of its arguments names the setting."""
    factory = config.resolve(setting)

    @functools.wraps(factory.func)  # type: ignore[attr-defined]
    def build(**kwargs: Any) -> Any:
        try:
            return factory(**kwargs)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            text = getattr(config, setting)
            raise InputError(f"{setting}={text!r} cannot be built: {error}") from error

    return build
