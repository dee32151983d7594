"""The one kernel source, what builds launches of it, and what compiles, checks and runs them."""
