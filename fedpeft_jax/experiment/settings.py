"""The settings of a run in groups, one per part of the library that reads them.

The settings of the data are in `data.DataSettings`. If the default of a setting is None
and its help text has the words "by default", `config.configure` resolves the setting,
and in a resolved configuration it has its value.
"""

import dataclasses

from fedpeft_jax.core.bounds import MOST_INT
from fedpeft_jax.core.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How the server encodes item text and learns from it."""

    text_encoder: str = setting(
        "tfidf",
        "encoder of item text: 'tfidf', or the name or the local folder of a "
        "sentence-transformers model",
    )
    text_embeddings: str | None = setting(
        None,
        ".npz file with arrays item_id and embedding, used instead of an encoder",
    )
    pretraining: str = setting(
        "autoencoder", "method that learns latents from text encodings, a spec"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The recommender and its item embedding."""

    backbone: str = setting("fedmf", "recommender, a spec")
    full: str = setting(
        "frozen",
        "whether the full item table is trained, frozen or absent",
        choices=("trained", "frozen", "none"),
    )
    embedding: str = setting(
        "lora(rank=4)", "compressed item embedding, a spec, or 'none'"
    )
    features: int = setting(32, "length of an item or user vector", least=1, most=65536)
    full_init: str = setting(
        "text",
        "whether the full table starts from item text or at random",
        choices=("text", "random"),
    )
    latent_scale: float = setting(
        None,
        "standard deviation of the full table's initial entries; by default 0.1 for a "
        "random table in a model without text, else 0.5 if it is trained and 1 if not",
        above=0,
        most=1000,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What every client does."""

    loss: str = setting("bpr", "local loss, a spec")
    num_negatives: int = setting(
        1, "training negatives per positive", least=1, most=1_000_000
    )
    train_negatives: str = setting(
        "unseen_in_training",
        "items that training negatives are drawn from: all except the client's "
        "training items; 'unseen' also excludes held-out items, which reveals them",
        choices=("unseen_in_training", "unseen"),
    )
    negative_draws: str = setting(
        "fresh",
        "whether a client draws new negatives in every participation, or draws once",
        choices=("fresh", "fixed"),
    )
    negative_slots: int = setting(
        0,
        "negatives and candidates are drawn from this many of the first items; 0 for "
        "all items",
        least=0,
        most=MOST_INT,
    )
    local_epochs: int = setting(
        2, "passes of a client over its pairs per round", least=1, most=1_000_000
    )
    local_batch_size: int = setting(
        0, "pairs per local step; 0 for all at once", least=0, most=MOST_INT
    )
    client_optimizer: str = setting(
        None,
        "optax optimizer of the clients, a spec; by default adam(learning_rate=0.01)",
    )
    private_optimizer: str = setting(
        None,
        "optimizer of the parameters that stay on the client, a spec; by default the "
        "`client_optimizer`",
    )
    proximal: float = setting(
        0.0, "weight of FedProx's proximal term; 0 for none", least=0, most=1e6
    )
    client_weights: str = setting(
        None,
        "weight of a client in means: its number of positives, or 1; by default "
        "uniform under differential privacy, else positives",
        choices=("positives", "uniform"),
    )
    upload: str = setting(
        "identity",
        "stages that encode a client's update, specs separated by commas",
    )
    dropout_rate: float = setting(
        0.0,
        "probability that a client of a round vanishes before it answers",
        least=0,
        below=1,
    )
    straggler_rate: float = setting(
        0.0,
        "probability that a client of a round runs fewer local epochs: uniformly 1 to "
        "`local_epochs` - 1",
        least=0,
        most=1,
    )
    sign_flip_rate: float = setting(
        0.0,
        "probability that a client of the run is an attacker, which sends minus its "
        "update in all rounds",
        least=0,
        most=1,
    )
    sign_flip_scale: float = setting(
        1.0, "factor by which attackers also multiply their updates", above=0, most=1e6
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What the server does."""

    cohort: str = setting(
        None,
        "whether cohorts have a fixed size, or every client joins a cohort with the "
        "same probability; by default poisson under differential privacy, else fixed",
        choices=("fixed", "poisson"),
    )
    cohort_size: int | None = setting(
        None,
        "clients per round (on average with `cohort=poisson`), instead of "
        "`cohort_fraction`",
        least=1,
        most=MOST_INT,
    )
    cohort_fraction: float = setting(
        None, "share of all clients per round; by default 0.1", above=0, most=1
    )
    aggregator: str = setting(
        None,
        "how the server combines updates, a spec; by default sparse_row_mean for a "
        "random table in a model without text, else mean",
    )
    server_optimizer: str = setting(
        None,
        "the server's optax optimizer of item rows (few clients change each row); "
        "a spec, by default sgd(learning_rate=5.0)",
    )
    shared_server_optimizer: str = setting(
        None,
        "the server's optax optimizer of shared parameters, which all clients change; "
        "a spec, by default sgd(learning_rate=1.0)",
    )
    download: str = setting(
        "identity",
        "stages that encode what the server sends, specs separated by commas",
    )
    on_nonfinite: str = setting(
        "stop",
        "whether a client's update that is not finite stops the run or is dropped",
        choices=("stop", "drop"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a run is evaluated, and which baselines it is compared with."""

    candidates: str = setting(
        "uniform",
        "distribution from which the candidates of the sampled ranking are drawn",
        choices=("uniform", "popularity"),
    )
    num_candidates: int = setting(
        100, "candidates per client in the sampled ranking", least=1, most=10_000_000
    )
    given_candidates: str | None = setting(
        None,
        "file of each user's candidates, used instead of drawn ones: NCF's "
        ".test.negative, or a table of user, test item and candidates",
    )
    eval_every: int = setting(50, "rounds between validations", least=1, most=MOST_INT)
    early_stopping_rounds: int = setting(
        0,
        "rounds without a better validation NDCG@10 after which the main phase stops "
        "and its best model is the result; 0 for never",
        least=0,
        most=MOST_INT,
    )
    baselines: str = setting(
        "most_popular,log_odds,text_neighbours,random",
        "baselines that are reported beside the result, separated by commas; bpr_mf is "
        "centralised and slow",
    )
