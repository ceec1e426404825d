"""Keeps compiled programs on disk, so that the same run starts sooner the next time."""

import jax

from fedpeft_jax.core.user_cache import user_cache


def use_compilation_cache() -> None:
    """Stores compiled programs in the user's cache folder.

    It does nothing if JAX is configured with another folder.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        folder = user_cache("jax")
        if folder is not None:
            jax.config.update("jax_compilation_cache_dir", str(folder))
