"""What stays on this host, for how long, and how many copies of an image there are to be elsewhere."""
