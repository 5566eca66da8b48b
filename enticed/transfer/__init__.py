"""Peers over TLS: sessions, and the bytes of images."""
