"""The harness itself: what it claims to do to the service after each command, it does."""

from .service import Service, User


def test_what_happens_after_each_command_really_happens(service: Service, anna: User) -> None:
    state, term = service.state, service.state.header.term
    anna.lock("x")
    assert (service.state is not state) == (service.way == "restarted"), "only what was loaded anew is another state"
    assert (service.state.header.term > term) == (service.way != "plain"), "whoever starts or takes over has a new term"
    assert service.state.held == 1


def test_time_passes_as_it_is_told_to_and_hardly_else(service: Service, anna: User) -> None:
    before = service.state.clock_ms
    for _ in range(10):
        anna.ping()
    assert service.state.clock_ms - before == (20 if service.way == "new leader" else 0)
    service.wait(1.5)
    assert 1500 <= service.state.clock_ms - before <= 1530
