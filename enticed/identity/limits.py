"""Limits of trust: bundles, renewals, the book of certificates, backups. The others stand in `enticed/limits.py`."""

from protocol.limits import MIB

RENEWAL_TIMEOUT_S = 20.0
RENEWAL_CHECK_S = 3600.0
RENEWALS_MIN_INTERVAL_S = 10.0
TRUST_USELESS_MAX_COUNT = 16
"""Trust bundles of one host within PATIENCE_WINDOW_S that are none, or no news; then it is hung up on."""
RENEWED_REMEMBERED_MAX_COUNT = 65_536
CERTIFICATE_WARNING_S = 7 * 86400.0
"""A certificate that ends within so long has failed to renew for a week, and people are told."""
CERTIFIED_FILE_MAX_SIZE_BYTES = 256 * 1024 * 1024
CERTIFIED_LINES_SPARE_COUNT = 1024
"""Of certificates that others have followed, before the book is written anew without them."""
CERTIFIED_ID_MIN_CHARS = 8
"""Of the beginning of an id that is to mean a host."""
REVOCATION_IDS_TOLD_COUNT = 8
"""Of hosts that one name means, where one is to be revoked."""
BACKUP_MAX_SIZE_BYTES = 512 * MIB
PASSPHRASE_MIN_CHARS = 12
COSIGNED_USELESS_MAX_COUNT = 64
"""Signatures of one host within PATIENCE_WINDOW_S that were no news; then it is hung up on."""
COSIGNED_KNOWN_MAX_COUNT = 256
"""Statements whose signatures have come lately: all hosts that have an image tell each other."""
COSIGN_HOLDERS_MAX_COUNT = 16
"""Hosts with an image that are given a further signature; they give it to others."""
COSIGN_TIMEOUT_S = 5.0
"""For one of them."""
QUOTA_MAX_BYTES = 2**60
"""That can be said of a scheduler."""
