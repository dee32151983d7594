"""Operators of the networks: one fused operator per file, each with a plain-PyTorch reference."""
