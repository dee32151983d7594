"""The network in a browser: a server on this machine, its page, and the process that draws."""
