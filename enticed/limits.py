"""Every limit of one daemon, its unit in its name; one section for each part.

Limits that both sides of a connection must agree on stand in `protocol/limits.py`.
"""

from protocol.limits import KIB, MIB

# --- connections and rates ---
HANDSHAKE_GRACE_S = 0.5
"""A handshake that has taken longer gives its place to who comes when all are taken."""
RATE_MIN_BYTES_PER_S = 1_000_000
"""Of a limit that is configured: below it peers would take this host for one that is silent."""
RATE_BURST_S = 0.05
"""What comes in so long, at the limit, may go at once."""
RATE_PORTION_SIZE_BYTES = 256 * KIB
"""Taken at once at the most."""
SESSIONS_MAX_COUNT = 256
"""Control connections; a goodbye is all that a peer beyond them gets."""
BULK_REQUESTS_AHEAD_COUNT = 4
"""Requests that are written ahead on a connection; the rest waits here, where it can still be withdrawn."""
BULK_INQUIRIES_AHEAD_COUNT = 2
"""Requests of one served connection before the warehouse: what is being sent, and what is next."""
PATIENCE_WINDOW_S = 600.0
"""How long it is remembered of a host that what it said was of no use."""
PATIENCE_HOSTS_MAX_COUNT = 4096
"""Of which that is remembered; whose time began first is forgotten first."""
ACCEPT_PAUSE_S = 0.5
"""When no descriptor or memory is left for another connection."""

# --- identity ---
AUTHORITY_LIFETIME_S = 20 * 365 * 86400
CERTIFICATE_LIFETIME_S = 30 * 86400
"""Of a node certificate; its host has it renewed from half of it."""
SCHEDULER_LIFETIME_S = 90 * 86400
"""Of a scheduler's certificate, where nobody says otherwise."""
SCHEDULER_MIN_LIFETIME_S = 60
SCHEDULER_MAX_LIFETIME_S = 2 * 365 * 86400
NAME_LIFETIME_S = 30 * 86400
"""Of a signed name; its publisher's daemon signs it anew from half of it."""
KEY_FILE_MAX_SIZE_BYTES = 4096
BOOTSTRAP_FILE_MAX_SIZE_BYTES = 4096
TOKENS_FILE_MAX_SIZE_BYTES = 1024 * 1024
TOKENS_MAX_COUNT = 1024
"""Tokens that are still good, and those remembered only to say why they no longer are."""
TOKEN_MAX_USES = 100_000
TOKEN_MIN_LIFETIME_S = 1
TOKEN_MAX_LIFETIME_S = 365 * 86400
JOIN_TIMEOUT_S = 30.0
"""For the joining host, from its first connection to the founding host to the certificate."""
JOIN_ANSWER_MAX_SIZE_BYTES = 80 * KIB

# --- HTTP: control and gateway ---
PROBLEM_DETAIL_MAX_CHARS = 1000
"""Of the one line that says what went wrong."""

# --- log ---
LOG_TALLY_PERIOD_S = 60.0
"""Of messages about what others cause, one of each kind in so long."""
ORDER_WAITS_PERIOD_S = 600.0
"""Of an order that waits for the disk, goes on, and waits again, that is told once in so long."""
LOG_MESSAGE_MAX_SIZE_BYTES = 32 * KIB
"""Of one field of a record; a datagram takes no more than about 200 KiB."""

# --- livez, readyz, metrics ---
WATCHING_CONNECTIONS_MAX_COUNT = 64
"""On the address for metrics, where nobody has to say who they are."""
WATCHING_CONNECTION_LIFETIME_S = 60.0
WATCHING_BACKLOG_COUNT = 64
WATCHING_SHUTDOWN_TIMEOUT_S = 1.0
READY_LOOP_LAG_MAX_S = 1.0
"""An event loop that is later than this for one sample in a hundred is not ready for more."""

