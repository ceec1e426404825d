"""The configuration of a run: what is allowed, what is resolved, what it builds."""

import dataclasses
import json
import math

import pytest

from fedpeft_jax.backbones import FedMF
from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import PoissonCohorts
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.embeddings import EMBEDDINGS, CompressedEmbedding, LoRA
from fedpeft_jax.experiment import FIELDS, configure, make_model
from fedpeft_jax.experiment.config import restore
from fedpeft_jax.experiment.identity import differences
from fedpeft_jax.experiment.plugins import REGISTRIES
from fedpeft_jax.experiment.run_settings import WARM_UP_ROUNDS
from fedpeft_jax.federated import AGGREGATORS

# Names that presets, scripts and result files of others rely on.
RELIED_ON = """
    dataset data_dir text_encoder text_embeddings backbone full embedding full_init
    rounds warm_up_rounds cohort_size cohort_fraction local_epochs local_batch_size
    aggregator upload download client_optimizer server_optimizer
    shared_server_optimizer eval_every client_chunk seed data_seed out
""".split()


class Reader(CompressedEmbedding):
    """An embedding that is fitted to item text."""

    uses_text = True


# Fields


def test_names_that_others_rely_on():
    assert set(RELIED_ON) <= set(FIELDS)


def test_every_field_has_a_help_text_and_a_default_that_is_allowed():
    for name, field in FIELDS.items():
        assert field.default is not dataclasses.MISSING, name
        assert field.metadata["help"].strip(), name
        if field.metadata["choices"] and field.default is not None:
            assert field.default in field.metadata["choices"]


def test_every_name_is_in_one_group():
    config = configure()
    groups = [vars(getattr(config, f.name)) for f in dataclasses.fields(config)]
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names)) == len(FIELDS)


def test_defaults_are_a_peft_run_without_any_file():
    config = configure()
    assert (config.data.dataset, config.data.data_dir) == ("synthetic", None)
    model = config.model
    assert (model.backbone, model.full, model.embedding) == (
        "fedmf", "frozen", "lora(rank=4)",
    )  # fmt: skip
    assert (config.run.rounds, config.run.warm_up_rounds) == (1000, 20)
    assert config.training.local_epochs == 2
    assert (config.server.cohort_fraction, config.server.cohort_size) == (0.1, None)
    assert (model.full_init, config.text.text_encoder) == ("text", "tfidf")
    assert (config.training.upload, config.server.download) == ("identity", "identity")
    assert (config.run.seed, config.data.data_seed, config.run.out) == (0, 0, None)


