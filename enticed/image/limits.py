"""Limits of taking disks apart and putting them together. The others stand in `enticed/limits.py`."""

from protocol.limits import KIB, MIB

IMAGE_READ_SIZE_BYTES = 4 * MIB
"""What is read, marked and hashed at a time; with the threads, the memory that taking an image apart takes."""
IMAGE_READ_GAP_SIZE_BYTES = 256 * KIB
"""A hole up to this is read as the zeros it is, rather than being a read of its own."""
IMAGE_DIRECT_MIN_SIZE_BYTES = 256 * KIB
"""Shorter runs of data go through the page cache: past it, each would wait for the disk."""
IMAGE_THREADS_MAX_COUNT = 4
IMAGE_COPY_SIZE_BYTES = 64 * MIB
"""One copy inside the kernel, so that it can be given up between two."""
QEMU_MEMORY_MAX_SIZE_BYTES = 2048 * MIB
"""Address space of the child that decodes or encodes a container; what it uses is far below."""
QEMU_LOOK_TIMEOUT_S = 60.0
"""For reading a container's headers and tables."""
QEMU_CONVERT_TIMEOUT_S = 120.0
QEMU_CONVERT_SLOWEST_BYTES_PER_S = 8 * MIB
"""The time limit of a conversion is QEMU_CONVERT_TIMEOUT_S and the time that its data takes at this rate."""
QEMU_FILES_MAX_COUNT = 64
QEMU_ANSWER_MAX_SIZE_BYTES = 4 * MIB
"""Of what `qemu-img` says about one image; longer answers are read as they come, and not kept."""
QEMU_COMPLAINT_MAX_SIZE_BYTES = 64 * KIB
VMDK_DESCRIPTOR_MAX_SIZE_BYTES = 64 * KIB
QCOW2_L1_MAX_SIZE_BYTES = 32 * MIB
