"""Scores from additive statistics: cross-modal V-information, label V-information, calibrated gates."""
