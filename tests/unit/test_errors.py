"""Exit codes and ERR lines are interfaces."""

import pytest

from papaya_pool import errors


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (errors.PoolFault, 70),
        (errors.UsageFault, 2),
        (errors.CannotCreate, 73),
        (errors.BadConfig, 78),
        (errors.LogCorrupt, 78),
        (errors.CannotBoot, 70),
    ],
)
def test_a_pool_fault_has_an_exit_code_and_says_why(fault, code):
    assert fault("so and so").exit_code == code
    assert str(fault("so and so")) == "so and so"
    assert issubclass(fault, errors.PoolFault)


def test_a_session_fault_is_told_to_the_client_in_one_line():
    fault = errors.SessionFault("too-long", "a line has at most 4096 bytes")
    assert fault.wire() == b"ERR too-long a line has at most 4096 bytes\n"
    assert str(fault) == "too-long a line has at most 4096 bytes"


def test_no_fault_passes_for_one_of_another_radius():
    bases = [errors.SessionFault, errors.WorkerFault, errors.PoolFault]
    for base in bases:
        assert [other for other in bases if issubclass(base, other)] == [base]
