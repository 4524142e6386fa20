"""One set of unimodal autoencoders, and each paper's latent structure fitted to their encodings."""
