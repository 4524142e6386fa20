"""Networks of appendix D, printed from the code."""
