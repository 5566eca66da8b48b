"""Labels, and what else a certificate says of its holder."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.credentials import NodeCredential, Role, read_certificate
from protocol.enrolment import scheduler_credential
from protocol.errors import MalformedError
from protocol.labels import HostLabel, parse_label_text, parse_labels
from protocol.limits import CERTIFICATE_MAX_SIZE_BYTES, LABELS_MAX_CHARS, LABELS_MAX_COUNT
from tests.wire.cas import NOW, TestCa, credential_of

CA = TestCa.named("ca")
HOST = credential_of("host")
LABELS = (HostLabel("gpu", "a100"), HostLabel("host", "h1"))

keys = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,15}", fullmatch=True).filter(lambda key: key not in ("zone", "rack"))
values = st.from_regex(r"[A-Za-z0-9._-]{1,16}", fullmatch=True)


@given(st.dictionaries(keys, values, max_size=7), st.booleans())
def test_labels_come_back_from_a_certificate(labels: dict[str, str], may_dispatch: bool) -> None:
    said = parse_labels(HostLabel(key, value) for key, value in labels.items())
    credential = replace(HOST, labels=said, may_dispatch=may_dispatch)
    certificate = CA.certify(credential)
    assert read_certificate(certificate) == credential
    assert len(certificate) <= CERTIFICATE_MAX_SIZE_BYTES


def test_the_longest_labels_fit() -> None:
    longest = tuple(HostLabel(f"k{n}", "v" * 29) for n in range(LABELS_MAX_COUNT))
    assert sum(len(str(label)) for label in longest) == LABELS_MAX_CHARS
    full = replace(credential_of("full", zone="z" * 64, rack="r" * 64), labels=parse_labels(longest), may_dispatch=True)
    assert read_certificate(CA.certify(full)) == full
    with pytest.raises(MalformedError, match="at most"):
        parse_labels((*longest[1:], HostLabel("k0", "v" * 30)))


@given(st.text(max_size=60))
def test_any_text_is_a_label_or_malformed(text: str) -> None:
    try:
        label = parse_label_text(text)
    except MalformedError:
        return
    assert str(label) == text


@pytest.mark.parametrize(
    "labels",
    [
        (HostLabel("zone", "a"),),
        (HostLabel("rack", "a"),),
        (HostLabel("A", "a"),),
        (HostLabel("a", ""),),
        (HostLabel("a", "x y"),),
        (HostLabel("a", "1"), HostLabel("a", "2")),
        tuple(HostLabel(f"k{n}", "v") for n in range(LABELS_MAX_COUNT + 1)),
    ],
)
def test_what_no_host_is_labelled(labels: tuple[HostLabel, ...]) -> None:
    with pytest.raises(MalformedError):
        parse_labels(labels)
    with pytest.raises(MalformedError):
        CA.certify(replace(HOST, labels=tuple(sorted(labels))))


def test_labels_out_of_order_are_not_certified() -> None:
    with pytest.raises(MalformedError, match="order"):
        CA.certify(replace(HOST, labels=LABELS[::-1]))


def test_zone_and_rack_are_labels_to_choose_by() -> None:
    credential = replace(HOST, labels=LABELS)
    assert credential.every_label == {*LABELS, HostLabel("zone", "z1"), HostLabel("rack", "r7")}
    assert replace(credential, rack="").every_label == {*LABELS, HostLabel("zone", "z1")}


def test_a_scheduler_has_a_name_and_nothing_of_a_host() -> None:
    scheduler = scheduler_credential(
        HOST.node_key, HOST.sealing_key, HOST.nonce, name="nova", not_before=NOW, not_after=NOW + 60
    )
    read: NodeCredential = read_certificate(CA.certify(scheduler))
    assert (read.role, read.name, read.may_dispatch, read.labels) == (Role.SCHEDULER, "nova", False, ())
