"""The knobs of the swarm, in one record: what simulation tunes and a daemon takes as given."""

from dataclasses import dataclass

from protocol.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Policy:
    """Defaults are those of the daemon; each was chosen in simulation or follows from a limit named beside it."""

    # Whom to know.
    degree: int = 40
    """Hosts that are after the same image, most of them in the same rack: those of a rack work out among themselves who
    fetches which piece from outside, and do it twice where they do not know each other."""
    degree_outside_rack: int = 16
    """Of `degree`, kept for hosts in other racks however many mates have dialled: over these pieces come in."""
    outside_in_vain_max: int = 16
    """Hosts that are dialled for such a place and turn out to be mates. Then no places are kept any more: there may be
    nobody outside."""
    dials_at_once: int = 16
    """Of hosts that are after the image, and half as many of those of whom only a peer has told. Where all dial at
    once, who has been dialled often enough meanwhile dials no more, and all know about as many."""
    strangers_share: float = 0.2
    """Of the hosts that the DHT names and that are not known to be in the rack, so many are dialled at once, one at the
    least. All who start at once find the same few seeds there, whom each dial costs milliseconds; who answers names
    others, whom nobody has dialled yet."""
    stranger_patience_s: float = 0.5
    """Beside one that has not answered by then the next is dialled."""
    strangers_all_after_s: float = 1.0
    """Once nobody has what is missing for so long, all of them are dialled at once, as `dials_at_once` has it."""
    dialled_max: int = 128
    """Sessions of this host's own dialling: who has dialled it may have nothing that it wants."""
    contacts_max: int = 512
    """Hosts that may have an image, of which so many are remembered."""
    acquaintances_max: int = 64
    """Hosts remembered from sessions that have ended, to be asked where lookups find nobody."""
    hearsay_max: int = 64
    """Of these, hosts of whom only a peer has told and not the DHT; they get half of the dials at the most."""
    hearsay_in_vain_max: int = 32
    """Hosts that one peer has named for a pull and that could not be reached: then no other that it names is dialled.
    Else it could have this host dial whom it likes, as fast as it makes them up."""
    find_first_s: float = 1.0
    """Providers are looked up again after so long, then after twice that, and so on."""
    find_last_s: float = 30.0
    find_again_s: float = 0.05
    """Beside that, so soon, give or take a half, and then after twice that each time, while strangers were found and
    nobody is known yet: a seed that all dial at once answers one after another, and who has some is soon found."""
    dial_retry_s: float = 2.0
    session_idle_s: float = 60.0
    """A session that neither side has a use for is closed after so long."""
    sessions_kept: int = 224
    """Who dials a seed that has more is told of others that are after the image, and hung up on, once: up to
    `SESSIONS_MAX_COUNT`, beyond which nobody is told anything, there is room for those who come and go."""
    session_idle_crowded_s: float = 10.0
    """As `session_idle_s`, of who has dialled, when there are more than `sessions_kept`."""
    sent_away_max: int = 4096
    """Hosts that were sent away and have not come again, of which that is remembered."""

    # What is asked for.
    ahead_bytes: int = 4 * MIB
    """Missing bytes of pieces that are opened and not asked for yet: enough never to run dry, too few to clog."""
    ahead_first_bytes: int = 1 * MIB
    """The same until a first piece has come: who else is in the rack, and owns the others, is not known yet."""
    in_flight_bytes: int = 96 * MIB
    """What all requests of a host may have under way."""
    in_flight_s: float = 2.0
    """Under a limit of what may come, no more than comes in so long, or one request."""
    sources_max: int = 28
    """Hosts that are asked at once. Who sends to many shares its link among them: whoever asked more hosts than others
    would get more, and those who know few would be last. (A reader of what is not here yet has whomever it needs.)"""
    peer_in_flight_bytes: int = 16 * MIB
    peer_in_flight_least_bytes: int = 1 * MIB
    peer_in_flight_s: float = 0.1
    """What one peer has under way: as much as it delivers in so long, within the two bounds above. Little at first:
    more would only wait in its line, while others come to have the same."""
    peer_in_flight: int = 16
    """Requests, however small: what a peer queues for one asker (`uploads_queued_per_peer`)."""
    request_bytes: int = 3 * MIB
    in_line_bytes: int = 128 * MIB
    """Of what is opened and nobody can be asked for just now, so much is not counted in `ahead_bytes`."""
    in_line_max: int = 2048
    """Nor anything once there are so many requests to be made: each is looked at whenever somebody can be asked."""
    plenty_bytes: int = 16 * MIB
    plenty_s: float = 0.06
    """With so much under way, or what comes in so long if that is less (one request at the least), nothing is asked for
    because a peer tells of new pieces: the next answer sees to it. Nor are hosts outside the rack asked for what a mate
    has and cannot be asked for yet."""
    rarest_first: bool = True
    """Else pieces come in random order: to see what it is worth."""
    rack_owners: bool = True
    """For each piece that nobody in a rack has, one host fetches it from outside: see `owner_patience_s`. Else whoever
    wants it does: to see what it is worth."""
    askers_per_holder: int = 6
    """Of a piece that few mates have, so many hosts of the rack ask each of these, the others once more have it: else
    all stand in line at the first who has it, while those are idle who could pass it on. Who has not `plenty_bytes`
    of the image under way asks all the same."""
    opening_pieces: int = 16
    """Pieces whose page is being read and whose fragments are being cloned, at once."""

    # For readers of an image that is not whole; what they wait for is ahead of everything.
    readers_quiet_s: float = 60.0
    """Readers that have waited for nothing for so long are served: then the rest of the image follows."""
    readers_alone_s: float = 300.0
    """It follows after so long in any case, beside them."""
    beside_readers_bytes: int = 2 * MIB
    """What may be under way of the rest while readers are about, or one request: they wait behind that."""
    foreseen_bytes: int = 4 * MIB
    """What may be under way of what a boot profile foresees."""
    reader_hedge_s: float = 0.5
    """A request for a reader that takes so long is made of a second peer too."""

    # When something takes too long.
    manifest_patience_s: float = 0.5
    """Where another host has the manifest too, it is asked when the first has not sent it in so long, a third after
    twice that, and so on."""
    request_timeout_s: float = 10.0
    request_slowest_bytes_per_s: int = 512 * KIB
    """A peer that delivers less than this, beyond the time above, is as good as silent."""
    backoff_first_s: float = 0.25
    backoff_last_s: float = 30.0
    busy_least_s: float = 0.05
    """A busy peer is asked again after the time that it said, within this and `backoff_last_s`."""
    stall_s: float = 1.5
    """A peer that owes an answer and gives none for so long is not waited for any more where there are others; nor is
    one, before that, that takes much longer than is usual (`hedge_after_s`)."""
    busies_max: int = 8
    """Nor is one that was busy so often in a row."""
    hedge_after_s: float = 0.3
    hedge_factor: float = 3.0
    """A request so many times slower than the usual one may be asked of a second peer, near the end."""
    hedge_share: float = 0.02
    """Of the image's bytes may be fetched twice."""
    owner_patience_s: float = 0.3
    """How long in all an idle host waits for its rack's owner of a piece before it asks outside itself; longer where
    that is slow: twice what one of its requests takes there, and this at the most:"""
    owner_patience_max_s: float = 8.0
    holder_patience_s: float = 0.5
    """How long a run waits for a busy holder before the seed is asked."""
    ask_anew_max: int = 4
    """How often a host that refused what it had said it has is asked what it has, while nobody has what is missing;
    then every `find_last_s`."""
    wider_after_s: float = 2.5
    """While nobody has what is missing for so long, hosts beyond `degree` are dialled too."""
    nobody_holds_s: float = 5.0
    """An order fails when for so long no host that could be reached holds what is missing."""

    # What nobody else has.
    origin_after_s: float = 1.5
    """The origin is asked once something is missing for so long that nobody has: time to meet others who miss it."""
    origin_opening_pieces: int = 2
    """Pieces opened at once to be fetched from it; the next when hardly any of these is still to be asked for."""
    origin_find_s: float = 2.0
    """While something is missing that nobody has, hosts that miss it too are looked for so often."""
    origin_patience_s: float = 3.0
    """How long others who are to fetch a piece from the origin may get nothing before fewer are counted on: only those
    in this rack, then nobody. Longer, up to four times, where requests take long, or gains came seldom before: sixteen
    hosts that share 2 MiB/s have their first piece each after 8 s."""
    origin_patience_most_s: float = 30.0
    """The same, whatever others get meanwhile, and whatever they say that they get: what a slow owner or a liar keeps
    others waiting."""
    origin_slowest_bytes_per_s: int = 16 * KIB
    """As `request_slowest_bytes_per_s`; lower, since all hosts share what the origin sends, and nobody else has it."""
    origin_strikes_max: int = 4
    """From so many faults in a row on nobody waits for the origin, though it is asked again."""
    origin_shut_s: float = 30.0
    """An origin that has not got an image is asked for it again after so long."""

    # Hosts that have a relative of the image.
    kin_max: int = 2
    """Relatives of an image that are used; 0 for none."""
    kin_after_s: float = 1.0
    """They are looked for once something could be asked of nobody for so long."""
    kin_learn_s: float = 10.0
    """For a relative's manifest from one host; then another is asked."""
    kin_degree: int = 8
    """Hosts to know that have a relative."""

    # What is promised.
    presumed_bytes_per_s: float = 100 * MIB
    """What a host is taken to receive until it has measured it: a gigabit link."""
    rate_memory_s: float = 5.0
    """What was measured longer ago counts little."""
    promise_every_s: float = 0.5
    """Promises are made anew so often while there are orders with a due date, and at once when one is placed."""

    # What is given.
    uploads_transmitting: int = 32
    """Many, since those whose links are full are slow to take theirs, and the uplink is to be full all the same. Each
    connection has one request being sent and the next one ready."""
    uploads_transmitting_per_peer: int = 4
    """What two connections take, as many as hosts open to one peer: more gain nothing."""
    uploads_transmitting_per_peer_of_many: int = 2
    """While others wait, who fill the link as well: a few that hardly read cannot have all slots."""
    first_copies_transmitting: int = 16
    """A seed sends no more of what it has sent nobody yet: each is soon there, and can be passed on."""
    first_copies_go_first_peers: int = 3
    """A seed that sends to so many peers sends no second copies of an image as long as there are pieces of it that it
    was not asked for: they would share the uplink with first ones, and hosts wait for pieces that nobody else has."""
    copies_at_once: int = 4
    """Likewise, who has little under way itself sends no more of the same."""
    upload_least_bytes_per_s: int = 2 * MIB
    """Under a limit of what may be sent, so few are sent at once that each goes so fast: those who asked do not wait
    for ever (`request_slowest_bytes_per_s`)."""
    uploads_queued: int = 48
    uploads_queued_per_peer: int = 16
    uploads_queued_going_on: int = 48
    """Places beside these, for what need not wait for a turn."""
    turn_bytes: int = 16 * MIB
    """A peer's turn is used up when it has had so much: of a piece, and what little it asks for meanwhile
    (`good_part_bytes`). Larger pieces take several."""
    turn_charge_least_bytes: int = 256 * KIB
    """An upload counts for so much at the least: it has a slot, however little it is."""
    turns_max: int = 1024
    """Peers of which it is known when they had their last."""
    upload_retry_s: float = 0.2
    first_copy_s: float = 0.25
    """How long a seed that others wait for sends nobody else any of a piece of which it has just sent some: time to
    pass it on."""
    first_copy_idle_s: float = 0.1
    """So long if nobody waits for it, and then only after the first copy of a piece."""
    first_copy_way_share: float = 0.5
    """At least so long after a first copy, as a share of what that took to leave, from when it was asked for: by then
    the kernel has a good part of it, and of what others are sent over the same link."""
    first_copies_s: float = 2.0
    """So long if it has sent that nobody before, and has its uplink's fill of the like: what it sends a second time
    then, all others wait for."""
    first_copies_most_s: float = 8.0
    """Since it was first asked for it, at the most: to who is given a piece in parts, one after another, or asks for
    the same again and again. (`first_copies_s` of what it has sent before.)"""
    good_part_bytes: int = 512 * KIB
    """Only who asks for so much of a piece, or half of it, is waited for, or waits: little is what readers ask for."""
    first_copies_max: int = 4096
    """Pieces of which is remembered to whom they were sent."""
    second_copy_retry_s: float = 0.05
    second_copy_retry_last_s: float = 0.25
    """Whoever asks for it meanwhile may ask again after as long as it has taken so far, within these."""
    have_batch_s: float = 0.04
    """News of pieces is told together: every host tells every other, so that this is what a large swarm is made of."""
    scarce_share: float = 0.08
    scarce_batch_s: float = 0.005
    """Less long, of a piece that a smaller share of the mates have, in whole hosts: of fewer than 13 mates none."""
    charges_max: int = 64
    """Times that one peer, in one session, may have us check a piece of ours."""

    # When this host's own disk fails.
    disk_retry_first_s: float = 1.0
    disk_retry_last_s: float = 30.0
    """What it has failed at is tried again after so long, then after twice that, and so on; give or take a half."""

    # What is remembered.
    orders_kept: int = 4096
    """Orders; beyond them the oldest go that have ended and lease nothing."""

    # When it becomes durable.
    sync_batch_bytes: int = 256 * MIB
    sync_batch_s: float = 2.0
