"""The daemon that runs on every hypervisor host, and `entice`, the command that controls it."""

__version__ = "0.1.0.dev0"
