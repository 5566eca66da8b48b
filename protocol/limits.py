"""Every limit of the wire and of the image format, its unit in its name.

A limit that both sides of a connection must agree on stands here; limits of one daemon (threads, queues, budgets)
stand in `enticed/limits.py`.
"""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# --- images ---
BLOCK_SIZE_BYTES = 4 * KIB
WINDOW_MIN_SIZE_BYTES = 1 * MIB
WINDOW_MAX_SIZE_BYTES = 64 * MIB
PIECES_WANTED = 1024
"""The window is the largest that still gives an image so many pieces (else the smallest window)."""
FRAGMENT_MIN_BLOCKS = 16
FRAGMENT_MAX_BLOCKS = 256
FRAGMENT_MAX_SIZE_BYTES = FRAGMENT_MAX_BLOCKS * BLOCK_SIZE_BYTES
IMAGE_MAX_SIZE_BYTES = 8 * TIB
IMAGE_MAX_PIECES = IMAGE_MAX_SIZE_BYTES // WINDOW_MAX_SIZE_BYTES
PAGE_MAX_FRAGMENTS = WINDOW_MAX_SIZE_BYTES // BLOCK_SIZE_BYTES // 2
"""Holes split fragments: at the worst every other block of a window is a fragment of its own."""
ROOT_MAX_SIZE_BYTES = 8 * MIB

# --- requests ---
REQUEST_MAX_SIZE_BYTES = 3 * MIB
"""So that a piece of a window of 2 MiB, whose last fragment may end in the next one, is one request."""
REQUEST_MAX_FRAGMENTS = 256
"""What one request names is contiguous fragments of one piece, at most so many and so many bytes."""

# --- frames and messages ---
FRAME_MAX_SIZE_BYTES = 64 * KIB
"""A control frame: the largest is a have-map of `IMAGE_MAX_PIECES` bits (16 KiB)."""
HAVE_CHANGE_MAX_PIECES = 4096
ARRAY_MAX_COUNT = HAVE_CHANGE_MAX_PIECES
"""Of any array in any message: beyond it nothing is allocated for what an array says of itself."""
ALTERNATIVES_MAX_COUNT = 8
CAPABILITIES_MAX_COUNT = 32
CAPABILITY_MAX_CHARS = 32
REASON_MAX_CHARS = 256
REMOTE_KEY_MAX_CHARS = 64
"""Of an order that one host places on another; the other puts the host's id before it."""
LABEL_SHARDS_COUNT = 64
"""Keys of the DHT over which the hosts with one label are spread."""

# --- names, statements, records ---
NAME_MAX_CHARS = 200
LABEL_MAX_CHARS = 64
LABEL_KEY_MAX_CHARS = 32
LABELS_MAX_COUNT = 8
LABELS_MAX_CHARS = 256
"""Of all labels of a host, written `key=value`: they travel in every first contact, with its certificate."""
STATEMENT_MAX_SIZE_BYTES = 16 * KIB
STATEMENT_MAX_RELATIVES = 8
STATEMENT_MAX_SIGNATURES = 4
SOURCE_FORMAT_MAX_CHARS = 16
PROFILE_MAX_RUNS = 1024
PROFILE_RUN_MAX_BLOCKS = 2**14
PROFILE_MAX_BLOCKS = 2**18
"""1 GiB: what a hint may have a host fetch ahead of its readers."""
STATEMENTS_MAX_COUNT = 8
"""Statements that a daemon keeps and serves for one image."""
NAME_RECORD_MAX_SIZE_BYTES = 1000
NAME_VERSION_MAX_LEAD = 86_400
"""How far a name's version may be ahead of the second in which it was issued: who steals a key cannot use them up."""
RECALL_REASON_MAX_CHARS = 100
RECALL_MAX_SIZE_BYTES = NAME_RECORD_MAX_SIZE_BYTES
"""It travels in the DHT as a name does."""
REPLICAS_MAX_COUNT = 64
"""That a publisher may want of an image at the least: the DHT counts fewer than a shelf's providers exactly."""
FLOOR_MAX_SIZE_BYTES = NAME_RECORD_MAX_SIZE_BYTES
FLOORS_SAID_COUNT = 32
"""In one message."""
PROVIDER_RECORD_MAX_SIZE_BYTES = 512
ADDRESSES_MAX_COUNT = 4
ADDRESS_MAX_CHARS = 64

# --- groups ---
GROUP_SECRET_SIZE_BYTES = 32
GROUP_TOKEN_MAX_CHARS = 128
GROUPS_MAX_COUNT = 16
"""Of one host: so many proofs are said on a session."""
PRIVACY_MAX_SIZE_BYTES = 1000

# --- datagrams ---
DATAGRAM_MIN_SIZE_BYTES = 28
DATAGRAM_MAX_SIZE_BYTES = 1232
"""1,280 bytes that every IPv6 link carries, less the headers of IPv6 and UDP."""
CERTIFICATE_MAX_SIZE_BYTES = 1024
DATAGRAM_CAPABILITIES_MAX_COUNT = 8
REPLAY_WINDOW_COUNT = 4096
"""How far behind the newest a datagram may come in. Wide, since the sender's counter counts what others get too."""
CONTACTS_MAX_COUNT = 16
PROVIDERS_MAX_COUNT = 8
"""Of one answer. Fewer where the datagram is full."""

# --- times ---
PROVIDER_REFRESH_S = 15 * 60
PROVIDER_EXPIRY_S = 40 * 60
CLOCK_SKEW_MAX_S = 5 * 60

# --- trust ---
ENVELOPE_MAX_SIZE_BYTES = 64 * KIB
"""Of any signed payload; each kind has a narrower limit of its own."""
ENVELOPE_TYPE_MAX_CHARS = 64
AUTHORITY_MAX_SIZE_BYTES = 1024
REQUEST_FOR_CERTIFICATE_MAX_SIZE_BYTES = 1024
TRUST_MAX_AUTHORITIES = 4
TRUST_MAX_PUBLISHERS = 32
PUBLISHER_MAX_NAMES = 8
NAME_PATTERN_MAX_CHARS = 64
TRUST_MAX_REGISTRARS = 8
TRUST_MAX_SCHEDULERS = 64
TRUST_MAX_REVOKED = 768
"""Revocations are dropped once the certificate in question has ended."""
TRUST_MAX_SIZE_BYTES = 60 * KIB
"""So that it fits a frame."""
TOKEN_MAX_CHARS = 256
TOKEN_ID_SIZE_BYTES = 8
TOKEN_SECRET_SIZE_BYTES = 24
