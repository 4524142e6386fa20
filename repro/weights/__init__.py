"""Weights that ship with the package, read by :mod:`repro.weights.shipped`."""
