"""Certificates of every role, and of other clusters, as a thief or a traitor would show them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from enticed.identity.certificates import new_credential, serial_number
from enticed.identity.host import HostKeys, identity_directory
from enticed.identity.pem import certificate_pem, key_pem, load_signing_key
from protocol.credentials import Role
from protocol.enrolment import sign_certificate
from tests.gateway.clients import Shown


def of_role(
    founder_state: Path,
    authority_der: bytes,
    role: Role,
    directory: Path,
    *,
    expired: bool = False,
    revoked: bool = False,
) -> Shown:
    """A certificate that the cluster's CA has signed for this role. expired: since yesterday.
    revoked: to be, by who asks for it."""
    keys = HostKeys.generate()
    then = time.time() - (400 * 86400 if expired else 0)
    credential = replace(new_credential(keys.node_key, keys.sealing_key, "", "", then), role=role, name="mallory")
    private = load_signing_key(identity_directory(founder_state) / "ca.key")
    certificate = sign_certificate(private, authority_der, credential, serial_number())
    name = f"{role.name.lower()}{'-expired' if expired else ''}{'-revoked' if revoked else ''}"
    shown = Shown(directory / f"{name}.crt", directory / f"{name}.key")
    shown.certificate.write_bytes(certificate_pem(certificate))
    shown.key.write_bytes(key_pem(keys.node))
    return shown
