"""The daemon, its peers, and the orders that it works on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from enticed.cli.client import ENDED, STATES, Daemon, part
from enticed.cli.command import Command, daemon_of, setup_of, target
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import ago, pairs, short, size, table

IMAGE_ID = re.compile("[0-9a-f]{64}")


def _states(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    states = () if value is None else tuple(value.split(","))
    if wrong := [state for state in states if state not in STATES]:
        raise click.BadParameter(f"{wrong[0]!r} is no state of an order: {', '.join(STATES)}")
    return states


@click.command(cls=Command)
@click.option("--state", "states", metavar="STATE,...", callback=_states, help="Only those in one of these states.")
@click.pass_context
def orders(ctx: click.Context, states: tuple[str, ...]) -> None:
    """List the orders: pulls, and what schedulers have asked for ahead of time. First those that are not at their end;
    of these and of the others, the newest first.

    \b
    entice orders
    entice orders --state failed,paused
    """
    answer = daemon_of(ctx).ask("GET", "/v1/orders")
    if states:
        answer = {"orders": [order for order in answer["orders"] if order["state"] in states]}
    columns = ("IMAGE", "STATE", "PLACED", "DONE", "PRIORITY", "DUE", "PROMISE", "KEPT", "OWNER", "KEY", "WHY")
    rows = [
        (
            _shown(order["image"]),
            order["state"],
            ago(order["created_at"]),
            f"{order['percent']:.0f} %",
            order["priority"],
            "" if order["state"] == "ready" else ago(order["due_at"]),
            (order["promise"] or "").replace("_", " "),
            _kept(order),
            order["owner"],
            _shown(order["key"]),
            order["reason"],
        )
        for order in sorted(answer["orders"], key=lambda order: (order["state"] in ENDED, -order["created_at"]))
    ]
    setup_of(ctx).show(answer, lambda: table(columns, rows, "no orders"))


@click.command(cls=Command)
@click.argument("key")
@click.pass_context
def cancel(ctx: click.Context, key: str) -> None:
    """Cancel the order KEY, and end its lease: the image may go.

    What it has fetched stays until room is wanted. `entice orders` lists the keys.

    \b
    entice cancel vm-17
    """
    order = _ask_of_order(daemon_of(ctx), "DELETE", "/v1/orders/", key)
    setup_of(ctx).show(order, lambda: [f"the order {order['key']} for {order['image']} is cancelled"])


@click.command(cls=Command)
@click.argument("what", metavar="NAME|IMAGE_ID|ORDER", callback=target)
@click.pass_context
def why(ctx: click.Context, what: str) -> None:
    """Say in one line why an order does not go on: the piece, who was asked, and what each of them answered.

    WHAT is the key of an order, or the image that orders are for, as it was ordered or by its id.

    \b
    entice why ubuntu:24.04
    """
    answer = _ask_of_order(daemon_of(ctx), "GET", "/v1/why?what=", what)
    setup_of(ctx).show(answer, lambda: [f"{one['key']}: {one['state']}: {one['why']}" for one in answer["orders"]])


def _shown(text: str) -> str:
    """An image, or the key of an order, with the image id that is in it shortened."""
    return IMAGE_ID.sub(lambda found: short(found[0]), text)


def _ask_of_order(daemon: Daemon, method: str, path: str, key: str) -> dict[str, Any]:
    """Ask about the order with this key, or the only one that is shown so."""
    try:
        return daemon.ask(method, path + part(key))
    except Failed as error:
        if error.code is not Exit.NOT_FOUND:
            raise
        meant = [one["key"] for one in daemon.ask("GET", "/v1/orders")["orders"] if _shown(one["key"]) == key]
        if len(meant) != 1:
            raise
    return daemon.ask(method, path + part(meant[0]))


def _kept(order: dict[str, Any]) -> str:
    """How long a ready order keeps its image from being removed."""
    if order["state"] != "ready":
        return ""
    if order["keep_until"] is None:
        return "until cancelled"
    kept = ago(order["keep_until"])
    return "" if kept.endswith("ago") else kept.replace("in ", "for ")


@click.command(cls=Command)
@click.pass_context
def peers(ctx: click.Context) -> None:
    """List the hosts that this one is connected to.

    \b
    entice peers
    """
    answer = daemon_of(ctx).ask("GET", "/v1/peers")
    columns = ("ADDRESS", "HOST", "ZONE", "RACK", "RATE", "IN FLIGHT", "STRIKES", "IMAGES")
    rows = [
        (
            ", ".join(peer["addresses"]),
            short(peer["node_id"]),
            peer["zone"],
            peer["rack"],
            f"{size(peer['bytes_per_s'])}/s",
            size(peer["in_flight_bytes"]),
            str(peer["strikes"]),
            str(peer["images"]),
        )
        for peer in answer["peers"]
    ]
    setup_of(ctx).show(answer, lambda: table(columns, rows, "connected to no other host"))


@click.command(cls=Command)
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show how the daemon on this host is doing.

    \b
    entice status
    """
    answer = daemon_of(ctx).ask("GET", "/v1/status")
    setup_of(ctx).show(answer, lambda: _status_lines(answer))


