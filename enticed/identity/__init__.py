"""This host's keys and certificate, the cluster that it belongs to, and how it came to."""
