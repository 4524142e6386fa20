"""PolyMNIST and bicycles: Tables II and III, Figures 3 and 4."""
