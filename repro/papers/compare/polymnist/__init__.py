"""All models on three modalities of Extended PolyMNIST, by coherence and Fréchet distance."""
