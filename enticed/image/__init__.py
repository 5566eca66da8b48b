"""Disk images on this host: reading what the caller opened, cutting it into fragments, giving it out again."""
