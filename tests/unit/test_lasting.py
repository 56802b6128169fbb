"""Repairs that last and repairs that do not."""

from udpbackend.host.lasting import OFTEN, REMEMBERED, WITHIN_S, Lasting


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_is_repaired_again_and_again_is_a_problem_until_it_lasts():
    clock = Clock()
    lasting = Lasting(clock)
    for number in range(OFTEN):
        assert lasting.problems == ()
        told = lasting.note(["the jump", "once"] if number == 0 else ["the jump"])
        assert ("the jump" in told) == (number < OFTEN - 1), "a fight is not told of again and again in the log"
        clock.now += 5
    assert lasting.problems == ("repairs do not last, something undoes them: the jump",)
    lasting.note(())
    clock.now += WITHIN_S
    assert lasting.problems == ()


def test_seldom_repairs_are_none():
    clock = Clock()
    lasting = Lasting(clock)
    for _ in range(10):
        assert lasting.note(["the jump"]) == ("the jump",)
        clock.now += WITHIN_S / 2 + 1
        assert lasting.problems == ()


def test_several_at_once_are_one_clause_and_little_is_remembered():
    lasting = Lasting(Clock())
    for _ in range(OFTEN):
        lasting.note(["b", "a"])
    assert lasting.problems == ("repairs do not last, something undoes them: a and 1 more",)
    lasting.note(str(number) for number in range(10 * REMEMBERED))
    assert lasting.problems == ()
    assert len(lasting._times) == REMEMBERED