def test_it_is_frozen_takes_keywords_only_and_survives_json():
    config = configure(full="none", rounds=7, cohort_fraction=0.3, out="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.run = None
    with pytest.raises(TypeError):
        configure("synthetic")
    assert configure(**json.loads(json.dumps(config.flat()))) == config


@pytest.mark.parametrize(
    ("name", "hint"),
    [("round", "did you mean `rounds`?"), ("embeding", "`embedding`"), ("x", "check")],
)
def test_an_unknown_name_is_an_error_with_a_hint(name, hint):
    with pytest.raises(InputError, match=f"there is no setting '{name}'") as caught:
        configure(**{name: 3})
    assert hint in str(caught.value)


# Validation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "ml-1b"}, "`dataset='ml-1b'` is not known: use one of synthetic"),
        ({"full": "maybe"}, "`full='maybe'` is not known: use one of trained, frozen"),
        ({"full_init": "zero"}, "`full_init='zero'` is not known: use one of text"),
        ({"rounds": 0}, "`rounds=0` must be at least 1"),
        ({"features": 0}, "`features=0` must be"),
        ({"num_candidates": 0}, "`num_candidates=0` must be"),
        ({"num_negatives": 0}, "`num_negatives=0` must be"),
        ({"local_epochs": 0}, "`local_epochs=0` must be"),
        ({"local_batch_size": -1}, "`local_batch_size=-1` must be at least 0"),
        ({"client_chunk": -1}, "`client_chunk=-1` must be"),
        ({"eval_every": 0}, "`eval_every=0` must be"),
        ({"seed": -1}, "`seed=-1` must be"),
        ({"data_seed": -1}, "`data_seed=-1` must be"),
        (
            {"cohort_fraction": 0.0},
            "`cohort_fraction=0.0` must be above 0 and at most 1",
        ),
        ({"cohort_fraction": 1.01}, "`cohort_fraction=1.01` must be"),
        (
            {"cohort_fraction": math.nan},
            "`cohort_fraction=nan` must be a finite number",
        ),
        ({"latent_scale": 0.0}, "`latent_scale=0.0` must be above 0"),
        ({"latent_scale": math.nan}, "`latent_scale=nan` must be a finite number"),
        ({"latent_scale": math.inf}, "`latent_scale=inf` must be a finite number"),
        (
            {"full": "none", "full_init": "random"},
            "`full_init` has no effect with `full=none`: leave it out",
        ),
        (
            {"rounds": 19},
            "`warm_up_rounds=20` is more than `rounds=19`: set `warm_up_rounds`",
        ),
        ({"warm_up_rounds": -1}, "`warm_up_rounds=-1` must be at least 0"),
        (
            {"full": "trained", "warm_up_rounds": 1},
            "`warm_up_rounds=1` has no meaning with `full=trained`",
        ),
        (
            {"full": "none", "warm_up_rounds": 1},
            "`warm_up_rounds=1` has no meaning with `full=none`",
        ),
        (
            {"full": "none", "embedding": "none"},
            "`full=none` with `embedding=none` leaves no item embedding",
        ),
        (
            {"text_embeddings": "x.npz", "full_init": "random"},
            "`text_embeddings=x.npz` .* with `full=frozen` and `full_init=random`",
        ),
        (
            {"text_embeddings": "x.npz", "full": "none"},
            "`text_embeddings=x.npz` has no effect with `full=none`",
        ),
        ({"cohort_size": 0}, "`cohort_size=0` must be at least 1"),
        ({"proximal": -0.1}, "`proximal=-0.1` must be at least 0"),
        ({"time_cut": 1.0}, "`time_cut=1.0` must be above 0 and below 1"),
        ({"valid_items": 2}, "`valid_items=2` must be at least 0 and at most 1"),
        (
            {"baselines": "random,oracle"},
            "`baselines`: 'oracle' is not known: use some of most_popular",
        ),
        (
            {"early_stopping_rounds": 9, "valid_items": 0},
            "`early_stopping_rounds=9` needs validation items: set `valid_items=1`",
        ),
        ({"upload": "identity, int3"}, "unknown upload 'int3': use one of"),
        ({"upload": "clip_by_norm"}, "upload 'clip_by_norm' needs 'max_norm'"),
        ({"upload": "clip_by_norm(max_norm=0.0)"}, "max_norm must be above 0"),
        ({"download": "clip_by_norm(max_norm=1.0)"}, "unknown download 'clip_by_norm'"),
        ({"embedding": "lora(rank=0)"}, "rank must be .* at least 1 .* got 0"),
        ({"embedding": "lora(rank=1.5)"}, "cannot take rank=1.5"),
        ({"embedding": "lora(rank"}, r"cannot read 'lora\(rank'"),
        ({"embedding": "lora(4)"}, r"cannot read 'lora\(4\)': write name or name"),
        ({"embedding": "lora(rank=size)"}, r"cannot read 'lora\(rank=size\)'"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        configure(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", REGISTRIES)
def test_an_unknown_plugin_or_argument_lists_what_there_is(setting):
    kind = setting.replace("_", " ")
    with pytest.raises(InputError, match=f"unknown {kind} 'nosuch': use one of") as e:
        configure(**{setting: "nosuch"})
    for name, factory in REGISTRIES[setting].items():
        assert name in str(e.value)
        message = f"{kind} '{name}' has no argument 'nosuch': use {name}"
        with pytest.raises(InputError, match=message):
            configure(**{setting: f"{name}(nosuch=1)"})
        needed = specs.arguments(factory).values()
        for argument in [p.name for p in needed if p.default is p.empty]:
            with pytest.raises(InputError, match=f"'{name}' needs '{argument}'"):
                configure(**{setting: name})


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_plugin_that_cannot_be_built_names_its_setting(monkeypatch, error):
    def broken():
        raise error("no luck")

    monkeypatch.setitem(AGGREGATORS, "broken", broken)
    with pytest.raises(InputError, match="`aggregator='broken'` .* no luck"):
        configure(aggregator="broken")


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
    assert configure(**settings).run.warm_up_rounds == warm_up


@pytest.mark.parametrize("full", ["trained", "frozen", "none"])
def test_the_model_of_each_phase(full):
    settings = configure(full=full, embedding="lora(rank=3)", features=6).model
    model = make_model(settings, num_items=11)
    assert isinstance(model, FedMF)
    embedding = model.item_embedding
    assert (embedding.num_items, embedding.features) == (11, 6)
    assert embedding.full == (None if full == "none" else full)
    lora = embedding.compressed(num_items=11, features=6, parent=None)
    assert isinstance(lora, LoRA)
    assert lora.rank == 3

    warm_up = make_model(settings, num_items=11, warm_up=True).item_embedding
    assert (warm_up.full, warm_up.compressed) == ("trained", None)


def test_a_backbone_gets_its_arguments():
    settings = configure(backbone="fedmf(init_scale=0.7)").model
    assert make_model(settings, 2).init_scale == 0.7


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
    assert configure(**settings).uses_text is uses_text


def test_an_embedding_that_reads_text_may_be_given_embeddings(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "reader", Reader)
    config = configure(full="none", embedding="reader", text_embeddings="x.npz")
    assert config.uses_text


# Suggestions


def reader_that(**suggested):
    """An embedding that suggests values."""
    return type("Suggests", (Reader,), {"suggestions": Suggestions(**suggested)})


def test_what_is_left_out_is_what_the_embedding_suggests(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "reader", reader_that(latent_scale=0.25))
    config = configure(embedding="reader")
    assert config.model.latent_scale == 0.25
    assert make_model(config.model, 5).item_embedding.init_scale == 0.25
    # A given value wins, and without the embedding its suggestions do not count.
    assert configure(embedding="reader", latent_scale=2.0).model.latent_scale == 2.0
    assert configure(merge_every=0).model.latent_scale == 1.0
    table = configure(full="trained", embedding="none")
    assert table.model.latent_scale == 0.5
    assert table.server.server_optimizer == "sgd(learning_rate=5.0)"
    assert config.server.server_optimizer == "sgd(learning_rate=5.0)"


@pytest.mark.parametrize(
    ("settings", "aggregator", "scale"),
    [
        ({}, "mean", 0.3),
        ({"merge_every": 0}, "mean", 1.0),
        ({"full": "trained", "embedding": "none"}, "mean", 0.5),
        ({"full": "none"}, "mean", 1.0),
        ({"full_init": "random", "embedding": "reader"}, "mean", 1.0),
        ({"full_init": "random"}, "sparse_row_mean", 0.1),
        ({"full_init": "random", "aggregator": "mean"}, "mean", 0.1),
        ({"full_init": "random", "latent_scale": 0.5}, "sparse_row_mean", 0.5),
        (
            {"full": "trained", "embedding": "none", "full_init": "random"},
            "sparse_row_mean",
            0.1,
        ),
    ],
)
def test_a_model_without_text_has_its_own_defaults(
    monkeypatch, settings, aggregator, scale
):
    monkeypatch.setitem(EMBEDDINGS, "reader", Reader)
    config = configure(**settings)
    assert config.server.aggregator == aggregator
    assert config.model.latent_scale == scale
    assert configure(**config.flat()) == config


def test_suggestions_for_merges_count_only_in_runs_that_merge(monkeypatch):
    """An embedding that can restart, and suggests no merges, is not merged."""
    restart = {"restart": lambda self, key: {}}
    monkeypatch.setitem(EMBEDDINGS, "starts", type("Starts", (Reader,), restart))
    config = configure(embedding="starts", backbone="fedpergnn")
    assert config.run.merge_every == 0
    assert config.server.server_optimizer == "sgd(learning_rate=5.0)"
    config = configure(embedding="starts", backbone="fedpergnn", merge_every=5)
    assert config.server.server_optimizer == "sgd(learning_rate=20.0)"


def test_a_run_of_an_earlier_version_did_not_merge():
    values = configure(merge_every=0).flat()
    del values["merge_every"]
    assert restore(values).run.merge_every == 0
    assert differences(values, configure(merge_every=0).flat(), places=True) == {}
    assert "merge_every" in differences(values, configure().flat(), places=True)


def test_the_recommenders_suggestion_wins_over_the_embeddings(monkeypatch):
    suggested = {"latent_scale": 0.25, "server_optimizer": "sgd(learning_rate=2.0)"}
    monkeypatch.setitem(EMBEDDINGS, "reader", reader_that(**suggested))
    backbone = type("Mine", (FedMF,), {"suggestions": Suggestions(latent_scale=0.5)})
    monkeypatch.setitem(REGISTRIES["backbone"], "mine", backbone)
    config = configure(embedding="reader", backbone="mine")
    assert config.model.latent_scale == 0.5
    assert config.server.server_optimizer == "sgd(learning_rate=2.0)"


@pytest.mark.parametrize(
    ("given", "size"),
    [({}, 3), ({"cohort_size": 5}, 5), ({"cohort_fraction": 0.5}, 20)],
)
def test_a_suggested_cohort_size_is_used_and_written(monkeypatch, given, size):
    monkeypatch.setitem(EMBEDDINGS, "reader", reader_that(cohort_size=3))
    config = configure(embedding="reader", **given)
    assert config.sampling(40).size == size
    assert configure(**config.flat()).sampling(40).size == size


@pytest.mark.parametrize(("full", "rounds"), [("frozen", 7), ("none", 0)])
def test_a_suggested_warm_up_is_for_frozen_tables(monkeypatch, full, rounds):
    monkeypatch.setitem(EMBEDDINGS, "reader", reader_that(warm_up_rounds=7))
    assert configure(full=full, embedding="reader").run.warm_up_rounds == rounds


def test_a_suggestion_is_checked_as_a_given_value(monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "reader", reader_that(latent_scale=-1.0))
    with pytest.raises(InputError, match=r"`latent_scale=-1.0` must be above 0"):
        configure(embedding="reader")
    with pytest.raises(TypeError, match="latent_scal"):
        Suggestions(latent_scal=1.0)


def test_suggestions_name_settings():
    assert set(Suggestions._fields) <= set(FIELDS)


# What follows from the settings


@pytest.mark.parametrize("embedding", ["none", *EMBEDDINGS])
def test_the_flat_settings_are_complete_and_make_the_same_run(embedding):
    config = configure(embedding=embedding)
    settings = config.flat()
    assert list(settings) == list(FIELDS)
    for name in set(Suggestions._fields) - {"cohort_size"}:
        assert settings[name] is not None
    assert configure(**json.loads(json.dumps(settings))) == config


def test_registries_name_settings():
    assert set(REGISTRIES) <= set(FIELDS)
    settings = configure().flat()
    for setting in REGISTRIES:
        assert settings[setting].partition("(")[0] in REGISTRIES[setting]


def test_cohort_is_a_rounded_share_or_a_number():
    assert configure().sampling(6040).size == 604
    assert configure(cohort_fraction=0.25).sampling(10).size == 2
    assert configure(cohort_fraction=0.001).sampling(10).size == 1
    assert configure(cohort_fraction=1.0).sampling(10).size == 10
    assert configure(cohort_size=7).sampling(6040).size == 7
    assert configure(cohort="poisson").sampling(6040) == PoissonCohorts(6040, 0.1)


def test_name_leaves_arguments_out():
    assert configure().name == "synthetic-fedmf-frozen-lora"
    full = configure(full="trained", embedding="none", backbone="fedmf(init_scale=1)")
    assert full.name == "synthetic-fedmf-trained-none"


def test_the_warm_up_help_states_the_default():
    assert str(WARM_UP_ROUNDS) in FIELDS["warm_up_rounds"].metadata["help"]
