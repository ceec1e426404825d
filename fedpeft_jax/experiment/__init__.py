"""Experiments: settings, phases, and the driver that runs them and records results."""
