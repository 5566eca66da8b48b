"""What an operator sees of a running daemon and does to it: health, metrics, configuration."""
