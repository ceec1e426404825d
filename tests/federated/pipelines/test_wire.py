"""Bytes on the wire: every strategy and stage, encoded, decoded and counted."""

import functools
import json
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, ROWS, SENT, SHARED, gather_rows, select
from fedpeft_jax.experiment import configure, make_algorithm, make_model
from fedpeft_jax.experiment.traffic import measure_traffic
from fedpeft_jax.federated import ClientUpdate, init_server
from fedpeft_jax.federated.pipelines.wire import (
    WireFormat,
    download_format,
    read_header,
    upload_format,
    wire_format,
)
from tests.helpers import assert_same

pytestmark = pytest.mark.usefixtures("quick_compilation")

I, D = 23, 5  # noqa: E741
COUNTS = np.array([3, 20])
STRATEGIES = {
    "full": ("trained", "none"),
    "frozen": ("frozen", "none"),
    "lora": ("frozen", "lora(rank=3)"),
    "hash": ("frozen", "hash(num_buckets=7, pooling='senet')"),
    "rq": ("none", "rq(num_codebooks=2, codebook_size=6)"),
}
NUMBERS = [
    "identity",
    "bfloat16",
    *(f"int8(block='{block}')" for block in ("column", "row", "tensor")),
    "int4",
]
UPLOADS = [
    *NUMBERS,
    "clip_by_norm(max_norm=0.5)",
    "top_k(k=11)",
    "top_k(k=100000, error_feedback=False)",
    "rows",
    "int8(block='row'), rows",
    "rows, int4",
    "clip_by_norm(max_norm=1.0), int8",
    "top_k(k=9), int8",
]


@functools.cache
def server_of(strategy):
    """Real values of a strategy's server; none of them is zero."""
    full, embedding = STRATEGIES[strategy]
    config = configure(full=full, embedding=embedding, features=D, warm_up_rounds=None
                       if full != "frozen" else 0)  # fmt: skip
    model = make_model(config.model, I)
    shapes = jax.eval_shape(lambda: init_server(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    return config, model, {FROZEN: {}, **jax.tree.map(draw, select(shapes, SENT))}


def algorithm_of(strategy, **stages):
    config, model, server = server_of(strategy)
    full, embedding = STRATEGIES[strategy]
    config = configure(
        full=full,
        embedding=embedding,
        features=D,
        warm_up_rounds=0 if full == "frozen" else None,
        **stages,
    )
    return make_algorithm(config.training, config.server, model), server


def received_again(format_, payload):
    """The message of a payload, checked against what the receiver decodes of it."""
    message = format_.encode(payload)
    assert_same(format_.decode(message), format_.structure.unflatten(
        jax.tree.leaves(payload if not isinstance(payload, ClientUpdate) else
                        {SHARED: payload.shared, ROWS: payload.rows})))  # fmt: skip
    by_name = read_header(format_.header).decode(message)
    arrays = jax.tree.leaves(format_.decode(message))
    assert list(by_name) == [entry.name for entry in format_.entries]
    assert_same(list(by_name.values()), arrays)
    return message


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("upload", UPLOADS)
def test_an_upload_is_as_long_as_the_run_counts(strategy, upload):
    algorithm, server = algorithm_of(strategy, upload=upload)
    stage = algorithm.upload
    format_ = upload_format(stage, server, I)
    traffic = measure_traffic("peft", algorithm, server, COUNTS)
    ids = np.arange(I)
    if stage.touched_rows:
        ids = np.array([4, 17, 0, 9])
    update = ClientUpdate(
        server[SHARED],
        gather_rows(server[ROWS], jnp.asarray(ids)),
        jnp.asarray(ids, jnp.int32),
        jnp.float32(1),
        jnp.float32(0),
    )
    state = stage.init(select(server, SENT))
    payload, _, _ = jax.jit(stage.encode)(update, state, jax.random.key(1))
    message = received_again(format_, payload)
    assert len(message) == traffic.uplink + traffic.row * len(ids)
    assert len(message) == format_.num_bytes(len(ids))
    # The server decodes the same from the bytes as in the simulation.
    sent = format_.decode(message)
    decode = jax.jit(stage.decode)
    wired = decode(payload._replace(shared=sent[SHARED], rows=sent[ROWS]))
    assert_same(wired, decode(payload))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("download", [*NUMBERS, "identity, int8"])
def test_a_download_is_as_long_as_the_run_counts(strategy, download):
    algorithm, server = algorithm_of(strategy, download=download)
    stage, sent = algorithm.download, select(server, SENT)
    payload = jax.jit(stage.encode)(sent, jax.random.key(1))
    format_ = download_format(stage, sent)
    message = received_again(format_, payload)
    traffic = measure_traffic("peft", algorithm, server, COUNTS)
    assert len(message) == traffic.downlink == format_.num_bytes()
    decode = jax.jit(stage.decode)
    assert_same(decode(format_.decode(message)), decode(payload))


def test_the_bytes_of_a_message_by_hand():
    payload = {"a": jnp.array([1, -2], jnp.int16), "b": jnp.float32(jnp.inf)}
    format_ = wire_format(payload)
    assert format_.encode(payload) == struct.pack("<hhf", 1, -2, np.inf)
    text = b'[["[\'a\']","int16",[2]],["[\'b\']","float32",[]]]'
    assert format_.header == (
        b"FPJX\x01" + struct.pack("<II", len(text), zlib.crc32(text)) + text
    )


def test_bits_of_nan_and_of_negative_zero_survive():
    x = np.array([0x7FC12345, 0x80000000, 0xFF800000], np.uint32).view(np.float32)
    format_ = wire_format({"x": x})
    found = format_.decode(format_.encode({"x": x}))["x"]
    np.testing.assert_array_equal(found.view(np.uint32), x.view(np.uint32))
    found[0] = 1.0  # the receiver may write to it


def rows_format():
    server = {SHARED: {"w": jnp.ones(2)}, ROWS: {"t": jnp.ones((I, 3))}}
    algorithm, _ = algorithm_of("lora", upload="rows")
    return algorithm.upload, upload_format(algorithm.upload, server, I)


def test_touched_rows_may_be_none_or_all():
    stage, format_ = rows_format()
    assert [entry.shape[0] for entry in format_.entries].count(None) == 2
    for count in (0, 1, I):
        update = ClientUpdate(
            {"w": jnp.ones(2)}, {"t": jnp.ones((count, 3))},
            jnp.arange(count, dtype=jnp.int32), jnp.float32(1), jnp.float32(0),
        )  # fmt: skip
        payload, _, _ = stage.encode(update, (), None)
        assert len(received_again(format_, payload)) == 8 + count * (4 + 12)


def test_a_message_of_another_length_is_an_error():
    _, format_ = rows_format()
    for length in (0, 7, 9, 8 + 15):
        with pytest.raises(InputError, match=f"the message has {length} bytes"):
            format_.decode(bytes(length))
    fixed = wire_format({"w": jnp.ones(2)})
    for length in (0, 7, 9, 16):
        with pytest.raises(InputError, match="its header describes 8: read the header"):
            fixed.decode(bytes(length))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"w": jnp.ones(3)}, "is float32.3. in place of float32.2."),
        ({"w": jnp.ones(2, jnp.bfloat16)}, "is bfloat16.2. in place of float32"),
        ({"v": jnp.ones(2)}, "another structure"),
        ({"w": jnp.ones((2, 1))}, "in place of float32"),
    ],
)
def test_a_payload_of_another_form_is_an_error(payload, message):
    with pytest.raises(InputError, match=message):
        wire_format({"w": jnp.ones(2)}).encode(payload)
    read = read_header(wire_format({"w": jnp.ones(2)}).header)
    with pytest.raises(InputError, match="other arrays than the header"):
        read.encode(payload)


