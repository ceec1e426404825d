"""The settings of a run: what is allowed, what is derived, what they build."""

import dataclasses
import json
import math

import pytest

from fedpeft_jax.backbones import FedMF
from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.embeddings import EMBEDDINGS, CompressedEmbedding, LoRA
from fedpeft_jax.experiment import config as config_module
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.plugins import REGISTRIES
from fedpeft_jax.federated.aggregators import AGGREGATORS

# Names that presets, scripts and result files of others rely on.
RELIED_ON = """
    dataset data_dir text_encoder text_embeddings backbone full embedding full_init
    rounds warm_up_rounds cohort_size cohort_fraction local_epochs local_batch_size
    aggregator client_optimizer server_optimizer eval_every client_chunk seed data_seed
    out
""".split()


class Reader(CompressedEmbedding):
    """An embedding that is fitted to item text."""

    uses_text = True


def fields():
    return dataclasses.fields(RunConfig)


# Fields


def test_names_that_others_rely_on():
    assert set(RELIED_ON) <= {field.name for field in fields()}


def test_every_field_has_a_default_and_a_help_text():
    for field in fields():
        assert field.default is not dataclasses.MISSING, field.name
        assert field.metadata["help"].strip(), field.name
        assert isinstance(field.metadata["choices"], tuple), field.name
        if field.metadata["choices"]:
            assert field.default in field.metadata["choices"]


def test_defaults_are_a_peft_run_without_any_file():
    config = RunConfig()
    assert (config.dataset, config.data_dir) == ("synthetic", None)
    assert (config.backbone, config.full, config.embedding) == (
        "fedmf", "frozen", "lora(rank=4)",
    )  # fmt: skip
    assert (config.rounds, config.warm_up, config.local_epochs) == (1000, 20, 2)
    assert (config.cohort_fraction, config.cohort_size) == (0.1, None)
    assert (config.full_init, config.text_encoder) == ("text", "tfidf")
    assert (config.seed, config.data_seed, config.out) == (0, 0, None)


