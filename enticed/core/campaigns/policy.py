"""The knobs of campaigns, in one record."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CampaignPolicy:
    """Defaults are those of the daemon."""

    at_once_max: int = 96
    """Hosts that have a turn at once, of all campaigns: each takes a session, and pulls need some too."""
    answer_patience_s: float = 10.0
    """A host that was asked and says nothing for so long is asked again."""
    retry_first_s: float = 1.0
    retry_last_s: float = 60.0
    """Between two tries to reach a host, doubling."""
    lost_tries: int = 3
    """A host whose order was under way keeps its turn for so many tries: it may well go on pulling."""
    give_up_s: float = 600.0
    """Without a due date, a host that cannot be reached is given up after so long."""
    resume_patience_s: float = 60.0
    """After a restart hosts are given so long to be found again, whatever their due date."""
    drop_tries: int = 3
    """To reach a host whose order is cancelled; after that its lease ends by itself."""
    renew_share: float = 0.25
    """Asking again renews a lease of which at least this share has passed: repeating oneself costs nothing."""
    campaigns_kept: int = 256
    """Campaigns; beyond them the oldest that are over go."""
