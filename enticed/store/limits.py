"""Limits of what the store keeps beside images, and of how it makes room."""

from protocol.limits import KIB, MIB

FREE_MAX_SIZE_BYTES = 2**53 - 1
"""That can be asked for: what any reader of JSON takes."""
PINS_MAX_COUNT = 4096
PIN_MAX_SIZE_BYTES = 1 * KIB
FLOORS_MAX_COUNT = 4096
"""Images for which a publisher says how many copies there are to be."""
FLOORS_ENDED_MAX_COUNT = 4096
"""And for which it has taken that back: so many are remembered, the latest."""
FLOOR_LOOKS_AT_ONCE_COUNT = 8
"""Images whose holders are counted, and called on, at the same time."""
FLOORS_SAID_EVERY_S = 0.05
"""Between two messages of FLOORS_SAID_COUNT floors: all there can be are said in a quarter of a minute, never much at
once."""
FLOORS_USELESS_MAX_COUNT = 64
"""Of one host within PATIENCE_WINDOW_S, of what is no floor; old ones are no fault of a host that was away."""
FLOOR_LOOK_EVERY_S = 3600.0
"""Between looks for floors of what is here: most are heard of as they spread."""

TOUCH_INTERVAL_S = 60.0
"""An image that is used all the time is noted as used so often: each time is a commit."""
UPLOAD_TOUCH_INTERVAL_S = 600.0
"""What peers fetch of an image is noted so often: they ask for pieces of it all day."""
SPACE_LOOK_INTERVAL_S = 30.0
"""Between two looks at whether the high mark or the guests' reserve is passed."""
HOLDERS_KNOWN_S = 60.0
"""So long it is not asked again how many other hosts hold an image; before it goes it is asked in any case."""
HOLDERS_ASKED_AT_ONCE_COUNT = 8
PROOF_TIMEOUT_S = 20.0
"""In which hosts that say they hold an image have to show some of it, before it goes here."""
PROOFS_TIMEOUT_S = 60.0
"""All of one pass together: what others only say after that counts for nothing in it."""
PROOF_AGAIN_S = 600.0
"""A host that has not answered within that, or was busy, is not asked again before; one that did not show an image,
not about that one."""
PROOFS_FAILED_MAX_COUNT = 16384
"""So many of the latter are remembered, the latest."""
PROOFS_FAILED_OF_HOST_COUNT = 3
"""Of one host, of different images, within PROOF_AGAIN_S: then it is asked about no other image either."""
CALLED_AGAIN_S = 60.0
"""A holder that was called on, and was there or not, is not called on again before, for the sake of any image."""
ROOM_TRIES_COUNT = 3
"""What others take at the same time may have to be made room for anew."""
UNPROVEN_S = 600.0
"""What an image's other holders have not shown is not asked for again before: each try takes back what is announced."""
EVICTIONS_MAX_COUNT = 256
"""Of one pass; what is beyond waits for the next."""

GUEST_FILES_MAX_COUNT = 65_536
"""Files of guests whose headers are read for the image that they stand on."""
GUEST_DEPTH_MAX_COUNT = 8
"""Of directories within a directory of guests."""
GUEST_CHAIN_MAX_COUNT = 64
"""Of backing files behind each other."""
QCOW2_HEADER_MAX_SIZE_BYTES = 2 * MIB
"""The first cluster of a qcow2 file, within which the name of its backing file is, has at most so much."""
OPENERS_NAMED_MAX_COUNT = 3
"""Processes that are named as having an image open."""

SMALL_IMAGE_MAX_FRAGMENTS = 4096
"""An image of no more is looked through in memory, together with others: half a GiB of data in the mean."""
SMALL_IMAGES_MAX_FRAGMENTS = 1024 * 1024
"""Of all of them together, 12 bytes each."""
