"""Where pictures come from: one file per kind of source, ``recognition`` tells them apart."""
