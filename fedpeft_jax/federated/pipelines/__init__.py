"""Upload and download pipelines, and the registries of their stages."""

from collections.abc import Callable

from fedpeft_jax.federated.pipelines.base import (
    Download,
    Upload,
    chain_downloads,
    chain_uploads,
    identity_download,
    identity_upload,
)
from fedpeft_jax.federated.pipelines.bfloat16 import bfloat16_download, bfloat16_upload
from fedpeft_jax.federated.pipelines.clip_by_norm import clip_by_norm
from fedpeft_jax.federated.pipelines.int4 import int4_download, int4_upload
from fedpeft_jax.federated.pipelines.int8 import int8_download, int8_upload
from fedpeft_jax.federated.pipelines.rows import rows
from fedpeft_jax.federated.pipelines.top_k import top_k

UPLOADS: dict[str, Callable[..., Upload]] = {
    "identity": identity_upload,
    "bfloat16": bfloat16_upload,
    "clip_by_norm": clip_by_norm,
    "int8": int8_upload,
    "int4": int4_upload,
    "top_k": top_k,
    "rows": rows,
}
"""Factories by the names that the setting `upload` takes."""

DOWNLOADS: dict[str, Callable[..., Download]] = {
    "identity": identity_download,
    "bfloat16": bfloat16_download,
    "int8": int8_download,
    "int4": int4_download,
}
"""Factories by the names that the setting `download` takes."""

__all__ = [
    "DOWNLOADS",
    "UPLOADS",
    "Download",
    "Upload",
    "bfloat16_download",
    "bfloat16_upload",
    "chain_downloads",
    "chain_uploads",
    "clip_by_norm",
    "identity_download",
    "identity_upload",
    "int4_download",
    "int4_upload",
    "int8_download",
    "int8_upload",
    "rows",
    "top_k",
]
