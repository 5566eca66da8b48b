"""What comes from other hosts and the origin, and what goes to them."""
