"""All models on pairs of correlated MNIST: how much of the true correlation each recovers."""
