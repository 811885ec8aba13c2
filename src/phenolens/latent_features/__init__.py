"""What each latent feature is used for and correlates with."""
