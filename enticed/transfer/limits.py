"""Limits of connections between hosts; those that a simulation or another part shares stand in `enticed/limits.py`."""

from protocol.limits import KIB, MIB

LISTEN_BACKLOG_COUNT = 1024
HANDSHAKES_MAX_COUNT = 64
"""Handshakes of strangers at once; beyond them the kernel's backlog waits."""
HANDSHAKES_PER_SOURCE_MAX_COUNT = 32
"""Of one address, so that no single stranger can have all places."""
CONTROL_READ_SIZE_BYTES = 64 * KIB
CONTROL_READS_PER_TURN = 16
"""What one busy peer may have read before the event loop looks at the others."""
CONTROL_MESSAGES_PER_S = 2000
"""What one peer may say, over all of its connections; who says more is read no faster. A pull at 1 GB/s tells of 1,000
pieces a second."""
CONTROL_MESSAGES_AT_ONCE_COUNT = 4000
"""After a silence: enough for the subscriptions of thousands of orders."""
CONTROL_MESSAGE_USUAL_SIZE_BYTES = 256
"""A longer message counts as several of these: what is in it has to be understood, too."""
ALLOWANCES_MAX_COUNT = 4096
"""Peers of which it is remembered how much they may say: more than can have sessions, since they come back."""
CONTROL_QUEUE_MAX_SIZE_BYTES = 1 * MIB
"""A peer that has so much of ours unread does not read."""
BULK_DIALLED_MAX_COUNT = 64
"""Bulk connections to other hosts, each with a thread while it lasts."""
BULK_DIALLED_PER_PEER_MAX_COUNT = 2
BULK_SECOND_BELOW_COUNT = 4
"""A peer gets a second connection only while fewer than so many are open to all of them."""
BULK_NICE = 10
"""Of the bulk threads: the event loop goes first."""
BULK_SERVED_MAX_COUNT = 256
"""One for each session: whoever has none hears no "busy", and nothing of others who have what it asks for."""
BULK_SERVED_PER_PEER_MAX_COUNT = 4
BULK_BUFFERS_KEPT_COUNT = 8
"""Buffers for a reply, of REQUEST_MAX_SIZE_BYTES, that are kept for the next ones; a crowd needs more for a while."""
BULK_UNSENT_MAX_SIZE_BYTES = 512 * KIB
"""What the kernel takes of a reply before it can send it (at once it would take megabytes): whose turn it is to be sent
something is decided by what has been sent, and a piece that lies there is not yet on its way."""
BULK_REQUESTS_READ_SIZE_BYTES = 4 * KIB
CONNECT_TIMEOUT_S = 3.0
HANDSHAKE_TIMEOUT_S = 5.0
HELLO_TIMEOUT_S = 5.0
GOODBYE_TIMEOUT_S = 1.0
PING_AFTER_S = 15.0
PEER_SILENT_S = 45.0
REPLY_TIMEOUT_S = 30.0
"""For one reply with its bytes, counted from when it is the next; the core gives up earlier than this."""
SEND_TIMEOUT_S = 30.0
"""For one reply with its bytes, on the serving side: a peer that reads slower gives its place to others."""
SEND_STALLED_S = 5.0
"""For a portion of a reply (`RATE_PORTION_SIZE_BYTES`): who takes nothing for so long is not waited for."""
SESSIONS_BEFORE_HELLO_PER_PEER_COUNT = 2
"""Control connections of one member that have not said hello; another one is closed. One is what a host needs, and one
more where its last has just been lost."""
OUTCASTS_TOLD_MAX_COUNT = 8
"""Connections of hosts that were revoked, each kept for GOODBYE_TIMEOUT_S at the most, so that they hear why."""
DISOWNED_BY_MAX_COUNT = 8
"""Hosts that are named of those that say that this one was revoked."""
CERTIFICATE_RETRY_S = 60.0
"""After a new certificate or trust bundle that could not be taken up, before another try."""
EXPIRY_CHECK_S = 60.0
"""At least so often it is looked whether the certificate of a connection is still good."""
EXPIRY_RESOLUTION_S = 0.01
"""A connection ends so long after its certificate, at least: not a moment before."""
REFUSED_REST_S = 0.01
"""After a request that was refused, before the next one of that connection: nobody has reason to ask often in vain."""
BULK_IDLE_S = 30.0
BULK_SERVED_IDLE_S = 90.0
"""Longer than BULK_IDLE_S, so that it is the asker who closes, and never under a request."""
COURIERS_MAX_COUNT = 4
"""Processes that fetch; fewer on a host of few processors, where the event loop has to have one, too."""
COURIERS_FROM_SIZE_BYTES = 16 * MIB
COURIERS_FROM_WITHIN_S = 0.25
"""So much has to come in so long before fetching moves to processes. One interpreter brings in several times as much;
what is less, threads do with less work in all."""
COURIER_IDLE_S = 60.0
"""Without a connection: a courier holds some 30 MiB."""
COURIER_START_TIMEOUT_S = 20.0
"""Until it says that it is there, on a host that is busy with everything else."""
COURIER_END_TIMEOUT_S = 5.0
"""Told to end, it has nothing to wait for: after this it is killed."""
COURIER_SILENT_S = 5.0
"""After the time that a peer has to shake hands, a courier says within this whether it has: else it was stopped."""
COURIER_DEATHS_MAX_COUNT = 3
COURIER_DEATHS_WITHIN_S = 3600.0
"""So many couriers that ended by themselves within so long: then threads fetch everything, until it is longer ago."""
COURIER_LOST_RETRY_S = 0.1
COURIER_QUEUE_MAX_COUNT = 4096
"""Messages to a courier that does not read; it is ended then."""
COURIER_REST_S = 0.01
COURIER_REST_LOAD_COUNT = 4
"""With so many requests under way, what a courier tells is heard so much later, at most: a few messages at once."""
COURIER_MESSAGE_MAX_SIZE_BYTES = 64 * KIB
COURIER_PATH_MAX_CHARS = 4096
COURIER_RELEASE_MAX_CHARS = 64
COURIER_TEXT_MAX_CHARS = 1024
"""Of an error that a courier tells."""
LANE_PAUSE_S = 30.0
"""After a connection to a peer that did not come about, before another is tried beside those that there are."""
