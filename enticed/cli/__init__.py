"""`entice`: the command line. Starts fast: each command imports what it needs when it runs."""
