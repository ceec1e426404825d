"""Readers: each turns one kind of file or table into rows, and does nothing else."""
