"""Decisions: what a host does next, from what it was told and what time it is. No clock, dice, sockets or files."""
