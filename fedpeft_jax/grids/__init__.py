"""Grids: many runs that differ in some of their settings."""
