"""Differential privacy: mechanisms, accounting, secure sums, attacks and audits.

Nothing here knows of federated rounds. `experiment` puts mechanisms into the rounds of
a run, and shows attackers what a server sees.
"""
