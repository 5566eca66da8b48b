"""The knobs of the DHT, in one record: what simulation tunes and a daemon takes as given."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.limits import CONTACTS_MAX_COUNT, PROVIDER_EXPIRY_S, PROVIDER_REFRESH_S


@dataclass(frozen=True, slots=True)
class DhtPolicy:
    """Defaults are those of the daemon."""

    # Routing.
    bucket_contacts: int = CONTACTS_MAX_COUNT
    quiet_s: float = 300.0
    """A contact not heard for so long is pinged, the quietest first."""
    tend_every_s: float = 2.0
    """Between two pings, or two refreshes of a bucket."""
    tend_rarely_s: float = 60.0
    """While there is nothing to ping or refresh."""
    bucket_refresh_s: float = 3600.0
    place_refresh_s: float = 600.0
    """Between looks around the own place, where whoever is new matters most."""
    place_again_s: float = 10.0
    """After joining: others may have joined at the same time."""
    failures_max: int = 2
    """A contact that answers nothing so often in a row is forgotten."""

    # Calls and lookups.
    parallelism: int = 4
    soft_timeout_s: float = 0.030
    """Then the lookup looks past a contact, and keeps listening."""
    hard_timeout_s: float = 0.250
    lookup_calls_max: int = 40
    lookup_timeout_s: float = 3.0
    endpoints_per_host: int = 4
    """One that does not answer is asked at other endpoints that were named for it, so many in all."""
    lookups_max: int = 32
    """At once; further ones wait their turn."""
    lookups_waiting_max: int = 4096

    # Finding.
    replicas: int = 8
    replicas_asked: int = 3
    """At least so many that know the key, before a lookup ends early; a name is the newest of what they say."""
    providers_wanted: int = 32
    checks_per_lookup: int = 128
    """Signatures that one lookup verifies at most."""

    # Keeping.
    providers_per_key: int = 256
    providers_per_source: int = 2048
    providers_max: int = 32_768
    names_max: int = 16_384
    """Recalls and floors among them; of 1.1 KB each, 18 MB."""
    provider_lifetime_s: float = PROVIDER_EXPIRY_S
    sweep_every_s: float = 300.0
    name_refresh_s: float = 3600.0
    """A name's replicas hand it to whoever is nearest by then."""

    # What one peer may ask of this host, and all of them.
    questions_per_s: float = 256.0
    questions_burst: float = 512.0
    checks_per_peer_s: float = 32.0
    checks_per_peer_burst: float = 256.0
    checks_per_s: float = 1000.0
    checks_burst: float = 2000.0

    # Announcing.
    refresh_s: float = PROVIDER_REFRESH_S
    refresh_jitter: float = 0.2
    """A refresh comes by up to this share of its interval early."""
    slowdown_max: float = 16.0
    walk_every_s: float = 3600.0
    """Rounds between two walks to a key's replicas go straight to those that the last walk found."""
    in_turn_max: int = 1024
    """With so few offers the replicas of each are refreshed one after another and not at once: one that has forgotten
    all, or all of them, are noticed within a fraction of `refresh_s`. More would be more rounds than `rounds_per_s`."""
    beat_s: float = 1.0
    """Rounds after the first begin at multiples of it, a little early: one waking does for all that are due."""
    forgotten_s: float = 1.0
    """After a replica that had forgotten a record the next one is asked so soon, and that one told of all others."""
    retry_s: float = 20.0
    """After a round that fewer replicas kept than should have."""
    rounds_max: int = 8
    rounds_per_s: float = 20.0
    rounds_burst: float = 64.0
    survey_every_s: float = 5.0
    growth: float = 2.0
    """A network that has grown by this factor since a record was stored has other replicas: it is announced again."""

    # Spreading.
    spread_tries: int = 4
    """How often a contact that does not answer is told what every host has to know."""
    spread_again_s: float = 2.0

    # Joining.
    join_patience_s: float = 1.0
    seek_first_s: float = 2.0
    seek_last_s: float = 60.0
    """Between looks for a first contact, doubling."""
    reseek_every_s: float = 600.0
    """Between looks at old addresses while there are contacts: how the parts of a split network find each other."""
    regain_every_s: float = 15.0
    regained_max: int = 3
    """So often so many of those that answered no more are greeted: they may only have been cut off."""
    lost_max: int = 64
    """Of those, so many are remembered, the last ones."""
    greetings_max: int = 8
    remember_every_s: float = 300.0
    remembered_max: int = 64
