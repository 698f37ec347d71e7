import stat
from pathlib import Path

import pytest

from fairq import AddressInvalid, NotSignedIn, sign_in
from fairq.sign_in import SignIn

URL, ELSEWHERE = "https://fairq.example.org", "https://other.example.org"


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "fairq"


def test_a_login_is_found_again() -> None:
    SignIn(URL, "stored").store()

    assert SignIn.found(environment={}) == SignIn(URL, "stored")


def test_a_login_is_for_its_owner_alone(config: Path) -> None:
    path = SignIn(URL, "stored").store()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o700


def test_a_second_login_replaces_the_first(config: Path) -> None:
    SignIn(URL, "stored").store()
    SignIn(ELSEWHERE, "newer").store()

    assert SignIn.found(environment={}) == SignIn(ELSEWHERE, "newer")
    assert len(list(config.iterdir())) == 1


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        ((None, None), {"FAIRQ_URL": ELSEWHERE, "FAIRQ_TOKEN": "t"}, (ELSEWHERE, "t")),
        ((None, None), {"FAIRQ_TOKEN": "t"}, (URL, "t")),
        ((None, None), {"FAIRQ_URL": URL}, (URL, "stored")),
        ((None, None), {"FAIRQ_URL": URL + "/"}, (URL, "stored")),
        ((ELSEWHERE, "mine"), {"FAIRQ_URL": URL, "FAIRQ_TOKEN": "t"}, (ELSEWHERE, "mine")),
        ((ELSEWHERE, None), {"FAIRQ_TOKEN": "t"}, (ELSEWHERE, "t")),
        ((ELSEWHERE + "/", None), {"FAIRQ_URL": ELSEWHERE, "FAIRQ_TOKEN": "t"}, (ELSEWHERE, "t")),
        ((URL, None), {"FAIRQ_URL": ELSEWHERE, "FAIRQ_TOKEN": "t"}, (URL, "stored")),
    ],
)
def test_what_is_given_wins_over_the_environment_and_that_over_the_login(
    given: tuple[str | None, str | None], environment: dict[str, str], found: tuple[str, str]
) -> None:
    SignIn(URL, "stored").store()

    assert SignIn.found(*given, environment=environment) == SignIn(*found)


def test_a_stored_token_goes_to_its_own_server_only() -> None:
    SignIn(URL, "stored").store()

    with pytest.raises(NotSignedIn, match="fairq login"):
        SignIn.found(environment={"FAIRQ_URL": ELSEWHERE})


def test_a_token_of_the_environment_goes_to_the_server_beside_it_only() -> None:
    with pytest.raises(NotSignedIn, match="its own address only"):
        SignIn.found(ELSEWHERE, environment={"FAIRQ_URL": URL, "FAIRQ_TOKEN": "t"})


@pytest.mark.parametrize("url", ["example.org", "http://", "http://[x", "http://x:port", "ftp://x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(AddressInvalid):
        SignIn.found(url, "t", environment={})


@pytest.mark.parametrize("environment", [{}, {"FAIRQ_URL": URL}, {"FAIRQ_TOKEN": "t"}])
def test_half_a_sign_in_is_none(environment: dict[str, str]) -> None:
    with pytest.raises(NotSignedIn):
        SignIn.found(environment=environment)


def test_a_login_that_cannot_be_read_is_none(config: Path) -> None:
    for odd in (b"{}", b"\xff"):
        SignIn(URL, "stored").store().write_bytes(odd)

        with pytest.raises(NotSignedIn):
            SignIn.found(environment={})


def test_a_forgotten_login_is_gone() -> None:
    SignIn(URL, "stored").store()

    assert sign_in.forget()
    assert not sign_in.forget()
    with pytest.raises(NotSignedIn):
        SignIn.found(environment={})


def test_a_token_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(SignIn(URL, "secret"))
