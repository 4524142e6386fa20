"""Data with heavy, skewed tails, beyond the paper."""
