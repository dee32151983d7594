"""Statistics of plain arrays: nearest neighbours, linear support vector machines, components."""
