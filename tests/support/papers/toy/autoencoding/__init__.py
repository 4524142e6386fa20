"""The toy paper's one experiment."""
