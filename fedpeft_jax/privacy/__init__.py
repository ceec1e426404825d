"""Differential privacy: mechanisms, accounting, secure sums, attacks and audits.

Nothing here knows of federated rounds. `experiment` puts mechanisms into the rounds of
a run, and shows attackers what a server sees.
"""

from fedpeft_jax.privacy.accounting import Accountant
from fedpeft_jax.privacy.calibration import calibrate, update_noise
from fedpeft_jax.privacy.events import check_accountable, default_adjacency
from fedpeft_jax.privacy.fixed_point import FixedPoint, finest_fixed_point
from fedpeft_jax.privacy.mechanisms import (
    MECHANISMS,
    Mechanism,
    bound,
    gaussian,
    laplace,
    noise,
)
from fedpeft_jax.privacy.secure_sum import SecureSum, secure_sum

__all__ = [
    "MECHANISMS",
    "Accountant",
    "FixedPoint",
    "Mechanism",
    "SecureSum",
    "bound",
    "calibrate",
    "check_accountable",
    "default_adjacency",
    "finest_fixed_point",
    "gaussian",
    "laplace",
    "noise",
    "secure_sum",
    "update_noise",
]
