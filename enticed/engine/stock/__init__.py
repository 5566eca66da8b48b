"""What is done with this host's own disk."""
