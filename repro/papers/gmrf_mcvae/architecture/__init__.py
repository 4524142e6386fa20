"""Networks printed from the code, and what they cost."""
