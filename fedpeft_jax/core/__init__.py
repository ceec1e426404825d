"""What every other part builds on: errors, roles, keys, arrays, specs, settings."""
