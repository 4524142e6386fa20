"""Former names of the baselines' classes, by which models were pickled and published."""

from __future__ import annotations

from repro.baselines.models import Baseline, BaselineSettings

__all__ = ["JointBaseline", "JointBaselineSettings"]

JointBaseline, JointBaselineSettings = Baseline, BaselineSettings
