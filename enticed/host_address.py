"""The address of this host."""

import socket

# Nothing is sent there (RFC 5737 and RFC 3849: for documentation); the kernel only says which address it would use.
_FAR = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def own_address(family: socket.AddressFamily) -> str | None:
    """The address that this host uses towards far away, None without a route."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_FAR[family], 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
