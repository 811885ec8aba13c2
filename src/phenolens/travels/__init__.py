"""Interpolate a control cell towards a treatment in latent space, decoded and measured."""
