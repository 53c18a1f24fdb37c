"""Job ids, remote keys, seeds and names."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from stablequeue.ids import derived_seed, new_job_id, remote_key, run_name, short_id


def test_job_ids_are_uuids_of_version_7_in_the_order_they_were_made() -> None:
    ids = [new_job_id() for _ in range(200)]

    assert {UUID(one).version for one in ids} == {7}
    assert len(set(ids)) == len(ids)
    stamps = [one.replace("-", "")[:12] for one in ids]
    assert stamps == sorted(stamps)


def test_a_remote_key_depends_on_job_picture_and_attempt_and_on_nothing_else() -> None:
    keys = {remote_key(job, i, a) for job in ("x", "y") for i in range(3) for a in range(1, 4)}

    assert len(keys) == 18
    assert remote_key("x", 0, 1) == remote_key("x", 0, 1)
    assert str(remote_key("x", 0, 1)) == str(UUID(str(remote_key("x", 0, 1))))


@given(st.text())
def test_a_derived_seed_is_the_same_every_time_and_fits_every_server(job_id: str) -> None:
    assert derived_seed(job_id) == derived_seed(job_id)
    assert 0 <= derived_seed(job_id) < 2**32


@given(st.text())
def test_a_runs_name_is_readable_and_carries_the_short_id(prompt: str) -> None:
    job_id = new_job_id()

    name = run_name(prompt, "txt2img", "gpu", job_id)

    assert name.endswith(f" · gpu · {short_id(job_id)}")
    assert len(name) < 200
    assert "\n" not in name.split(" · ")[0]


def test_a_prompt_without_words_is_named_after_what_is_made() -> None:
    assert run_name("((( )))", "upscale", "gpu", new_job_id()).startswith("upscale · gpu")