DOCTOR_ADDRESSES_MAX_COUNT = 8
"""Hosts that `entice doctor` has connected to, to see whether that works."""
DOCTOR_CONNECT_TIMEOUT_S = 2.0
DOCTOR_CLOCK_STEP_MAX_S = 5.0
"""A clock that was set by more is told of: certificates and names are judged by the one that the daemon goes by."""

# --- gateway ---
API_HANDSHAKE_TIMEOUT_S = 10.0
API_HANDSHAKES_MAX_COUNT = 256
"""At once; each takes 50 KiB. Who is slow gives way, as among peers."""
API_HANDSHAKES_PER_SOURCE_MAX_COUNT = 128
API_KEEPALIVE_S = 15.0
API_SHUTDOWN_TIMEOUT_S = 5.0
"""For requests under way when the server closes."""
API_BODY_TIMEOUT_S = 10.0
API_BODY_MAX_SIZE_BYTES = 4 * KIB
API_BACKLOG_COUNT = 256
API_CONNECTIONS_MAX_COUNT = 512
API_STRANGERS_MAX_COUNT = 384
"""Of these, of clients that have shown neither certificate nor token: they leave room for those that have."""
API_STRANGERS_PER_SOURCE_MAX_COUNT = 128
API_STRANGER_LIFETIME_S = 30.0
"""As long as joining may take. In the last API_KEEPALIVE_S of it a connection has its last answer."""
JOIN_FAILURES_MAX_COUNT = 10
"""Of one source within JOIN_FAILURES_WINDOW_S; beyond them it is told to wait."""
JOIN_FAILURES_WINDOW_S = 60.0
JOIN_SOURCES_MAX_COUNT = 1024
"""Sources whose failures are remembered; the one heard of longest ago is forgotten first."""

# --- store ---
STORE_READ_SIZE_BYTES = 4 * MIB
"""What one hashing thread reads at a time; with the threads, the memory that checking takes."""
STORE_READ_GAP_SIZE_BYTES = 64 * KIB
"""A longer gap between two fragments is not read through."""
STORE_CLONE_MAX_SIZE_BYTES = 64 * MIB
"""One clone, so that it can be given up between two."""
STORE_HASH_THREADS_MAX_COUNT = 4
STORE_PAGES_READ_COUNT = 64
"""Pages of an image read and decoded together: one alone takes almost as long."""
STORE_FRAGMENTS_CACHED_COUNT = 256 * 1024
"""Of decoded pages that are kept, of all images together: 11 MiB."""
STORE_INDEX_RUN_MAX_COUNT = 1024 * 1024
"""Fragments that one sorted run of an index covers: 12 MiB to build or to look through."""
STORE_PREFIX_ALIKE_MAX_COUNT = 4
"""Different fragments with one 8-byte prefix that are looked at; nobody meets more by chance."""
STORE_LOOK_INTERVAL_S = 5.0
"""How soon it is seen that the store's file system became read-only, or was unmounted, while nothing is written."""
SCRUB_PERIOD_S = 7 * 86400.0
"""Within which all of the store is read back."""
SCRUB_DISK_SHARE = 0.05
"""Of the disk's time, that this takes at the most."""
SCRUB_BATCH_SIZE_BYTES = 8 * MIB
"""Read and hashed between two rests."""
SCRUB_REST_MAX_S = 3600.0
"""Then it is looked again how much there is to do."""
SCRUB_MARK_INTERVAL_S = 60.0
"""How much of the scrub a restart may repeat."""
HEAL_RETRY_S = 600.0
"""Until an image is asked for again that rotted here and that nobody had then."""
GUEST_DIRECTORIES_MAX_COUNT = 16
NAMES_MAX_COUNT = 65_536
ORDERS_MAX_COUNT = 65_536
ADDRESSES_REMEMBERED_MAX_COUNT = 256

