"""Several processes that work as one: who each is, how they start, and which of them is lost."""
