"""Ordering an image onto many hosts: a campaign is placed, and followed in a live table to the exit code that tells."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

import click

from enticed.cli.campaign_table import CampaignTable, campaign_lines
from enticed.cli.client import Daemon, Object, part
from enticed.cli.command import TERM_S, Command, Number, daemon_of, setup_of, target
from enticed.cli.failures import Exit, Failed, Terminated
from enticed.cli.output import ago, table
from enticed.limits import (
    BAR_INTERVAL_S,
    CAMPAIGN_HOSTS_FILE_MAX_SIZE_BYTES,
    CAMPAIGN_HOSTS_MAX_COUNT,
    CAMPAIGN_WAIT_MAX_S,
    CAMPAIGN_WATCH_GRACE_S,
    CAMPAIGN_WATCH_PATIENCE_S,
    REMOTE_LEASE_MAX_S,
)

_INCOMPLETE = "there may be more hosts with these labels than could be found: list them"


@click.command(cls=Command)
@click.argument("image", metavar="NAME|IMAGE_ID", callback=target)
@click.option(
    "--hosts", "file", metavar="FILE", type=click.File("r"), help="Hosts by name or id, one a line; - is stdin."
)
@click.option(
    "--label", "labels", metavar="K=V", multiple=True, help="All hosts with this label (zone, rack); several."
)
@click.option("--deadline", "deadline_s", metavar="S", type=TERM_S, help="Due in so many seconds.")
@click.option(
    "--at-most",
    "at_most",
    metavar="N",
    type=click.IntRange(1, CAMPAIGN_HOSTS_MAX_COUNT),
    help="So many hosts at the same time.",
)
@click.option(
    "--keep",
    "keep_s",
    metavar="S",
    type=Number(0, REMOTE_LEASE_MAX_S),
    help="Keep the image there for so long.  [default: a day]",
)
@click.option("--key", metavar="KEY", help="What the campaign is called; the same key again is the same campaign.")
@click.option("--watch", is_flag=True, help="Follow it to its end.")
@click.pass_context
def order(
    ctx: click.Context,
    image: str,
    file: Any,
    labels: tuple[str, ...],
    deadline_s: float | None,
    at_most: int | None,
    keep_s: float | None,
    key: str | None,
    watch: bool,
) -> None:
    """Bring the image NAME onto many hosts, ahead of time.

    Works on the founding host, and on hosts that joined with a token of `entice token --campaigns`. With --watch it
    ends with 0 when every host has the image in time, 75 when some are late or there may be more hosts than could
    be found, 1 when some failed. Ctrl-C ends the watching, not the campaign.

    \b
    entice order ubuntu:24.04 --label zone=a --deadline 60 --watch
    """
    if (file is None) == (not labels):
        raise click.UsageError("give either --hosts or --label", ctx)
    terms: Object = {"image": image, "deadline_s": deadline_s, "at_most_at_once": at_most, "keep_s": keep_s}
    terms |= {"labels": _labels(ctx, labels)} if labels else {"hosts": _hosts(file)}
    daemon, key = daemon_of(ctx), key or f"cli-{secrets.token_hex(8)}"
    campaign = daemon.ask("PUT", _path(key), terms)
    if not watch:
        if not campaign["complete"]:
            click.echo(f"entice: {_INCOMPLETE}", err=True)
        setup_of(ctx).show(campaign, lambda: [key])
        return
    campaign = _watch(daemon, campaign, shows=not setup_of(ctx).as_json)
    setup_of(ctx).show(campaign, lambda: campaign_lines(campaign))
    _end(campaign)


@click.command(cls=Command)
@click.argument("key", required=False)
@click.option("--cancel", is_flag=True, help="Cancel it, and its orders on all hosts.")
@click.option("--watch", is_flag=True, help="Follow it to its end.")
@click.pass_context
def campaigns(ctx: click.Context, key: str | None, cancel: bool, watch: bool) -> None:
    """List the campaigns of this host; or show, follow or cancel one.

    \b
    entice campaigns cli-5f3a9c01 --watch
    """
    daemon = daemon_of(ctx)
    if key is None:
        if cancel or watch:
            raise click.UsageError("name the campaign to cancel or to watch", ctx)
        answer = daemon.ask("GET", "/v1/campaigns")
        setup_of(ctx).show(answer, lambda: _listed(answer["campaigns"]))
        return
    campaign = daemon.ask("DELETE" if cancel else "GET", _path(key))
    if watch and not cancel:
        campaign = _watch(daemon, campaign, shows=not setup_of(ctx).as_json)
    setup_of(ctx).show(campaign, lambda: campaign_lines(campaign))
    if watch and not cancel:
        _end(campaign)


def _watch(daemon: Daemon, campaign: Object, *, shows: bool) -> Object:
    """Follow a campaign until it is over, or its due date has passed; as it is then."""
    try:
        with CampaignTable(shows) as shown:
            while campaign["state"] in ("running", "cancelling") and not _is_overdue(campaign):
                shown.update(campaign)
                time.sleep(BAR_INTERVAL_S)  # what changes meanwhile is drawn at once
                campaign = _newer(daemon, campaign)
            shown.update(campaign)
    except KeyboardInterrupt as error:
        code = Exit.TERMINATED if isinstance(error, Terminated) else Exit.INTERRUPTED
        key = campaign["key"]
        raise Failed(code, f"interrupted; the campaign goes on: entice campaigns {key} (--cancel ends it)") from error
    return campaign


def _newer(daemon: Daemon, campaign: Object) -> Object:
    """The campaign once it has changed. A daemon's end is none of its campaigns: started anew, it goes on with them."""
    key = campaign["key"]
    gone_since: float | None = None
    while True:
        try:
            return daemon.ask("GET", f"{_path(key)}?after={campaign['revision']}&{_wait(campaign)}")
        except Failed as error:
            is_starting = gone_since is not None and error.code is Exit.NOT_FOUND  # it answers before it knows of any
            if error.code is not Exit.NO_DAEMON and not is_starting:
                raise
            gone_since = gone_since or time.monotonic()
            if time.monotonic() > gone_since + CAMPAIGN_WATCH_PATIENCE_S or _is_overdue(campaign):
                goes_on = f"the campaign goes on when it is back: entice campaigns {key} --watch"
                raise Failed(Exit.NO_DAEMON, f"{error}; {goes_on}") from error
        time.sleep(BAR_INTERVAL_S)