# --- origin ---
ORIGIN_URL_MAX_CHARS = 1024
ORIGIN_THREADS_COUNT = 12
"""Reads from the origin at once, each with a thread; others wait. Of fragments, the core asks for as much at once as of
any peer (`Policy.peer_in_flight`, and the bytes of `Peer.most_bytes`)."""
ORIGIN_CONNECT_TIMEOUT_S = 5.0
ORIGIN_SILENT_S = 10.0
"""An origin that sends nothing for so long is given up; the core gives up earlier on one that is only slow."""
ORIGIN_OBJECT_TIMEOUT_S = 60.0
"""For a small object: a root, statements, pages, a name."""
ORIGIN_READ_SIZE_BYTES = 1 * MIB
ORIGIN_READ_GAP_SIZE_BYTES = 64 * KIB
"""A longer hole between two fragments is not read through: it is two ranges."""
ORIGIN_ERROR_MAX_SIZE_BYTES = 4 * KIB
ORIGIN_ADDRESS_LIFETIME_S = 300
"""Of a signed address in a bucket: for one request, and clocks that differ."""
ORIGIN_TRIES_COUNT = 3
ORIGIN_RETRY_S = 0.3
"""Before the second try; longer by as much before each further one."""
DEPOT_PART_SIZE_BYTES = 16 * MIB
DEPOT_PARTS_AT_ONCE_COUNT = 4
"""With the part's size, the memory that an export to a bucket takes."""
DEPOT_PARTS_MAX_COUNT = 10_000
"""Of one object, as S3 has it; for a larger image the parts are larger."""

# --- containers ---
QCOW2_BACKING_NAME_MAX_SIZE_BYTES = 1023
"""As the format has it."""

# --- control ---
CONTROL_CONNECTIONS_MAX_COUNT = 512
CONTROL_CONNECTIONS_PER_READER_MAX_COUNT = 128
"""Of one user who is neither root nor the daemon's: they leave room for those."""
CONTROL_STREAMS_PER_READER_MAX_COUNT = 8
"""Streams of events of one user who may only read."""
CONTROL_BACKLOG_COUNT = 128
CONTROL_BODY_MAX_SIZE_BYTES = 64 * KIB
CONTROL_BODY_TIMEOUT_S = 10.0
CONTROL_KEEPALIVE_S = 60.0
CONTROL_SHUTDOWN_TIMEOUT_S = 5.0
"""For requests under way when the server closes."""
CONTROL_HEARTBEAT_S = 15.0
"""A stream of events that has been silent for so long says that it is still there."""
CONTROL_SLOW_READER_S = 10.0
"""Who reads nothing of a full stream for so long is closed, rather than queued for; so is who takes no answer."""
CONTROL_UNTAKEN_PER_READER_MAX_SIZE_BYTES = 16 * MIB
"""Of answers to one user who is neither root nor the daemon's: with so much untaken, none is made."""
CONTROL_PROGRESS_MIN_S = 0.1
"""Between two looks at an order that a client follows."""
CONTROL_RELATIVES_MAX_COUNT = 32
"""Named by one publication; the best of them stand in the statement."""
ORDER_KEY_MAX_CHARS = 128
ORDER_TERM_MAX_S = 10 * 365 * 86400
"""Of a deadline or a lease."""
HANDOFF_CONNECTIONS_MAX_COUNT = 64
HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT = 8
"""Of one user who is neither root nor the daemon's."""
HANDOFF_CLOSE_TIMEOUT_S = 1.0
"""For closing what clients have sent, when the daemon ends; what takes longer, the kernel closes."""
HANDOFF_MESSAGE_MAX_SIZE_BYTES = 4 * KIB
HANDOFF_TIMEOUT_S = 10.0
"""For a client's one message."""
HANDOFF_TICKETS_MAX_COUNT = 64
HANDOFF_TICKET_LIFETIME_S = 30.0
"""From handing a descriptor over to the request that names it."""

