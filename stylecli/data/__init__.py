"""Pictures in, training batches out: sources, the LMDB writer and reader, the loader."""
