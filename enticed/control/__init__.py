"""The control API on the daemon's unix socket: HTTP and JSON beside it a way to hand descriptors over."""
