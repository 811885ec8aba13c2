"""What the latent features of a model stand for."""
