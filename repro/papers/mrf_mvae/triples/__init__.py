"""MNIST triples: Table IV, Figures 6 to 9."""
