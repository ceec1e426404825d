"""What runs of earlier versions did, which did not have some settings of today."""

import dataclasses
from typing import Any

from fedpeft_jax.experiment.privacy_settings import PrivacySettings

EARLIER: dict[str, Any] = {
    "merge_every": 0,
    "cohort": "fixed",
    **{field.name: field.default for field in dataclasses.fields(PrivacySettings)},
}
"""The values of settings that earlier versions did not have, by name."""
