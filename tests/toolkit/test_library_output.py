"""What libraries say reaches a terminal where it is an error, where the command crashes, or where it is wanted."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable

import pytest

from toolkit import cli
from toolkit.errors import UserError
from toolkit.library_output import quiet_libraries


def speak() -> None:
    """Say what libraries say."""
    warnings.simplefilter("always")
    warnings.warn("a field is deprecated", FutureWarning, stacklevel=1)
    warnings.warn("pin_memory has no effect", UserWarning, stacklevel=1)
    logging.getLogger("bitsandbytes.backends").warning("Failed to load %s", "CPU gemm")
    logging.getLogger("transformers.trainer").warning("these flags are not valid")


def fail(error: Exception, times: int) -> None:
    """Fail after so many libraries have spoken."""
    with quiet_libraries():
        for number in range(times):
            speak()
            logging.getLogger("trl").warning("notice %d", number)
        raise error


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().err


def test_warnings_and_notices_are_not_shown(said: Callable[[], str]) -> None:
    with quiet_libraries():
        speak()
    assert said() == ""


def test_errors_are_shown_at_once(said: Callable[[], str]) -> None:
    with quiet_libraries():
        logging.getLogger("accelerate").error("rank 1 is lost")
        assert said() == "accelerate: rank 1 is lost\n"


def test_the_toolkits_own_warnings_are_shown(said: Callable[[], str]) -> None:
    with quiet_libraries():
        logging.getLogger("toolkit.programs").warning("no jail here")
    assert said() == "toolkit.programs: no jail here\n"


def test_a_crash_shows_each_thing_that_was_kept_back_once(said: Callable[[], str]) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        fail(RuntimeError("out of memory"), times=3)
    shown = said()
    for part in ("Warning: a field is deprecated", "Warning: pin_memory has no effect", "Failed to load CPU gemm"):
        assert shown.count(part) == 1


def test_a_users_mistake_is_shown_alone(said: Callable[[], str]) -> None:
    with pytest.raises(UserError):
        fail(UserError("stages.0.training.learning_rat: unknown"), times=1)
    assert said() == ""


def test_only_the_newest_are_kept(said: Callable[[], str]) -> None:
    with pytest.raises(RuntimeError):
        fail(RuntimeError(), times=1000)
    notices = [line for line in said().splitlines() if "notice" in line]
    assert notices[-1] == "trl: notice 999"
    assert len(notices) < 100


def test_a_process_that_is_started_is_asked_to_be_quiet_too() -> None:
    with quiet_libraries():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
        assert os.environ["TQDM_DISABLE"] == "1"


def test_what_a_user_has_asked_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    with quiet_libraries():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


def test_everything_is_as_before_afterwards() -> None:
    def state() -> list[object]:
        levels = [logging.getLogger(name).level for name in ("transformers", "datasets", "huggingface_hub")]
        return [dict(os.environ), list(logging.getLogger().handlers), levels, warnings.showwarning]

    before = state()
    with quiet_libraries():
        assert state() != before
    assert state() == before


@pytest.mark.parametrize(("option", "shown"), [([], ""), (["--verbose"], "bitsandbytes: from its library\n")])
def test_verbose_shows_what_libraries_say(
    option: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    def command(args: object) -> None:
        logging.getLogger("bitsandbytes").warning("from its library")

    # As without pytest, whose own handlers would take it.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "lastResort", handler)
    monkeypatch.setattr(cli, "_train", command)
    assert cli.main(["train", "recipe.yaml", *option]) == 0
    assert said() == shown