CONTENT_CHUNK_SIZE_BYTES = 1 * MIB
"""What is read and sent at a time."""
CONTENT_READERS_MAX_COUNT = 64
CONTENT_READERS_PER_USER_MAX_COUNT = 48
"""So that one user, or whoever comes over the loopback address, does not have all the places."""
CONTENT_CHUNKS_AHEAD_COUNT = 3
"""So many more are under way while one is sent, for a reader of much."""
CONTENT_BACKLOG_COUNT = 64
CONTENT_LOOPBACK_CONNECTIONS_MAX_COUNT = 128
CONTENT_DEADLINE_S = 30.0
"""How long a reader waits for what is not here, unless it says so itself."""
CONTENT_DEADLINE_MAX_S = 3600.0
CONTENT_STALLED_S = 30.0
"""A reader that takes nothing for so long is cut off."""

TRUST_CLAIMS_MAX_COUNT = 8
"""Hosts that are remembered of those that say they have a newer trust bundle."""
STANDING_ASKED_AT_ONCE_COUNT = 3
STANDING_ASKED_FIRST_S, STANDING_ASKED_LAST_S = 10.0, 300.0
"""A host that nobody answers connects to some after so long, then ever more rarely, to hear whether it was revoked."""

# --- command line ---
DAEMON_CONNECT_TIMEOUT_S = 5
DAEMON_LOOK_S = 3.0
"""After so long without a byte from the daemon it is asked whether it lives, and again and again."""
DAEMON_LOOK_TIMEOUT_S = 2.0
DAEMON_HUNG_S = 15.0
"""One that has not said so for so long hangs: nobody waits for it any more."""
COMPLETION_TIMEOUT_S = 1.0
"""For names of images, when somebody has pressed Tab."""
DAEMON_SILENT_S = 3 * CONTROL_HEARTBEAT_S
"""A daemon that is silent for so long on a stream of events hangs."""
DAEMON_LINE_MAX_SIZE_BYTES = 1 * MIB
TOKEN_LINE_MAX_CHARS = 1024
"""Of the line of standard input that a join token is read from."""
ATTACH_FIND_TIMEOUT_S = 60.0
"""For finding an image that is to be attached, unless --deadline says otherwise."""
CAMPAIGN_WATCH_GRACE_S = 2.0
"""After the due date, until hosts that could not be reached have been given up."""
CAMPAIGN_WATCH_PATIENCE_S = 60.0
"""How long who watches a campaign waits for a daemon that went away: one that is started anew is seen to go on."""
PAUSED_PATIENCE_S = 10.0
"""How long `entice pull` waits for an order that waits for the disk: one that is tried again soon is seen to go on."""
BAR_INTERVAL_S = 0.25
"""Between two looks of a live bar at the order that it shows."""

NBD_BACKLOG_COUNT = 16
NBD_RETRIES_COUNT = 60
NBD_RETRY_DELAY_S = 2
"""nbdkit asks again so often before a VM sees an error: two minutes without a daemon, longer where only bytes lack."""
NBD_READ_TIMEOUT_S = int(CONTENT_DEADLINE_S) + 30
NBD_RECONNECT_DELAY_S = 300
"""For how long QEMU lets a VM wait for a lost NBD connection."""
NBDKIT_RESTART_PAUSE_S = 2.0
"""At least so long from one start of nbdkit to the next."""
UNIX_PATH_MAX_SIZE_BYTES = 107