def _is_overdue(campaign: Object) -> bool:
    return campaign["due_at"] is not None and time.time() > campaign["due_at"] + CAMPAIGN_WATCH_GRACE_S


def _wait(campaign: Object) -> str:
    wait_s = CAMPAIGN_WAIT_MAX_S
    if campaign["due_at"] is not None:
        wait_s = min(wait_s, max(0.0, campaign["due_at"] + CAMPAIGN_WATCH_GRACE_S - time.time()))
    return f"wait_s={wait_s:.3f}"


def _end(campaign: Object) -> None:
    """The exit code that tells."""
    key, total = campaign["key"], campaign["hosts_total"]
    ready = f"{campaign['hosts_ready']} of {total} hosts are ready"
    match campaign["state"]:
        case "running":
            raise Failed(Exit.TEMPORARY, f"late: {ready}; the campaign goes on: entice campaigns {key}")
        case "cancelled" | "cancelling":
            raise Failed(Exit.FAILED, f"somebody has cancelled the campaign {key}")
        case "failed":
            failed = sum(host["state"] == "failed" for host in campaign["hosts"])
            raise Failed(Exit.FAILED, f"{failed} of {total} hosts failed; {ready}")
    if campaign["promise"] not in (None, "on_time"):
        raise Failed(Exit.TEMPORARY, f"late: {ready}, some of them only after the due date")
    if not campaign["complete"]:
        raise Failed(Exit.TEMPORARY, f"{ready}; {_INCOMPLETE}")


def _hosts(file: Any) -> list[str]:
    """One host a line; what stands behind a # is for people."""
    text = file.read(CAMPAIGN_HOSTS_FILE_MAX_SIZE_BYTES + 1)
    if len(text) > CAMPAIGN_HOSTS_FILE_MAX_SIZE_BYTES:
        raise Failed(Exit.USAGE, f"{file.name} is no list of hosts: it is too large")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    hosts = [line for line in lines if line]
    if not hosts:
        raise Failed(Exit.USAGE, f"{file.name} names no host")
    return hosts


def _labels(ctx: click.Context, labels: Iterable[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for text in labels:
        key, equals, value = text.partition("=")
        if not equals or key in chosen:
            raise click.UsageError(f"--label {text}: a label is written key=value, each key once", ctx)
        chosen[key] = value
    return chosen


def _listed(campaigns: list[Object]) -> Iterable[str]:
    columns = ("IMAGE", "STATE", "READY", "PROMISE", "DUE", "OWNER", "KEY")
    rows = [
        (
            one["image"],
            one["state"],
            f"{one['hosts_ready']} of {one['hosts_total']}",
            (one["promise"] or "").replace("_", " "),
            ago(one["due_at"]),
            one["owner"],
            one["key"],
        )
        for one in campaigns
    ]
    return table(columns, rows, "no campaigns")


def _path(key: str) -> str:
    return f"/v1/campaigns/{part(key)}"
