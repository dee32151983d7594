"""Read other people's files into plain (configuration, named arrays), executing nothing."""
