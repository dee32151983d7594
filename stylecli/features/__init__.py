"""Networks that look at pictures, for metrics and for judging data: nothing here scores."""
