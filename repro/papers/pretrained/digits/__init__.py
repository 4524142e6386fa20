"""Digit classifiers, which coherence is measured with, and the VAEGAN and the flow of correlated MNIST."""
