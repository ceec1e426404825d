"""Turns item texts into encodings, or reads encodings that were made elsewhere.

FedPEFT (arXiv 2512.13734) encodes item attributes with a sentence model. TF-IDF with
latent semantic analysis (Deerwester et al., 1990) is the default here, because it needs
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
_UNSEEN = 1e-3  # share of a text's unit norm below which the encoding says nothing


class TextFeatures(NamedTuple):
    """Encodings of the items' texts.

    Attributes:
      encodings: float32[I, F]; of length 1 where they come from ``encode_texts``, but
        for the missing items.
      missing: bool[I], items without text (or whose words, for TF-IDF, the encoding
        leaves out); theirs is the mean of the other items' encodings.
      source: the encoder, or the file that the encodings were read from.
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
) -> TextFeatures:
    """Encodes one text an item, and keeps the result in a cache by content.

    Args:
      texts: I strings; an empty or blank one is an item without text.
      encoder: 'tfidf' for TF-IDF over words and word pairs, reduced to 256 dimensions
        or as many as the texts have; else a sentence-transformers model, by its name
        ('owner/model') or local folder.
      cache_dir: where encodings are kept; None for fedpeft_jax/encodings in the user's
        cache folder. A folder that cannot be written is a warning in the log.
      seed: of TF-IDF's randomised decomposition; sentence models ignore it.

    Returns:
      A ``TextFeatures``: rows of length 1, and the mean of those rows for the items
      without text.

    Raises:
      InputError: if no item has text, or the encoder is unknown, not installed or
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
            "item attributes, --text_embeddings=FILE, or --full_init=random"
        )
    identity: list[object] = [kind, seed] if kind == "tfidf" else [kind, name]
    if kind == "folder":
        identity = [kind, *cache.folder_fingerprint(name)]
    path = cache.encodings_path(cache_dir, identity, texts)
    cached = cache.read(path, len(texts))
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
    cache.write(path, encodings, missing)
    return TextFeatures(encodings, missing, encoder)


def _parse_encoder(encoder: str) -> tuple[str, str]:
    """Returns ('tfidf' | 'folder' | 'model', name or folder)."""
    if encoder == "tfidf":
        return "tfidf", encoder
    folder = Path(os.path.expanduser(encoder))
    if encoder and folder.is_dir():
        return "folder", str(folder)
    parts = encoder.split("/")
    # More than one slash, or a leading dot or tilde, can only be meant as a path.
    if len(parts) == 2 and all(parts) and encoder[0] not in ".~":
        return "model", encoder
    what = "is not a folder" if "/" in encoder else "is unknown"
    raise InputError(
        f"text encoder {encoder!r} {what}: use 'tfidf', the name of a "
        "sentence-transformers model as 'owner/model' (such as "
        "'sentence-transformers/sentence-t5-base'), or the path of a model's folder"
    )


def _encode_tfidf(texts: list[str], seed: int) -> np.ndarray:
    """TF-IDF reduced by a truncated SVD; a row of zeros is a text it does not see."""
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
            "check the text columns, or use --full_init=random"
        ) from error
    if min(weights.shape) > MAX_TFIDF_FEATURES:
        # Where dimensions are scarce, none goes to the terms of a single item: they are
        # most of the vocabulary and say nothing about likeness. Only items that would
        # be left without any term keep theirs.
        shared = np.diff(weights.indptr) > 1
        lonely = np.diff(weights[:, shared].tocsr().indptr) == 0
        own = np.diff(weights.tocsr()[lonely].tocsc().indptr) > 0
        weights = weights[:, shared | own]
    weights = normalize(weights.tocsr())
    rank = min(MAX_TFIDF_FEATURES, *weights.shape)
    # This is what scikit-learn's TruncatedSVD computes, which fails for a single term.
    left, scales, _ = randomized_svd(weights, rank, n_iter=5, random_state=seed)
    rows: np.ndarray = left * scales
    # A text outside the kept dimensions would otherwise be rounding blown up to 1.
    rows[np.linalg.norm(rows, axis=1) < _UNSEEN] = 0.0
    return rows


def _encode_sentences(texts: list[str], name: str) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(
            f"text encoder {name!r} needs the package sentence-transformers: run "
            "pip install 'fedpeft_jax[text]', or pass --text_encoder=tfidf"
        ) from error
    try:
        model = SentenceTransformer(name)
    except Exception as error:  # a missing file, no network, a broken model: all alike
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"text encoder {name!r} cannot be loaded ({reason}): pass a local folder "
            "with the model, or --text_encoder=tfidf"
        ) from error
    rows = model.encode(texts, convert_to_numpy=True, show_progress_bar=False)
    encodings = np.asarray(rows, np.float64)
    if not np.isfinite(encodings).all():
        raise InputError(
            f"text encoder {name!r} gave NaN or infinite values: pass another model, "
            "or --text_encoder=tfidf"
        )
    return encodings
