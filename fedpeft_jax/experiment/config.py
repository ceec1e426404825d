"""All settings of a run in one frozen dataclass, from which flags are made.

Python users, command-line flags, checkpoints and result files share this one schema.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.settings import setting
from fedpeft_jax.data import DataSettings, check_source
from fedpeft_jax.embeddings import CompressedEmbedding, ItemEmbedding
from fedpeft_jax.experiment.plugins import factory_of
from fedpeft_jax.experiment.validation import check_settings, check_text
from fedpeft_jax.federated.aggregators import Aggregator, with_server_optimizer
from fedpeft_jax.federated.client import LocalTraining
from fedpeft_jax.federated.optimizers import by_role

WARM_UP_ROUNDS = 20
"""Default warm-up of a frozen table with a compressed part beside it (the paper's)."""

# Where neither the embedding nor the recommender has a value that suits it better.
_DERIVED: dict[str, Any] = {
    "latent_scale": 1.0,
    "server_optimizer": "sgd(learning_rate=5.0)",
    "shared_server_optimizer": "sgd(learning_rate=1.0)",
}

# A table that is trained all along moves away from its start, the sooner the smaller.
_TRAINED_LATENT_SCALE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(DataSettings):
    """Settings of one run, those of its data among them; `None` is derived: `value`.

    Raises:
      InputError: for a value that is not allowed, or a combination that cannot work.

    Example:
      >>> RunConfig(embedding="lora(rank=8)").warm_up
      20
      >>> RunConfig(full="trained", embedding="none").warm_up
      0
    """

    text_encoder: str = setting(
        "tfidf", "'tfidf', or a sentence-transformers name or local folder"
    )
    text_embeddings: str | None = setting(
        None, ".npz with item_id and embedding, instead of encoding text"
    )
    features: int = setting(32, "size of an item's and a user's embedding", least=1)
    full_init: str = setting(
        "text", "initial full table: from item text, or random", ("text", "random")
    )
    latent_scale: float | None = setting(
        None, "standard deviation of the full table's initial entries, per dimension"
    )

    backbone: str = setting("fedmf", "recommender, a spec")
    full: str = setting("frozen", "full item table", ("trained", "frozen", "none"))
    embedding: str = setting(
        "lora(rank=4)", "compressed item embedding, a spec, or 'none'"
    )
    loss: str = setting("bpr", "local loss, a spec")
    num_negatives: int = setting(1, "training negatives a positive", least=1)

    rounds: int = setting(1000, "federated rounds, the warm-up included", least=1)
    warm_up_rounds: int | None = setting(
        None,
        f"rounds that train the full table before it is frozen; {WARM_UP_ROUNDS} for a "
        "frozen table with a compressed embedding, else 0",
    )
    cohort_size: int | None = setting(
        None, "clients a round, instead of cohort_fraction"
    )
    cohort_fraction: float = setting(0.1, "share of all clients in a round")
    local_epochs: int = setting(2, "passes of a client over its pairs", least=1)
    local_batch_size: int = setting(
        0, "pairs in a local step, 0 for all at once", least=0
    )
    client_optimizer: str = setting(
        "adam(learning_rate=0.01)", "optax optimizer of the clients, a spec"
    )
    private_optimizer: str | None = setting(
        None, "and of what stays with them; by default the client_optimizer"
    )
    proximal: float = setting(
        0.0, "weight of FedProx's pull towards what the server sent"
    )
    aggregator: str = setting("mean", "how the server combines updates, a spec")
    server_optimizer: str | None = setting(
        None, "the server's optax optimizer of item rows, a spec; few clients move one"
    )
    shared_server_optimizer: str | None = setting(
        None, "and of shared parameters, which every client moves"
    )

    eval_every: int = setting(50, "rounds between validations", least=1)
    early_stopping_rounds: int = setting(
        0,
        "rounds without a better validation NDCG@10 after which the main phase stops "
        "and its best model is the result; 0 for never",
        least=0,
    )
    baselines: str = setting(
        "most_popular,log_odds,text_neighbours,random",
        "what stands beside the result, with commas; bpr_mf is centralised and takes "
        "its time",
    )
    client_chunk: int = setting(
        0, "most clients trained at once, to bound memory; 0 chooses", least=0
    )
    tile_rows: int = setting(
        4096, "positives trained at once: more suit an accelerator", least=1
    )
    seed: int = setting(0, "seed of everything but the data", least=0)
    out: str | None = setting(None, "run folder; runs/NAME-N by default")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source(self)
        check_settings(self)
        # Build everything once, so that a bad spec ends the run before it starts.
        self.make_local_training(self.make_model(num_items=1))
        self.make_aggregator()
        check_text(self)

    @property
    def warm_up(self) -> int:
        """The number of warm-up rounds."""
        return int(self.value("warm_up_rounds"))

    def value(self, setting: str) -> Any:
        """Returns a setting, or what it is derived from where it is None.

        A recommender and an embedding may each have a value that suits it; the
        recommender's goes first, for it knows what else a setting moves.
        """
        given = getattr(self, setting)
        if given is not None:
            return given
        if setting == "warm_up_rounds":
            warm = self.full == "frozen" and self.has_embedding
            return WARM_UP_ROUNDS if warm else 0
        plugins = ("backbone", "embedding") if self.has_embedding else ("backbone",)
        for plugin in plugins:
            suited = self._part(plugin).defaults
            if setting in suited:
                return suited[setting]
        if setting == "private_optimizer":
            return self.client_optimizer
        if setting == "latent_scale" and self.full == "trained":
            return _TRAINED_LATENT_SCALE
        return _DERIVED.get(setting)

    def settings(self) -> dict[str, Any]:
        """Returns all settings as they are used, which make the same run again."""
        return {
            field.name: self.value(field.name) for field in dataclasses.fields(self)
        }

    def _part(self, plugin: str) -> CompressedEmbedding | Backbone:
        """The embedding or the recommender, of no size, to ask it something."""
        if plugin == "embedding":
            alone = self.full == "none"
            return self.factory(plugin)(num_items=1, features=1, alone=alone)
        return self.factory(plugin)(item_embedding=ItemEmbedding(1, 1))

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
        return bool(self._part("embedding").uses_text)

    @property
    def name(self) -> str:
        """A short name for the run folder, e.g. `synthetic-fedmf-frozen-lora`."""
        data = self.category or self.dataset
        if self.dataset == "table" and self.interactions is not None:
            data = pathlib.Path(self.interactions).name.partition(".")[0] or "table"
        parts = [data.lower(), self.backbone, self.full, self.embedding]
        return "-".join(part.partition("(")[0].strip() for part in parts)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The baselines beside the result, in order."""
        names = (name.strip() for name in self.baselines.split(","))
        return tuple(name for name in names if name)

    def cohort(self, num_clients: int) -> int:
        """Returns the number of clients in a round."""
        if self.cohort_size is not None:
            return self.cohort_size
        return max(1, round(self.cohort_fraction * num_clients))

    def factory(self, setting: str) -> Callable[..., Any]:
        """Returns the factory that a setting's spec names, its arguments bound."""
        return factory_of(setting, self.value(setting))

    def make_model(self, num_items: int, *, warm_up: bool = False) -> Backbone:
        """Builds the recommender: of the main phase, or of the warm-up."""
        full: Any = None if self.full == "none" else self.full
        compressed = self.factory("embedding") if self.has_embedding else None
        if warm_up:
            full, compressed = "trained", None
        embedding = ItemEmbedding(
            num_items=num_items,
            features=self.features,
            full=full,
            compressed=compressed,
            init_scale=self.value("latent_scale"),
        )
        if compressed is not None:
            embedding.check()
        return self.factory("backbone")(item_embedding=embedding)

    def make_local_training(self, model: Backbone) -> LocalTraining:
        """Builds what every client does with a model."""
        client = self.factory("client_optimizer")()
        return LocalTraining(
            model=model,
            loss=self.factory("loss")(),
            optimizer=by_role(client, client, self.factory("private_optimizer")()),
            num_items=model.item_embedding.num_items,
            num_negatives=self.num_negatives,
            local_epochs=self.local_epochs,
            local_batch_size=self.local_batch_size,
            proximal=self.proximal,
            num_slots=self.negative_slots,
            fixed_negatives=self.negative_draws == "fixed",
        )

    def make_aggregator(self) -> Aggregator:
        """Builds the aggregator with the server optimizers behind it."""
        optimizer = by_role(
            self.factory("shared_server_optimizer")(),
            self.factory("server_optimizer")(),
        )
        return with_server_optimizer(self.factory("aggregator")(), optimizer)
