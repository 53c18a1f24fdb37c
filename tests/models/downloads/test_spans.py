"""Bookkeeping of what is there, on its way and missing."""

from hypothesis import given
from hypothesis import strategies as st

from stablequeue.models.downloads.spans import UNKNOWN, Board, Spans

spans = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(spans, max_size=12))
def test_spans_are_the_set_of_their_bytes(listed: list[tuple[int, int]]) -> None:
    there = {byte for start, end in listed for byte in range(start, end)}

    found = Spans(listed)

    assert found.total == len(there)
    assert {byte for start, end in found.to_list() for byte in range(start, end)} == there
    missing = {byte for start, end in found.gaps(60) for byte in range(start, end)}
    assert missing == set(range(60)) - there
    assert found.prefix == next(byte for byte in range(61) if byte not in there)


@given(
    size=st.integers(1, 400),
    there=st.lists(spans, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.booleans()), max_size=60),
    least=st.integers(1, 20),
)
def test_streams_bring_every_byte_once_however_they_take_turns_and_fail(
    size: int, there: list[tuple[int, int]], steps: list[tuple[int, int, bool]], least: int
) -> None:
    board = Board(size, [(start, min(end, size)) for start, end in there if start < size])
    brought = [byte for a, b in Spans(there).to_list() for byte in range(a, min(b, size))]
    working = [board.take(least) for _ in range(4)]

    def step(who: int, count: int, *, fails: bool) -> None:
        segment = working[who]
        if segment is None:
            working[who] = board.take(least)
            return
        count = min(count, segment.end - segment.position)
        brought.extend(range(segment.position, segment.position + count))
        board.advance(segment, count)
        if fails or segment.position >= segment.end:
            board.release(segment)
            working[who] = None

    for who, count, fails in steps:
        step(who, count, fails=fails)
    while board.busy or not board.complete:  # whoever has nothing asks again
        for who in range(4):
            step(who, 50, fails=False)

    assert board.complete
    assert sorted(brought) == list(range(size))
    assert board.received == size


def test_a_file_of_unknown_size_is_one_streams_until_its_size_is_known() -> None:
    board = Board(None)
    first = board.take(1)

    assert first is not None
    assert first.end == UNKNOWN
    assert board.take(1) is None
    board.learn(100)
    second = board.take(10)
    assert second is not None
    assert (first.end, second.position, second.end) == (50, 50, 100)


def test_starting_anew_forgets_all_but_the_stream_that_goes_on() -> None:
    board = Board(100, [(0, 50)])
    going_on = board.take(1)
    assert going_on is not None

    board.restart(going_on)

    assert (going_on.position, going_on.end, board.received) == (0, 100, 0)
    assert board.busy == 1


def test_what_a_stream_took_over_and_never_began_goes_back() -> None:
    board = Board(100)
    first, second = board.take(1), board.take(1)
    assert first is not None
    assert second is not None
    assert (first.end, second.position) == (50, 50)

    board.release(second)

    assert first.end == 100
    assert board.take(60) is None
