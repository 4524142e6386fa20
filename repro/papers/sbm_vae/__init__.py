"""Score-Based Multimodal Autoencoder (Wesego and Rooshenas)."""