def _origin(origin: dict[str, Any] | None) -> str:
    """Empty, and so not shown, where there is none."""
    if origin is None:
        return ""
    said = origin["said"].removeprefix(f"{origin['prefix']}: ").removeprefix(f"{origin['prefix']} ")
    state = {"unasked": "not asked yet", "answers": "answers", "fails": f"FAILS: {said}"}[origin["state"]]
    return f"{origin['prefix']}, {state}, {size(origin['received_bytes'])} received"


def _degraded(status: dict[str, Any]) -> str:
    """Empty, and so not shown, while all is well."""
    if not status["degraded"]:
        return ""
    return f"since {ago(status['degraded_since'])}, takes no orders, serves what it has: {status['degraded']}"


def _disowned(status: dict[str, Any]) -> str:
    """Empty, and so not shown, where nobody says so, and where it is known."""
    if status["revoked"] or not status["disowned_by"]:
        return ""
    first, *others = status["disowned_by"]
    more = f" (and {len(others)} more)" if others else ""
    return f"host {short(first)}{more} says that this host was revoked: see entice doctor"


def _disk(status: dict[str, Any]) -> str:
    free, reserved = f"{size(status['free_bytes'])} free in {status['state']}", size(status["reserved_bytes"])
    if status["room_bytes"]:
        return f"{free}, room for {size(status['room_bytes'])} of images"
    return f"NO ROOM for images: {free}, {reserved} to stay free: remove images (entice rm), or see entice doctor"


def _certificate(status: dict[str, Any]) -> str:
    expires, trouble = f"expires {ago(status['certificate_expires_at'])}", status["certificate_trouble"]
    return expires if trouble is None else f"{expires}, NOT RENEWED: {trouble}"


def _status_lines(status: dict[str, Any]) -> Iterable[str]:
    quota = "" if status["quota_bytes"] is None else f" of {size(status['quota_bytes'])}"
    counted = ", ".join(f"{count} {state}" for state, count in status["orders"].items() if count)
    revoked = "REVOKED: no other host has anything to do with this one; entice doctor says what to do"
    return pairs(
        revoked if status["revoked"] else f"enticed {status['version']}, started {ago(status['started_at'])}",
        [
            ("DEGRADED", _degraded(status)),
            ("DISOWNED", _disowned(status)),
            ("host", f"{status['node_id']}{' (founded the cluster)' if status['founder'] else ''}"),
            ("zone", status["zone"]),
            ("rack", status["rack"]),
            ("listens on", ", ".join(status["listen"])),
            ("advertises", ", ".join(status["advertise"])),
            ("images", f"{status['images']}, {size(status['used_bytes'])}{quota}"),
            ("disk", _disk(status)),
            ("orders", counted or "none"),
            ("peers", f"{status['peers']} connected, {status['dht_nodes']} known, {status['uploads']} uploads"),
            ("traffic", f"{size(status['sent_bytes'])} sent, {size(status['received_bytes'])} received"),
            ("origin", _origin(status["origin"])),
            ("certificate", _certificate(status)),
            ("memory", size(status["memory_bytes"])),
            ("loop lag, p99", f"{status['loop_lag_p99_ms']:.1f} ms"),
        ],
    )
