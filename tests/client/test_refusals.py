"""Each reason for which the service refuses has its error, which says that nothing was changed (P9)."""

import pytest

import lessor
from lessor.client import refusals
from lessor.client.errors import BadRequest, LessorError, ServiceBusy, Unavailable
from lessor.client.refusals import Refused, refusal, refused
from lessor.core.results import FAILURES, STALE_NUMBER, TOO_MANY, Failed, NotHeld, Released, VersionDiffers

BUSY = {TOO_MANY, STALE_NUMBER}


@pytest.mark.parametrize("code", [code for code in FAILURES if code not in BUSY])
def test_every_failure_has_a_definite_error_of_its_own(code: str) -> None:
    error = refusal(Failed(code, "the detail"))
    assert isinstance(error, Refused | BadRequest)
    assert not error.indefinite
    assert str(error) == "the detail"


@pytest.mark.parametrize("code", [*sorted(BUSY), "one that is not known yet"])
def test_a_limit_or_an_unknown_reason_is_that_the_service_is_busy(code: str) -> None:
    assert type(refusal(Failed(code, ""))) is ServiceBusy


@pytest.mark.parametrize("code", FAILURES)
def test_after_a_sending_that_may_have_had_its_effect_a_refusal_is_indefinite(code: str) -> None:  # P9
    error = refusal(Failed(code, "the detail"), doubtful=True)
    assert isinstance(error, Unavailable)
    assert error.indefinite


def test_results_that_refuse_are_raised_and_others_returned() -> None:
    assert refused(Released()) == Released()
    with pytest.raises(refusals.NotHeldError):
        refused(NotHeld())
    with pytest.raises(refusals.VersionConflict, match="has version 7") as caught:
        refused(VersionDiffers(7))
    assert caught.value.version == 7
    with pytest.raises(refusals.VersionConflict, match="no such register"):
        refused(VersionDiffers(0))


def test_every_error_is_a_name_of_the_package() -> None:
    errors = {name for name, found in vars(refusals).items() if isinstance(found, type) and issubclass(found, Refused)}
    assert errors <= set(lessor.__all__)
    assert all(issubclass(getattr(lessor, name), LessorError) for name in errors)