# --- engine ---
MANIFEST_TIMEOUT_S = 60.0
"""For root, statements and pages from one peer; then another is asked."""
BUSY_RETRY_LEAST_S = 0.05
"""Before a peer that is busy is asked for a part of a manifest again, though it said sooner."""
EXHAUSTED_RETRY_S = 0.25
"""Before a peer is asked again for which this host had no thread or descriptor."""
STORE_THREADS_COUNT = 6
PIECES_OPENED_TOGETHER_COUNT = 4
"""By one of these threads in one go."""
READER_THREADS_COUNT = 4
"""Threads that read for readers alone: they do not wait behind what fills the disk."""
NAME_FRESH_S = 5.0
"""What a name means is looked up again after so long, for readers and others who use it again and again."""
NAME_LOOKUP_TIMEOUT_S = 2.0
"""So long they wait for that, and then go by what is known here."""
READ_IDLE_S = 600.0
"""An order that a read has raised ends when nobody has read for so long; and so long it keeps the image then."""
PROFILE_TRACE_UNIT_SIZE_BYTES = 16 * KIB
PROFILE_TRACE_UNITS_MAX_COUNT = 65_536
"""Of what is read of an image, the first GiB is noted."""
PROFILE_TRACES_MAX_COUNT = 8
"""Images of which it is; the one read longest ago is forgotten first."""
PROFILE_BATCH_SIZE_BYTES = 4 * MIB
"""Within so much of a profile, the order is that of the disk: it takes fewer runs, and no time."""
PROFILE_GAP_SIZE_BYTES = 64 * KIB
PROFILE_RANGES_MAX_COUNT = 2048
"""What one request can say: about 50 KiB."""
PROFILE_ASKED_MAX_COUNT = 3
"""Hosts that are asked whether a profile has been recorded since the image came."""
PROFILE_ASK_TIMEOUT_S = 3.0
STATEMENTS_OPENED_MAX_COUNT = 1024
"""Statements of images here whose signatures need not be checked again."""
RECHECKS_MAX_COUNT = 1024
"""Pieces in doubt, waiting to be read back."""
RECHECK_REST_FACTOR = 3.0
"""After reading one back, so many times as long as it took nothing is: a quarter of one thread at the most."""
GROUP_PROOF_TIMEOUT_S = 2.0
"""For those that are found under a group's key to prove that they are members, before everybody is asked."""
GROUP_CLAIM_MAX_AGE_S = 600.0
"""From when on those that are found under a group's key have that time again."""
GROUP_CLAIMS_MAX_COUNT = 4096
"""Images of which it is remembered that nobody has proven it yet."""
ANNOUNCED_TIMEOUT_S = 3.0
"""How long publishing waits until others know of it; it goes on being announced after that."""
NAMES_RENEWAL_CHECK_S = 3600.0
RECALLS_MAX_COUNT = 4096
"""That a host knows. Beyond them, only those of images that it has count."""
RECALLS_USELESS_MAX_COUNT = 64
"""Of one host within PATIENCE_WINDOW_S, that are none or no news; then it is hung up on."""
RECALL_KEPT_S = 30 * 86400
"""As a floor: in the DHT by hosts near its key, counted anew each time it is handed on."""
RECALL_LOOK_EVERY_S = 3600.0
"""Between looks at whether an image on this host was recalled: most are heard of as they spread."""
RECALL_LOOK_AGAIN_S = 60.0
"""Orders for one image within this time have the DHT asked once."""
RECEIPTS_PAUSE_S = 0.5
RECEIPTS_QUIET_COUNT = 2
"""So many answers without news, and nobody missing: then all have signed."""
RECEIPTS_TIMEOUT_S = 10.0
ORDER_EVENTS_KEPT_COUNT = 4096
"""Order changes that a watcher who comes back can still be told."""
ORDER_WATCHERS_MAX_COUNT = 64
ORDERS_PER_OWNER_MAX_COUNT = 1024
"""Of one scheduler, or of one host that may order on others: orders that go on or keep an image."""
ORDERS_OF_HOSTS_MAX_COUNT = 2048
"""Of all other hosts together."""
REMOTE_LEASE_MAX_S = 30 * 86400.0
"""How long an image is kept for another host, which may never come back to say otherwise."""
PRIVATE_ORDER_WAIT_MAX_S = 86400.0
"""Until a host that orders an image that it is not to hear of is told that nobody has it, whatever the due date."""
REMOTE_NEWS_INTERVAL_S = 1.0
"""Between two looks at how far the orders of other hosts are."""
CAMPAIGNS_PER_OWNER_MAX_COUNT = 64
"""Under way at the same time."""
CAMPAIGN_HOSTS_MAX_COUNT = 16_384
CAMPAIGN_HOSTS_CHECKED_COUNT = 16
"""Of so few, that none is known is said at once."""
CAMPAIGN_BODY_MAX_SIZE_BYTES = 1 * MIB
CAMPAIGN_HOSTS_FILE_MAX_SIZE_BYTES = 4 * MIB
"""Of `entice order --hosts`: with what people write beside each host."""
CAMPAIGN_SAVE_RETRY_S = 10.0
"""Between two tries to save how campaigns ended, where the disk does not take it."""
CAMPAIGN_KEEP_S = 86400.0
"""Where nobody says how long an image is to stay on the hosts of a campaign."""
CAMPAIGN_WAIT_MAX_S = 30.0
"""How long a request waits for a change of a campaign."""
MEETING_TIMEOUT_S = 15.0
MEETING_NAMESAKES_MAX_COUNT = 4
"""Hosts that say to be called alike, of which so many are looked at."""
HOST_NAMES_KNOWN_MAX_COUNT = 65_536
ROSTER_LOOKUPS_MAX_COUNT = 16
"""At once, of the 64 that finding the hosts with a label takes."""
ROSTER_LOOKUPS_PER_SHARD_MAX_COUNT = 16
"""An answer of the DHT is a sample; where there is more, it is asked again so often."""
PROMISE_TIMEOUT_S = 2.0
"""How long the answer to a new order waits for its promise: for the name and the manifest, mostly."""
PROGRESS_INTERVAL_S = 0.2
PLAN_TIMEOUT_S = 10.0
PLAN_PROVIDERS_MAX_COUNT = 8
PLANS_MAX_COUNT = 16
"""At once: whoever can reach the socket may ask for one, and each talks to other hosts."""
VERIFY_BATCH_PIECES = 64
STATUS_INTERVAL_S = 10.0
LAG_SAMPLE_INTERVAL_S = 0.1
LAG_SAMPLES_KEPT_COUNT = 600

