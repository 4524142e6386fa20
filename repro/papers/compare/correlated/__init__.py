"""CoVAE, GMRF MCVAE and SBM-VAE on the same three correlated modalities."""
