"""Builds what settings name: the model of a phase and the algorithm of its rounds."""

from typing import Any

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.embeddings import CompressedEmbedding, ItemEmbedding
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
    LocalTraining,
    Sampler,
    by_role,
    chain_downloads,
    chain_uploads,
    fresh_negatives,
    published_negatives,
    with_server_optimizer,
)


def make_model(
    settings: ModelSettings, num_items: int, *, warm_up: bool = False
) -> Backbone:
    """Builds the recommender of the main phase, or of the warm-up.

    Args:
      settings: resolved.
      num_items: I.
      warm_up: whether the full table is trained and nothing stands beside it.
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
        embedding.check()
    return factory_of("backbone", settings.backbone)(item_embedding=embedding)


def make_sampler(settings: TrainingSettings, num_items: int) -> Sampler:
    """Builds the sound sampler, or the published one if a setting needs it."""
    published = {
        "num_slots": settings.negative_slots,
        "fixed": settings.negative_draws == "fixed",
        "exclude_held_out": settings.train_negatives == "unseen",
    }
    if any(published.values()):
        return published_negatives(num_items, settings.num_negatives, **published)
    return fresh_negatives(num_items, settings.num_negatives)


def make_training(settings: TrainingSettings, model: Backbone) -> LocalTraining:
    """Builds what every client does with a model."""
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
    """Builds the aggregator with the server optimizers behind it."""
    shared, rows = settings.shared_server_optimizer, settings.server_optimizer
    optimizer = by_role(
        factory_of("shared_server_optimizer", shared)(),
        factory_of("server_optimizer", rows)(),
    )
    aggregator = factory_of("aggregator", settings.aggregator)()
    return with_server_optimizer(aggregator, optimizer)


def make_algorithm(
    training: TrainingSettings, server: ServerSettings, model: Backbone
) -> Algorithm:
    """Builds everything that decides what happens in a round."""
    uploads = factories_of("upload", training.upload)
    downloads = factories_of("download", server.download)
    return Algorithm(
        training=make_training(training, model),
        aggregator=make_aggregator(server),
        upload=chain_uploads(*(make() for make in uploads)),
        download=chain_downloads(*(make() for make in downloads)),
    )


def check_plugins(
    model: ModelSettings,
    training: TrainingSettings,
    server: ServerSettings,
    text: TextSettings,
) -> None:
    """Builds everything once.

    Raises:
      InputError: for a spec that cannot be read or built.
    """
    make_algorithm(training, server, make_model(model, num_items=1))
    factory_of("pretraining", text.pretraining)()


def suggestions_of(settings: ModelSettings) -> Suggestions:
    """Returns what the recommender suggests, and else the embedding."""
    backbone = factory_of("backbone", settings.backbone)(
        item_embedding=ItemEmbedding(1, 1)
    ).suggestions
    if settings.embedding == "none":
        return backbone
    embedding = _embedding(settings).suggestions
    return Suggestions(
        *(e if b is None else b for b, e in zip(backbone, embedding, strict=True))
    )


def embedding_uses_text(settings: ModelSettings) -> bool:
    """Returns whether the compressed embedding is fitted to item text."""
    return bool(_embedding(settings).uses_text)


def _embedding(settings: ModelSettings) -> CompressedEmbedding:
    """The compressed embedding of one item, to read what it suggests."""
    make = factory_of("embedding", settings.embedding)
    return make(num_items=1, features=1, alone=settings.full == "none")
