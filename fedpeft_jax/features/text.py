"""Encodes item texts as vectors, by TF-IDF or by a sentence model.

FedPEFT (arXiv 2512.13734) encodes item attributes with a sentence model. The default
here is TF-IDF with latent semantic analysis (Deerwester et al., 1990), because it needs
neither PyTorch nor a download.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features import cache

MAX_TFIDF_FEATURES = 256
_UNSEEN = 1e-3  # texts have norm 1; one of a smaller norm after the SVD has no encoding


class TextFeatures(NamedTuple):
    """Encodings of the items' texts.

    Attributes:
      encodings: float32[I, F]. Those of ``encode_texts`` have norm 1, except for the
        missing items.
      missing: bool[I], items without text, or for TF-IDF also items whose words are not
        in the encoding. Each of them has the mean of the other items' encodings.
      source: the encoder, or the file that the encodings come from.
    """

    encodings: np.ndarray
    missing: np.ndarray
    source: str


def encode_texts(
    texts: Sequence[str],
    encoder: str = "tfidf",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    note: cache.Note | None = None,
) -> TextFeatures:
    """Encodes one text per item, and caches the result by its content.

    Args:
      texts: I strings; an empty or blank string is an item without text.
      encoder: 'tfidf' for TF-IDF over words and word pairs, reduced to 256 dimensions
        or to as many as the texts have; otherwise a sentence-transformers model, by its
        name ('owner/model') or its local folder.
      cache_dir: folder of the cache; None for fedpeft_jax/encodings in the user's cache
        folder.
      seed: seed of TF-IDF's randomised decomposition; sentence models ignore it.
      note: receives a sentence if the cache is damaged or cannot be written; None for
        the log.

    Returns:
      A ``TextFeatures`` with rows of norm 1, and the mean of these rows for the items
      without text.

    Raises:
      InputError: if no item has text, or if the encoder is unknown, is not installed or
        cannot be loaded.

    Example:
      >>> import tempfile
      >>> texts = ["Alien (1979) horror", "Aliens (1986) horror", ""]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     features = encode_texts(texts, cache_dir=folder)
      >>> features.encodings.shape, features.missing.tolist()
      ((3, 2), [False, False, True])
    """
    kind, name = _parse_encoder(encoder)
    has_text = np.array([bool(text.strip()) for text in texts], bool)
    if not has_text.any():
        raise InputError(
            f"none of the {len(texts)} items has text to encode: use a data set with "
            "item attributes, `text_embeddings=FILE.npz`, or `full_init=random`"
        )
    identity: list[object] = [kind, seed] if kind == "tfidf" else [kind, name]
    if kind == "folder":
        identity = [kind, *cache.folder_fingerprint(name)]
    folder = cache.encodings_folder(cache_dir, identity, texts, note=note)
    cached = cache.read(folder, len(texts), note)
    if cached is not None:
        return TextFeatures(*cached, source=encoder)
    present = [text for text, keep in zip(texts, has_text, strict=True) if keep]
    if kind == "tfidf":
        rows = _encode_tfidf(present, seed)
    else:
        rows = _encode_sentences(present, name)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    seen = norms[:, 0] > 0
    rows = rows[seen] / norms[seen]
    missing = ~has_text
    missing[np.flatnonzero(has_text)[~seen]] = True
    encodings = np.empty((len(texts), rows.shape[1]), np.float32)
    encodings[~missing] = rows
    encodings[missing] = rows.mean(axis=0)
    cache.write(folder, encodings, missing, note)
    return TextFeatures(encodings, missing, encoder)


def _parse_encoder(encoder: str) -> tuple[str, str]:
    """Returns ('tfidf' | 'folder' | 'model', name or folder)."""
    if encoder == "tfidf":
        return "tfidf", encoder
    folder = Path(os.path.expanduser(encoder))
    if encoder and folder.is_dir():
        return "folder", str(folder)
    parts = encoder.split("/")
    # A name with more slashes, or with a leading dot or tilde, is interpreted as a
    # path.
    if len(parts) == 2 and all(parts) and encoder[0] not in ".~":
        return "model", encoder
    what = "is not a folder" if "/" in encoder else "is unknown"
    raise InputError(
        f"`text_encoder={encoder!r}` {what}: use 'tfidf', the name of a "
        "sentence-transformers model as 'owner/model' (such as "
        "'sentence-transformers/sentence-t5-base'), or the path of a model's folder"
    )


def _encode_tfidf(texts: list[str], seed: int) -> np.ndarray:
    """Returns TF-IDF vectors, reduced by a truncated SVD.

    A text that it cannot encode is all zeros.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize
    from sklearn.utils.extmath import randomized_svd

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        norm=None,
        token_pattern=r"(?u)\b\w+\b",  # years, and words of a single letter
    )
    try:
        weights = vectorizer.fit_transform(texts).tocsc()
    except ValueError as error:  # scikit-learn: empty vocabulary
        raise InputError(
            f"the {len(texts)} item texts hold no words (the first is {texts[0]!r}): "
            "check the text columns, or use `full_init=random`"
        ) from error
    if min(weights.shape) > MAX_TFIDF_FEATURES:
        # Leave out the terms of a single item: they are most of the vocabulary, would
        # take many of the dimensions, and relate no two items. An item that would lose
        # all of its terms keeps them.
        shared = np.diff(weights.indptr) > 1
        lonely = np.diff(weights[:, shared].tocsr().indptr) == 0
        own = np.diff(weights.tocsr()[lonely].tocsc().indptr) > 0
        weights = weights[:, shared | own]
    weights = normalize(weights.tocsr())
    rank = min(MAX_TFIDF_FEATURES, *weights.shape)
    # As scikit-learn's TruncatedSVD, which fails if there is only one term.
    left, scales, _ = randomized_svd(weights, rank, n_iter=5, random_state=seed)
    rows: np.ndarray = left * scales
    # Otherwise the rounding errors of a text outside the kept dimensions would be
    # scaled to norm 1.
    rows[np.linalg.norm(rows, axis=1) < _UNSEEN] = 0.0
    return rows


def _encode_sentences(texts: list[str], name: str) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(
            f"`text_encoder={name!r}` needs the package sentence-transformers: run "
            "pip install 'fedpeft_jax[text]', or use `text_encoder=tfidf`"
        ) from error
    try:
        model = SentenceTransformer(name)
    except Exception as error:  # a missing file, no network, or a broken model
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"`text_encoder={name!r}` cannot be loaded ({reason}): pass a local "
            "folder with the model, or use `text_encoder=tfidf`"
        ) from error
    rows = model.encode(texts, convert_to_numpy=True, show_progress_bar=False)
    encodings = np.asarray(rows, np.float64)
    if not np.isfinite(encodings).all():
        raise InputError(
            f"`text_encoder={name!r}` returned NaN or infinite values: use another "
            "model, or `text_encoder=tfidf`"
        )
    return encodings
