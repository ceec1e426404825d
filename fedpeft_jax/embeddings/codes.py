"""Codes of items: their data type when sent, and how well they distinguish items."""

from typing import Any

import numpy as np


def code_dtype(size: int) -> np.dtype[Any]:
    """Returns the smallest unsigned type that holds all codes below `size`.

    Example:
      >>> code_dtype(256), code_dtype(257)
      (dtype('uint8'), dtype('uint16'))
    """
    return np.min_scalar_type(size - 1)


def shared_codes(codes: np.ndarray) -> dict[str, Any]:
    """Returns figures of how well codes distinguish items.

    Args:
      codes: int[I, l], one tuple of codes per item.

    Returns:
      `distinct_codes`, the number of different tuples, and `collision_rate`, the share
      of items that have the same tuple as another item.

    Example:
      >>> shared_codes(np.array([[0, 1], [1, 0], [0, 1], [2, 2]]))
      {'distinct_codes': 3, 'collision_rate': 0.5}
    """
    _, counts = np.unique(codes, axis=0, return_counts=True)
    alike = int(counts[counts > 1].sum())
    return {"distinct_codes": len(counts), "collision_rate": alike / len(codes)}
