"""The command line: one file per command; parse, call the library, hand the result to output."""
