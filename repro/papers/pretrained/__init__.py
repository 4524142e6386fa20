"""Networks that the experiments take as given: the VAEGAN behind correlated MNIST and the digit classifiers."""
