"""The papers, one room each."""
