"""Builds the model of a phase and the algorithm of its rounds from settings."""

from typing import Any

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.embeddings import CompressedEmbedding, ItemEmbedding, can_restart
from fedpeft_jax.experiment.plugins import factories_of, factory_of
from fedpeft_jax.experiment.settings import (
    ModelSettings,
    ServerSettings,
    TextSettings,
    TrainingSettings,
)
from fedpeft_jax.federated import (
    Aggregator,
    Algorithm,
    Faults,
    LocalTraining,
    Sampler,
    by_role,
    chain_downloads,
    chain_uploads,
    check_faults,
    fresh_negatives,
    published_negatives,
    with_server_optimizer,
)


def make_model(
    settings: ModelSettings, num_items: int, *, warm_up: bool = False
) -> Backbone:
    """Builds the recommender of the main phase, or that of the warm-up.

    Args:
      settings: resolved settings.
      num_items: I, the number of items.
      warm_up: whether to build the model of the warm-up, which trains the full table
        and has no compressed embedding.

    Raises:
      InputError: for a spec that cannot be read or built.

    Example:
      >>> from fedpeft_jax.experiment.config import configure
      >>> model = make_model(configure(features=8).model, num_items=5)
      >>> type(model).__name__, model.item_embedding.features
      ('FedMF', 8)
    """
    full: Any = None if settings.full == "none" else settings.full
    compressed = None
    if settings.embedding != "none":
        compressed = factory_of("embedding", settings.embedding)
    if warm_up:
        full, compressed = "trained", None
    embedding = ItemEmbedding(
        num_items=num_items,
        features=settings.features,
        full=full,
        compressed=compressed,
        init_scale=settings.latent_scale,
    )
    if compressed is not None:
        embedding.adapter_alone()
    return factory_of("backbone", settings.backbone)(item_embedding=embedding)


def make_sampler(settings: TrainingSettings, num_items: int) -> Sampler:
    """Builds the sound sampler, or the published one if a setting needs it.

    Args:
      settings: resolved settings.
      num_items: I, the number of items.
    """
    num_negatives, num_slots = settings.num_negatives, settings.negative_slots
    fixed = settings.negative_draws == "fixed"
    unseen = settings.train_negatives == "unseen"
    if num_slots or fixed or unseen:
        return published_negatives(
            num_items,
            num_negatives,
            num_slots=num_slots,
            fixed=fixed,
            exclude_held_out=unseen,
        )
    return fresh_negatives(num_items, num_negatives)


def make_training(settings: TrainingSettings, model: Backbone) -> LocalTraining:
    """Builds the local training of a model.

    Args:
      settings: resolved settings.
      model: the recommender to train.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    client = factory_of("client_optimizer", settings.client_optimizer)()
    private = factory_of("private_optimizer", settings.private_optimizer)()
    return LocalTraining(
        model=model,
        loss=factory_of("loss", settings.loss)(),
        optimizer=by_role(client, client, private),
        sampler=make_sampler(settings, model.item_embedding.num_items),
        local_epochs=settings.local_epochs,
        local_batch_size=settings.local_batch_size,
        proximal=settings.proximal,
        uniform_weights=settings.client_weights == "uniform",
    )


def make_aggregator(settings: ServerSettings) -> Aggregator:
    """Builds the aggregator together with the server optimizers.

    Args:
      settings: resolved settings.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    shared, rows = settings.shared_server_optimizer, settings.server_optimizer
    optimizer = by_role(
        factory_of("shared_server_optimizer", shared)(),
        factory_of("server_optimizer", rows)(),
    )
    aggregator = factory_of("aggregator", settings.aggregator)()
    return with_server_optimizer(aggregator, optimizer)


def make_faults(training: TrainingSettings, server: ServerSettings) -> Faults:
    """Builds the faults of clients that are simulated or tolerated.

    Args:
      training: resolved settings of the clients.
      server: resolved settings of the server.

    Raises:
      InputError: for faults that cannot occur.

    Example:
      >>> make_faults(TrainingSettings(dropout_rate=0.2), ServerSettings()).dropout_rate
      0.2
    """
    faults = Faults(
        dropout_rate=training.dropout_rate,
        straggler_rate=training.straggler_rate,
        sign_flip_rate=training.sign_flip_rate,
        sign_flip_scale=training.sign_flip_scale,
        drop_nonfinite=server.on_nonfinite == "drop",
    )
    check_faults(faults, training.local_epochs)
    return faults


def make_algorithm(
    training: TrainingSettings, server: ServerSettings, model: Backbone
) -> Algorithm:
    """Builds everything that decides what happens in a round, except for its privacy.

    Args:
      training: resolved settings of the clients.
      server: resolved settings of the server.
      model: the recommender to train.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    uploads = factories_of("upload", training.upload)
    downloads = factories_of("download", server.download)
    upload = chain_uploads(*(make() for make in uploads))
    if upload.touched_rows and (
        training.negative_slots or training.train_negatives == "unseen"
    ):
        raise InputError(
            f"`upload={training.upload}` counts the rows of negatives that may be any "
            "unseen item: leave out `negative_slots` and `train_negatives=unseen`"
        )
    return Algorithm(
        training=make_training(training, model),
        aggregator=make_aggregator(server),
        upload=upload,
        download=chain_downloads(*(make() for make in downloads)),
        faults=make_faults(training, server),
        varying_cohorts=server.cohort == "poisson",
    )


def check_plugins(
    model: ModelSettings,
    training: TrainingSettings,
    server: ServerSettings,
    text: TextSettings,
) -> None:
    """Builds every plugin once, to check the specs.

    Args:
      model: resolved settings of the recommender.
      training: resolved settings of the clients.
      server: resolved settings of the server.
      text: resolved settings of the item text.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    make_algorithm(training, server, make_model(model, num_items=1))
    factory_of("pretraining", text.pretraining)()


def suggestions_of(settings: ModelSettings, *, merging: bool) -> Suggestions:
    """Returns the recommender's suggestions, completed by those of the embedding.

    Args:
      settings: the settings that name both.
      merging: whether the run may merge the embedding into the table.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    found = Suggestions()
    plugins: list[Any] = [
        factory_of("backbone", settings.backbone)(item_embedding=ItemEmbedding(1, 1))
    ]
    if settings.embedding != "none":
        plugins.insert(0, _embedding(settings))
    for plugin in plugins:
        sources = (plugin.suggestions, plugin.merging)
        for source in sources if merging else sources[:1]:
            given = {k: v for k, v in source._asdict().items() if v is not None}
            found = found._replace(**given)
    return found


def embedding_can_restart(settings: ModelSettings) -> bool:
    """Returns whether the compressed embedding can be merged into the table.

    Args:
      settings: settings with a compressed embedding.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    return can_restart(_embedding(settings))


def embedding_uses_text(settings: ModelSettings) -> bool:
    """Returns whether the compressed embedding is fitted to item text.

    Args:
      settings: settings with a compressed embedding.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    return bool(_embedding(settings).uses_text)


def _embedding(settings: ModelSettings) -> CompressedEmbedding:
    """Returns a compressed embedding of one item, to read its class attributes."""
    make = factory_of("embedding", settings.embedding)
    return make(num_items=1, features=1, alone=settings.full == "none")
