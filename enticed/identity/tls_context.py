"""What every TLS connection of members has in common, whichever process it is in: 1.3 only, certificates on both sides,
trust in the cluster's own CAs and nothing else."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import LocalError


def member_context(
    side: ssl._SSLMethod, directory: Path, authorities: Sequence[bytes], alpn: Sequence[str]
) -> ssl.SSLContext:
    """directory: of the host's identity. authorities: certificates of the CAs, DER."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    load(context, directory, authorities)
    context.set_alpn_protocols(list(alpn))
    return context


def load(context: ssl.SSLContext, directory: Path, authorities: Sequence[bytes]) -> None:
    """Have it show the host's present certificate, and believe these CAs besides those that it believes already.

    `LocalError` where the certificate or its key cannot be read.
    """
    context.load_verify_locations(cadata=b"".join(authorities))
    try:
        context.load_cert_chain(directory / "node.crt", directory / "node.key")
    except OSError as error:  # also what TLS cannot make anything of
        raise LocalError(f"the certificate in {directory} cannot be used: {error.strerror or error}") from error
