"""Evaluation: ranks held-out items by any score function, and summarises the ranks."""
