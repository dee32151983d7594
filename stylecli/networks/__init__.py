"""Networks: configurations, layers, generators, discriminators and the bundle of all."""
