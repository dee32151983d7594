"""Walks through latent space, truncation and noise: everything is a function of the frame."""
