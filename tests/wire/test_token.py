"""Join tokens: one spelling each, and never shown by accident."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.addresses import split_address
from protocol.errors import MalformedError
from protocol.limits import TOKEN_MAX_CHARS
from protocol.token import JoinToken, authority_hash, format_token, parse_token

TOKEN = JoinToken("192.0.2.7:7443", b"\xab" * 32, b"\xcd" * 8, bytes(range(24)))
TEXT = format_token(TOKEN)

addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(1, 65535)).map(lambda pair: f"[{pair[0]}]:{pair[1]}"),
)


def test_the_layout() -> None:
    assert f"ENT1.192.0.2.7:7443.{'ab' * 32}.{'cd' * 8}.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX" == TEXT


@given(
    st.builds(
        JoinToken,
        addresses,
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=8, max_size=8),
        st.binary(min_size=24, max_size=24),
    )
)
def test_every_token_survives(token: JoinToken) -> None:
    text = format_token(token)
    assert parse_token(text) == token
    assert len(text) <= TOKEN_MAX_CHARS
    host, port = token.endpoint
    assert str(ip_address(host)) == host
    assert 0 < port < 65536


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ENT1",
        "ENT2" + TEXT[4:],
        TEXT + "=",
        TEXT[:-1],
        TEXT + "\n",
        " " + TEXT,
        TEXT.replace("ab" * 32, "AB" * 32),
        TEXT.replace("192.0.2.7:7443", "192.0.2.7"),
        TEXT.replace("192.0.2.7:7443", "192.0.2.7:0"),
        TEXT.replace("192.0.2.7:7443", "192.0.2.7:65536"),
        TEXT.replace("192.0.2.7:7443", "192.0.2.007:7443"),
        TEXT.replace("192.0.2.7:7443", "192.0.2.300:7443"),
        TEXT.replace("192.0.2.7:7443", "db01.example.net:7443"),
        TEXT.replace("192.0.2.7:7443", "::1:7443"),
        TEXT.replace("192.0.2.7:7443", "[0::1]:7443"),
        TEXT.replace("192.0.2.7:7443", "[192.0.2.7]:7443"),
        TEXT.replace("192.0.2.7:7443", "[fe80::1%eth0]:7443"),
        TEXT + "A" * TOKEN_MAX_CHARS,
    ],
)
def test_no_tokens(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_token(text)
    assert "AAECAwQF" not in str(caught.value)


@given(st.text(max_size=TOKEN_MAX_CHARS + 2))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_token(text)


@given(st.integers(0, len(TEXT)), st.integers(0, 3), st.text(max_size=3))
def test_whatever_parses_is_the_one_spelling(at: int, cut: int, put: str) -> None:
    text = TEXT[:at] + put + TEXT[at + cut :]
    try:
        token = parse_token(text)
    except MalformedError:
        return
    assert format_token(token) == text


@given(addresses)
def test_addresses(address: str) -> None:
    host, port = split_address(address)
    assert address == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def test_a_listener_may_leave_the_port_open() -> None:
    assert split_address("[::]:0", any_port=True) == ("::", 0)
    for address, any_port in (("[::]:0", False), ("[::]:00", True), ("[::]:", True)):
        with pytest.raises(MalformedError):
            split_address(address, any_port)


def test_a_token_does_not_show_its_secret() -> None:
    assert "secret" not in repr(TOKEN)


@pytest.mark.parametrize("token", [JoinToken("x", bytes(32), bytes(8), bytes(24)), JoinToken("[::1]:1", b"", b"", b"")])
def test_what_could_not_be_parsed_is_not_printed(token: JoinToken) -> None:
    with pytest.raises(MalformedError):
        format_token(token)


def test_the_hash_is_what_other_tools_print() -> None:
    assert authority_hash(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
