"""The Gaussian copula: Table I, its sweep and ablations, Figures 2, 5 and 6."""
