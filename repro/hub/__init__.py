"""Trained models by name: what is published, packed, pushed, pulled, verified and loaded."""
