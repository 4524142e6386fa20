"""Extended PolyMNIST: Tables 5 to 7 and the figures on it."""
