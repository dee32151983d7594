"""Look through a source or a dataset before training: what is in it, what is wrong, what helps."""