def test_it_is_frozen_takes_keywords_only_and_survives_json():
    config = RunConfig(full="none", rounds=7, cohort_fraction=0.3, out="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rounds = 3
    with pytest.raises(TypeError):
        RunConfig("synthetic")
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert RunConfig(**stored) == config


# Validation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "ml-1b"}, "dataset='ml-1b' is not known: use one of synthetic"),
        ({"full": "maybe"}, "full='maybe' is not known: use one of trained, frozen"),
        ({"full_init": "zero"}, "full_init='zero' is not known: use one of text"),
        ({"rounds": 0}, "rounds=0 is too small: it must be at least 1"),
        ({"features": 0}, "features=0 is too small"),
        ({"num_candidates": 0}, "num_candidates=0 is too small"),
        ({"num_negatives": 0}, "num_negatives=0 is too small"),
        ({"local_epochs": 0}, "local_epochs=0 is too small"),
        ({"local_batch_size": -1}, "local_batch_size=-1 is too small: .* least 0"),
        ({"client_chunk": -1}, "client_chunk=-1 is too small"),
        ({"eval_every": 0}, "eval_every=0 is too small"),
        ({"seed": -1}, "seed=-1 is too small"),
        ({"data_seed": -1}, "data_seed=-1 is too small"),
        ({"cohort_fraction": 0.0}, "cohort_fraction=0.0 is no share"),
        ({"cohort_fraction": 1.01}, "cohort_fraction=1.01 is no share"),
        ({"cohort_fraction": math.nan}, "cohort_fraction=nan is no share"),
        ({"latent_scale": 0.0}, "latent_scale=0.0 must be above 0 and finite"),
        ({"latent_scale": math.nan}, "latent_scale=nan must be above 0 and finite"),
        ({"latent_scale": math.inf}, "latent_scale=inf must be above 0 and finite"),
        (
            {"full": "none", "full_init": "random"},
            "full_init has no effect with full=none: leave it out",
        ),
        (
            {"rounds": 19},
            "warm_up_rounds=20 is not within rounds=19: set --warm_up_rounds",
        ),
        ({"warm_up_rounds": -1}, "warm_up_rounds=-1 is not within rounds=1000"),
        (
            {"full": "trained", "warm_up_rounds": 1},
            "warm_up_rounds=1 makes no sense with full=trained",
        ),
        (
            {"full": "none", "warm_up_rounds": 1},
            "warm_up_rounds=1 makes no sense with full=none",
        ),
        (
            {"full": "none", "embedding": "none"},
            "full=none with embedding=none leaves no item embedding",
        ),
        (
            {"text_embeddings": "x.npz", "full_init": "random"},
            "text_embeddings='x.npz' has no effect with full=frozen, full_init=random",
        ),
        (
            {"text_embeddings": "x.npz", "full": "none"},
            "text_embeddings='x.npz' has no effect with full=none",
        ),
        ({"embedding": "lora(rank=0)"}, "rank must be .* at least 1, got 0"),
        ({"embedding": "lora(rank=1.5)"}, "cannot take rank=1.5"),
        ({"embedding": "lora(rank"}, r"cannot read 'lora\(rank'"),
        ({"embedding": "lora(4)"}, r"cannot read 'lora\(4\)': write name or name"),
        ({"embedding": "lora(rank=size)"}, r"cannot read 'lora\(rank=size\)'"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        RunConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", REGISTRIES)
def test_an_unknown_plugin_or_argument_lists_what_there_is(setting):
    kind = setting.replace("_", " ")
    with pytest.raises(InputError, match=f"unknown {kind} 'nosuch': use one of") as e:
        RunConfig(**{setting: "nosuch"})
    for name, factory in REGISTRIES[setting].items():
        assert name in str(e.value)
        message = f"{kind} '{name}' has no argument 'nosuch': use {name}"
        with pytest.raises(InputError, match=message):
            RunConfig(**{setting: f"{name}(nosuch=1)"})
        needed = specs.arguments(factory).values()
        for argument in [p.name for p in needed if p.default is p.empty]:
            with pytest.raises(InputError, match=f"'{name}' needs '{argument}'"):
                RunConfig(**{setting: name})


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_plugin_that_cannot_be_built_names_its_setting(monkeypatch, error):
    def broken():
        raise error("no luck")

    monkeypatch.setitem(AGGREGATORS, "broken", broken)
    with pytest.raises(InputError, match="aggregator='broken' .* no luck"):
        RunConfig(aggregator="broken")


# Phases


@pytest.mark.parametrize(
    ("settings", "warm_up"),
    [
        ({}, 20),
        ({"rounds": 20}, 20),
        ({"full": "frozen", "embedding": "lora(rank=1)"}, 20),
        ({"full": "frozen", "embedding": "none"}, 0),
        ({"full": "trained", "embedding": "none"}, 0),
        ({"full": "trained", "embedding": "lora"}, 0),
        ({"full": "none", "embedding": "lora"}, 0),
        ({"warm_up_rounds": 0, "rounds": 1}, 0),
        ({"warm_up_rounds": 5}, 5),
        ({"warm_up_rounds": 3, "embedding": "none"}, 3),
        ({"warm_up_rounds": 0, "full": "trained"}, 0),
        ({"warm_up_rounds": 0, "full": "none"}, 0),
        ({"warm_up_rounds": 9, "rounds": 9}, 9),
    ],
)
def test_warm_up(settings, warm_up):
    assert RunConfig(**settings).warm_up == warm_up


@pytest.mark.parametrize("full", ["trained", "frozen", "none"])
def test_the_model_of_each_phase(full):
    config = RunConfig(full=full, embedding="lora(rank=3)", features=6)
    model = config.make_model(num_items=11)
    assert isinstance(model, FedMF)
    embedding = model.item_embedding
    assert (embedding.num_items, embedding.features) == (11, 6)
    assert embedding.full == (None if full == "none" else full)
    lora = embedding.compressed(num_items=11, features=6, parent=None)
    assert isinstance(lora, LoRA)
    assert lora.rank == 3

    warm_up = config.make_model(num_items=11, warm_up=True).item_embedding
    assert (warm_up.full, warm_up.compressed) == ("trained", None)


def test_a_backbone_gets_its_arguments():
    assert RunConfig(backbone="fedmf(init_scale=0.7)").make_model(2).init_scale == 0.7


@pytest.mark.parametrize(
    ("settings", "uses_text"),
    [
        ({}, True),
        ({"full": "trained", "embedding": "none"}, True),
        ({"full_init": "random"}, False),
        ({"full": "trained", "embedding": "none", "full_init": "random"}, False),
        ({"full": "none"}, False),
        ({"full": "none", "embedding": "reader"}, True),
        ({"full_init": "random", "embedding": "reader"}, True),
    ],
)
def test_uses_text(monkeypatch, settings, uses_text):
    monkeypatch.setitem(EMBEDDINGS, "reader", Reader)
    assert RunConfig(**settings).uses_text is uses_text


def test_an_embedding_that_reads_text_may_be_given_embeddings(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "reader", Reader)
    config = RunConfig(full="none", embedding="reader", text_embeddings="x.npz")
    assert config.uses_text


# What follows from the settings


def test_a_factory_binds_the_arguments_of_a_spec():
    factory = RunConfig(embedding="lora(rank=2, alpha=8.0)").factory("embedding")
    assert factory(num_items=5, features=3) == LoRA(5, 3, rank=2, alpha=8.0)


def test_settings_that_are_left_out_suit_the_embedding(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "reader", Reader)
    monkeypatch.setattr(Reader, "defaults", {"latent_scale": 0.25})
    config = RunConfig(embedding="reader")
    assert config.latent_scale is None
    assert config.value("latent_scale") == 0.25
    assert config.make_model(5).item_embedding.init_scale == 0.25
    # What is given wins, and without the embedding nobody asks it.
    assert RunConfig(embedding="reader", latent_scale=2.0).value("latent_scale") == 2.0
    assert RunConfig().value("latent_scale") == 1.0
    table = RunConfig(full="trained", embedding="none")
    assert table.value("latent_scale") == 0.5
    assert table.value("server_optimizer") == "sgd(learning_rate=5.0)"
    assert RunConfig(embedding="reader").value("server_optimizer") == (
        "sgd(learning_rate=5.0)"
    )


def test_the_recommender_is_asked_before_the_embedding(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "reader", Reader)
    suited = {"latent_scale": 0.25, "server_optimizer": "sgd(learning_rate=2.0)"}
    monkeypatch.setattr(Reader, "defaults", suited)
    monkeypatch.setattr(FedMF, "defaults", {"latent_scale": 0.5})
    config = RunConfig(embedding="reader")
    assert config.value("latent_scale") == 0.5
    assert config.value("server_optimizer") == "sgd(learning_rate=2.0)"


@pytest.mark.parametrize("embedding", ["none", *EMBEDDINGS])
def test_settings_make_the_same_run_again(embedding):
    config = RunConfig(embedding=embedding)
    settings = config.settings()
    assert set(settings) == {field.name for field in fields()}
    for name in ("warm_up_rounds", "latent_scale", "server_optimizer"):
        assert settings[name] is not None
    again = RunConfig(**json.loads(json.dumps(settings)))
    assert again.settings() == settings


def test_registries_name_settings():
    names = {field.name for field in fields()}
    assert set(REGISTRIES) <= names
    for setting in REGISTRIES:
        if setting != "embedding":  # which may also be 'none'
            default = RunConfig().value(setting).partition("(")[0]
            assert default in REGISTRIES[setting]


def test_cohort_is_a_rounded_share_or_a_number():
    assert RunConfig().cohort(6040) == 604
    assert RunConfig(cohort_fraction=0.25).cohort(10) == 2
    assert RunConfig(cohort_fraction=0.001).cohort(10) == 1
    assert RunConfig(cohort_fraction=1.0).cohort(10) == 10
    assert RunConfig(cohort_size=7).cohort(6040) == 7


def test_name_leaves_arguments_out():
    assert RunConfig().name == "synthetic-fedmf-frozen-lora"
    full = RunConfig(full="trained", embedding="none", backbone="fedmf(init_scale=1)")
    assert full.name == "synthetic-fedmf-trained-none"


def test_the_warm_up_help_tells_the_default():
    [field] = [field for field in fields() if field.name == "warm_up_rounds"]
    assert str(config_module.WARM_UP_ROUNDS) in field.metadata["help"]