# --- overlay ---
PAIRS_MAX_COUNT = 8192
"""Hosts whose keys are kept; one that was not heard for longest is met again when it is needed."""
PAIRS_PER_PEER_COUNT = 2
ENDPOINTS_PER_PEER_COUNT = 4
PAIR_LIFETIME_S = 3600.0
"""Then two hosts meet anew and look at each other's certificates; after twice that nothing is heard without it."""
COOKIE_SLOT_S = 10
GREETINGS_MAX_COUNT = 512
GREETING_QUEUE_MAX_COUNT = 8
GREETING_TRIES = 3
GREETING_RETRY_S = 0.1
"""Before the second time; longer by as much before each further one."""
KNOCKS_PER_S = 1000
PROOFS_PER_S = 500
"""A stranger's proof costs half a millisecond."""
UNKNOWN_ANSWERS_PER_S = 200
REGREETS_PER_S = 50
CHECKED_RECORDS_MAX_COUNT = 8192
DATAGRAM_ROUTES_MAX_COUNT = 16_384
DATAGRAM_RECEIVE_BUFFER_SIZE_BYTES = 1 * MIB

# --- entice simulate ---
SIMULATED_HOSTS_MAX_COUNT = 100_000
SIMULATED_SEEDS_MAX_COUNT = 1000
SIMULATED_LINK_MAX_MBIT_PER_S = 1_000_000.0
SIMULATED_LINKS_RATIO_MAX = 10_000
"""The fastest over the slowest: time passes in steps of the fastest, however long the slowest takes."""
SIMULATED_IMAGE_MAX_SIZE_MIB = 1 << 20
SIMULATED_FRAGMENTS_MAX_COUNT = 10**11
"""Of all hosts and images together: each takes a byte of memory."""
SIMULATED_PATIENCE_S = 60.0
SIMULATED_SLOWEST_COPIES_COUNT = 100
"""The cloud is given so long, and the time of so many copies over the slowest link."""
