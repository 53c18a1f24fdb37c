"""Texts as the catalogue stores and compares them; light, for those who only look."""

from itertools import pairwise

from stablequeue.errors import NotFound, Refused

_GROUPS = (0, 8, 12, 16, 20, 32)  # where the hyphens of a UUID stand, counted in digits
_HEXADECIMAL = frozenset("0123456789abcdef")


def clean(text: str) -> str:
    """Return `text` as both databases can hold it: no NUL, no lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def folded_tag(tag: str) -> str:
    """Return the form of a tag that is compared."""
    return clean(tag).casefold()


def is_hexadecimal(text: str) -> bool:
    """Whether `text` is made of lower case hexadecimal digits, at least one."""
    return bool(text) and _HEXADECIMAL.issuperset(text)


def job_id_ends(part: str) -> tuple[str, str]:
    """Return how `requests.job_id` and `requests.reversed_id` begin for a part of a job id.

    Every hyphen may be left out. The rows meant lie in [x, x + "g"): g comes after every digit.

    Raises:
        NotFound: No job id has such a part.
    """
    digits = part.strip().lower().replace("-", "")
    if len(digits) > _GROUPS[-1] or not is_hexadecimal(digits):
        raise no_job(part)
    groups = [digits[start:end] for start, end in pairwise(_GROUPS) if digits[start:end]]
    return "-".join(groups), digits[::-1]


def no_job(part: str) -> NotFound:
    """Return the error for an id, or a part of one, that no job has."""
    return NotFound(f"there is no job {part[:50]!r}. List them with: stablequeue ls --all")


def several_jobs(part: str) -> Refused:
    """Return the error for a part of an id that several jobs have."""
    return Refused(f"more than one job has {part[:50]!r} in its id; give more of it")