def test_tables_of_different_rows_and_other_types_are_errors():
    stage, format_ = rows_format()
    update = ClientUpdate(
        {"w": jnp.ones(2)}, {"t": jnp.ones((3, 3))}, jnp.arange(2), 1.0, 0.0
    )
    payload, _, _ = stage.encode(update, (), None)
    with pytest.raises(InputError, match=r"arrays of \[2, 3\] rows"):
        format_.encode(payload)
    with pytest.raises(InputError, match="has type complex64: send one of float32"):
        wire_format({"z": jnp.ones(2, jnp.complex64)})


def framed(text, version=1):
    return b"FPJX" + struct.pack("<BII", version, len(text), zlib.crc32(text)) + text


HEADERS = {
    "empty": b"",
    "short": b"FPJX\x01",
    "no magic": b"x" * 40,
    "no JSON": framed(b"[["),
    "not UTF-8": framed(b"\xff\xfe"),
    "no list": framed(b"{}"),
    "a number": framed(b"3"),
    "an entry of two": framed(b'[["a","int8"]]'),
    "an entry that is a text": framed(b'["abc"]'),
    "another type": framed(b'[["a","object",[1]]]'),
    "a type that is a list": framed(b'[["a",["int8"],[1]]]'),
    "a negative axis": framed(b'[["a","int8",[-1]]]'),
    "a fraction": framed(b'[["a","int8",[1.0]]]'),
    "a truth": framed(b'[["a","int8",[true]]]'),
    "a long axis": framed(b'[["a","int8",[9999999999]]]'),
    "two numbers of rows": framed(b'[["a","int8",[null,null]]]'),
    "a name twice": framed(b'[["a","int8",[1]],["a","int8",[1]]]'),
    "a deep nest": framed(b"[" * 100_000),
    "another version": framed(b"[]", version=2),
    "longer": framed(b"[]") + b" ",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_header_is_one_clear_error(name):
    with pytest.raises(InputError) as caught:
        read_header(HEADERS[name])
    assert "\n" not in str(caught.value)
    assert "send it again" in str(caught.value) or "version" in str(caught.value)


def test_no_flipped_or_missing_byte_of_a_header_is_accepted():
    header = wire_format({"w": jnp.ones((2, 3)), "b": jnp.ones(4, jnp.bfloat16)}).header
    rng = np.random.default_rng(0)
    for place in range(len(header)):
        damaged = bytearray(header)
        damaged[place] ^= int(rng.integers(1, 256))
        for bad in (bytes(damaged), header[:place]):
            with pytest.raises(InputError):
                read_header(bad)


def test_random_descriptions_are_read_or_refused():
    """With a right checksum: a header from a hostile sender."""
    rng = np.random.default_rng(1)
    pieces = [
        "a",
        "int8",
        "float32",
        [],
        [1],
        [None],
        [2, 3],
        None,
        -1,
        {},
        "",
        1e9,
        [[]],
    ]
    read = 0
    for _ in range(400):
        size = int(rng.integers(0, 4))
        entries = [
            [pieces[i] for i in rng.integers(0, len(pieces), rng.integers(2, 5))]
            for _ in range(size)
        ]
        header = framed(json.dumps(entries).encode())
        try:
            found = read_header(header)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        read += 1
        assert isinstance(found, WireFormat) and json.loads(header[13:]) == [
            [name, dtype, list(shape)] for name, dtype, shape in found.entries
        ]
    assert 50 < read < 400
