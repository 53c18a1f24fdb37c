"""What holds for every request, text and order of events."""

from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from stablequeue.catalogue import (
    TRANSITIONS,
    Attempt,
    AttemptState,
    Catalogue,
    JobState,
    Outcome,
)
from stablequeue.catalogue.records import TERMINAL
from stablequeue.errors import Refused
from stablequeue.ids import new_job_id
from stablequeue.request import GenerationRequest, Lora, Mode, Tier, parse_request
from tests.catalogue.making import accepted, begun, new_asset, stored

QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
NAMES = TEXT.filter(lambda name: name != "__prefect_kind")
"""Of a request's own keys: Prefect keeps that one for itself."""
BROKEN_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)
"""With NUL and lone surrogates, which a request cannot have, but a server's answer can."""
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-9.5)), timezone(timedelta(hours=14))])
PIXELS = st.integers(2, 2048).map(lambda number: number * 8)

LORAS = st.builds(
    Lora,
    name=TEXT.filter(bool),
    weight=st.floats(-10, 10),
    text_weight=st.none() | st.floats(-10, 10),
)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Any request the model allows."""
    mode = draw(st.sampled_from(Mode))
    reference = "sha256:" + draw(st.text("0123456789abcdef", min_size=64, max_size=64))
    node = {"class_type": draw(TEXT), "inputs": draw(st.dictionaries(NAMES, JSON, max_size=2))}
    needs: dict[Mode, dict[str, Any]] = {
        Mode.IMG2IMG: {"init_image": reference},
        Mode.INPAINT: {"init_image": reference, "mask_image": reference},
        Mode.UPSCALE: {"init_image": reference},
        Mode.WORKFLOW: {"workflow": {draw(NAMES): node}, "overrides": {draw(NAMES): draw(JSON)}},
    }
    data: dict[str, Any] = {
        "mode": mode,
        "prompt": draw(TEXT),
        "negative_prompt": draw(TEXT),
        "server": draw(st.sampled_from(["any", "gpu-a", "x" * 48])),
        "tier": draw(st.sampled_from(Tier)),
        "checkpoint": draw(TEXT),
        "loras": draw(st.lists(LORAS, max_size=3)),
        "width": draw(PIXELS),
        "height": draw(PIXELS),
        "cfg_scale": draw(st.floats(0, 100)),
        "seed": draw(st.integers(-1, 2**53 - 1000)),
        "count": draw(st.integers(1, 1000)),
        "alwayson_scripts": draw(st.dictionaries(NAMES, JSON, max_size=2)),
        "sections": draw(
            st.sampled_from(
                [{}, {"forge": {"payload": {"x": 1}}}, {"comfyui": {"preview_method": "auto"}}]
            )
        ),
        "tags": draw(st.lists(TEXT.filter(bool), max_size=4)),
        "source": draw(TEXT),
        "expires_at": draw(st.none() | st.datetimes(timezones=ZONES)),
        **needs.get(mode, {}),
    }
    return parse_request(data)


@QUICK
@given(asked=requests(), edited=requests(), seed=st.integers(0, 2**53 - 1))
def test_any_request_is_accepted_and_reads_back_equal(
    catalogue: Catalogue, asked: GenerationRequest, edited: GenerationRequest, seed: int
) -> None:
    job_id = new_job_id()
    catalogue.accept(asked, job_id=job_id, seed=seed, deployment="generate/any")
    read = catalogue.request(job_id)
    assert (read.request, read.seed, read.tags) == (asked, seed, tuple(asked.tags))
    for tag in asked.tags:
        assert job_id in {row.job_id for row in catalogue.requests(tag=tag, limit=1000)}

    catalogue.start(
        edited, job_id=job_id, seed=seed, server="gpu-a", flow_run_id="run", deployment="d"
    )
    assert catalogue.request(job_id).request == edited
    assert parse_request(catalogue.request(job_id).data) == edited


@QUICK
@given(
    prompt=TEXT, name=TEXT, params=st.dictionaries(NAMES, JSON), models=st.dictionaries(NAMES, TEXT)
)
def test_any_asset_is_recorded_and_found(
    catalogue: Catalogue,
    prompt: str,
    name: str,
    params: dict[str, Any],
    models: dict[str, str],
) -> None:
    asset = stored(
        catalogue, "cat", prompt=prompt, name=name, infotext=prompt, params=params, models=models
    )
    assert (asset.params, asset.models) == (params, models)
    assert catalogue.asset(asset.id) == asset
    for model in models:
        if model.strip().strip("\0"):
            assert asset in catalogue.search(model=model, limit=1000), model


SEARCHED = ("a black cat", "blue_eyes (masterpiece:1.2)", "猫 and 1girl, 8k", "NEAR AND OR NOT")


@pytest.fixture
def searched(catalogue: Catalogue) -> Catalogue:
    """A catalogue with something to find."""
    for prompt in SEARCHED:
        stored(catalogue, prompt, tags=("t",))
    return catalogue


@QUICK
@given(
    text=BROKEN_TEXT
    | st.text("\"*() :^+-&|!<>\\'_{}~catbluNEARODT\0", max_size=30)
    | st.sampled_from(SEARCHED),
    value=BROKEN_TEXT,
)
def test_any_text_can_be_searched_for(searched: Catalogue, text: str, value: str) -> None:
    found = searched.search(text)
    ids = [asset.id for asset in found]
    assert ids == sorted(ids, reverse=True)
    if text in SEARCHED:
        assert text in {asset.prompt for asset in found}
    for filtered in (
        searched.search(text, model=value),
        searched.search(text, server=value),
        searched.search(text, tag=value),
    ):
        assert filtered == [] or value in {"", "gpu-a", "t"}


WORDS = ("cat", "cats", "dog", "ca")
PIECES = ("cat", "dog", "ca*", "c*", "bird", '"cat dog"')


@QUICK
@given(
    prompts=st.lists(
        st.lists(st.sampled_from(["cat", "cats", "dog", "ca"]), max_size=4), max_size=5
    ),
    wanted=st.lists(st.sampled_from(["cat", "dog", "ca*", "c*", "bird", '"cat dog"']), max_size=3),
)
def test_a_search_finds_what_reading_every_prompt_would(
    catalogue: Catalogue, prompts: list[list[str]], wanted: list[str]
) -> None:
    before = max((asset.id for asset in catalogue.search(limit=1)), default=0)
    made = [stored(catalogue, " ".join(words) or "-") for words in prompts]

    def matches(words: list[str], piece: str) -> bool:
        if piece.startswith('"'):
            return f" {piece[1:-1]} " in f" {' '.join(words)} "
        if piece.endswith("*"):
            return any(word.startswith(piece[:-1]) for word in words)
        return piece in words

    expected = [
        asset.id
        for asset, words in zip(made, prompts, strict=True)
        if all(matches(words, piece) for piece in wanted)
    ]
    found = [asset.id for asset in catalogue.search(" ".join(wanted), limit=1000)]
    assert [asset_id for asset_id in found if asset_id > before] == expected[::-1]


MOVES = sorted(set(AttemptState) - {AttemptState.STORED})


class Life(RuleBasedStateMachine):
    """One job's picture through any order of events; a model says what must be."""

    catalogue: Catalogue
    attempts = Bundle[Attempt]("attempts")

    @initialize()
    def accept(self) -> None:
        self.job = accepted(self.catalogue)
        self.states: dict[int, AttemptState] = {}
        self.first_files: list[str] | None = None

    @rule(target=attempts)
    def begin(self) -> Attempt | MultipleResults[Attempt]:
        settled = not {AttemptState.OPEN, AttemptState.COLLECTED, AttemptState.STORED} & set(
            self.states.values()
        )
        try:
            attempt = begun(self.catalogue, self.job.job_id)
        except Refused:
            assert not settled
            return multiple()
        assert settled
        assert attempt.attempt == len(self.states) + 1
        self.states[attempt.id] = AttemptState.OPEN
        return attempt

    @rule(
        attempt=attempts, state=st.sampled_from(sorted(set(AttemptState) - {AttemptState.STORED}))
    )
    def move(self, attempt: Attempt | None, state: AttemptState) -> None:
        if attempt is None:
            return
        moved = self.catalogue.update_attempt(attempt.id, state)
        assert moved is (state in TRANSITIONS[self.states[attempt.id]])
        if moved:
            self.states[attempt.id] = state

    @rule(attempt=attempts, count=st.integers(0, 2), content=st.sampled_from("ab"))
    def record(self, attempt: Attempt, count: int, content: str) -> None:
        files = [new_asset(content, ordinal=ordinal) for ordinal in range(count)]
        state = self.states[attempt.id]
        try:
            found = self.catalogue.record_assets(attempt.id, files)
        except Refused:
            assert state in TERMINAL - {AttemptState.STORED}
            return
        assert state not in TERMINAL - {AttemptState.STORED}
        self.states[attempt.id] = AttemptState.STORED
        if self.first_files is None:
            self.first_files = [file.sha256 for file in files]
        assert [asset.sha256 for asset in found] == self.first_files

    @rule(state=st.sampled_from([JobState.FAILED, JobState.CRASHED, JobState.CANCELLED]))
    def finish(self, state: JobState) -> None:
        self.catalogue.finish(self.job.job_id, Outcome(state=state))
        assert self.catalogue.request(self.job.job_id).state is state
        self.catalogue.reopen(self.job.job_id)

    @invariant()
    def states_are_as_modelled(self) -> None:
        if hasattr(self, "states"):
            attempts = self.catalogue.attempts(self.job.job_id)
            assert {attempt.id: attempt.state for attempt in attempts} == self.states

    @invariant()
    def stored_once(self) -> None:
        if hasattr(self, "states"):
            shas = [asset.sha256 for asset in self.catalogue.assets(self.job.job_id)]
            assert shas == (self.first_files or [])


def test_any_order_of_events_stores_a_picture_once(catalogue: Catalogue) -> None:
    class OnThis(Life):
        pass

    OnThis.catalogue = catalogue
    run_state_machine_as_test(
        OnThis, settings=settings(QUICK, max_examples=15, stateful_step_count=12)
    )


@given(st.lists(st.sampled_from(AttemptState), max_size=12))
def test_terminal_states_are_never_left(moves: list[AttemptState]) -> None:
    state, ended = AttemptState.OPEN, False
    for wanted in moves:
        if wanted in TRANSITIONS[state]:
            assert not ended
            state = wanted
        ended = ended or state in TERMINAL
