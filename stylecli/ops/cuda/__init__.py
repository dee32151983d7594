"""The one kernel source, what builds launches of it, and what compiles and launches it."""
