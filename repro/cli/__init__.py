"""The command ``repro``."""
