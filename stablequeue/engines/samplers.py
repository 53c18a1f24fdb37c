"""Sampler and scheduler names: one table between Forge/AUTOMATIC1111 and ComfyUI.

Facts, not taste: names and defaults of `/sdapi/v1/samplers` and `/sdapi/v1/schedulers` (Forge
f2.0.1) and of ComfyUI's `KSampler` (0.3.64). Two samplers are counterparts when they compute the
same update; two schedulers when they lay out the same noise levels:

* Forge's "Uniform", and its "Automatic" for a sampler that prefers nothing, walk time evenly:
  ComfyUI's `normal`.
* Forge's "Polyexponential" has rho 1, which makes it ComfyUI's `exponential`.
* Forge's "DDIM CFG++" (eta 0) is ComfyUI's `euler_cfg_pp`.
* ComfyUI's `*_gpu` samplers differ from their namesakes only in where the noise is drawn.

A living fork may have more than is listed here, so an engine asks its server's own list first and
this table second.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

Field = Literal["sampler", "scheduler"]

AUTOMATIC = "Automatic"


class NoCounterpart(LookupError):
    """The other kind of server has nothing that does the same.

    Args:
        field: `sampler` or `scheduler`.
        name: As it was asked for.
        problem: Why not, in words a person can act on.
        close: Names that would be understood and look alike; never used silently.
    """

    def __init__(self, field: Field, name: str, problem: str, close: tuple[str, ...] = ()) -> None:
        super().__init__(field, name, problem, close)
        self.field, self.name, self.problem, self.close = field, name, problem, close

    def __str__(self) -> str:
        like = f" Did you mean: {', '.join(self.close)}?" if self.close else ""
        return f"{self.name!r} {self.problem}.{like}"


@dataclass(frozen=True, slots=True)
class _Sampler:
    forge: str  # "" if Forge has none
    comfyui: str  # "" if ComfyUI has none
    usual: str = "normal"  # ComfyUI's name of the scheduler Forge takes for "Automatic"
    also: tuple[str, ...] = ()  # other names of the same thing, of either family
    own_schedule: bool = False  # Forge ignores the scheduler for it

    def comfyui_name(self, asked: str) -> str:
        """ComfyUI's name, but a `_gpu` variant that was asked for by name stays one."""
        return (
            _key(asked)
            if _key(asked) in self.also and _key(asked).endswith("_gpu")
            else self.comfyui
        )


_SAMPLERS = (
    _Sampler("DPM++ 2M", "dpmpp_2m", "karras", ("k_dpmpp_2m",)),
    _Sampler("DPM++ SDE", "dpmpp_sde", "karras", ("k_dpmpp_sde", "dpmpp_sde_gpu")),
    _Sampler("DPM++ 2M SDE", "dpmpp_2m_sde", "exponential", ("k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu")),
    _Sampler(
        "DPM++ 2M SDE Heun",
        "dpmpp_2m_sde_heun",
        "exponential",
        ("k_dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"),
    ),
    _Sampler("DPM++ 2S a", "dpmpp_2s_ancestral", "karras", ("k_dpmpp_2s_a",)),
    _Sampler("DPM++ 3M SDE", "dpmpp_3m_sde", "exponential", ("k_dpmpp_3m_sde", "dpmpp_3m_sde_gpu")),
    _Sampler("Euler a", "euler_ancestral", also=("k_euler_a", "k_euler_ancestral")),
    _Sampler("Euler", "euler", also=("k_euler",)),
    _Sampler("LMS", "lms", also=("k_lms",)),
    _Sampler("Heun", "heun", also=("k_heun",)),
    _Sampler("DPM2", "dpm_2", "karras", ("k_dpm_2",)),
    _Sampler("DPM2 a", "dpm_2_ancestral", "karras", ("k_dpm_2_a",)),
    _Sampler("DPM fast", "dpm_fast", also=("k_dpm_fast",)),
    _Sampler("DPM adaptive", "dpm_adaptive", also=("k_dpm_ad",)),
    _Sampler("Restart", "", "karras"),
    _Sampler("HeunPP2", "heunpp2"),
    _Sampler("IPNDM", "ipndm"),
    _Sampler("IPNDM_V", "ipndm_v"),
    _Sampler("DEIS", "deis"),
    _Sampler("DDIM", "ddim", "ddim_uniform", own_schedule=True),
    _Sampler("DDIM CFG++", "euler_cfg_pp", "ddim_uniform", ("ddim_cfgpp",), own_schedule=True),
    _Sampler("PLMS", "", own_schedule=True),
    _Sampler("UniPC", "uni_pc", also=("unipc",), own_schedule=True),
    _Sampler("LCM", "lcm", also=("k_lcm",)),
    _Sampler("DDPM", "ddpm"),
    *(
        _Sampler("", name)
        for name in (
            "euler_ancestral_cfg_pp",
            "dpmpp_2s_ancestral_cfg_pp",
            "dpmpp_2m_cfg_pp",
            "exp_heun_2_x0",
            "exp_heun_2_x0_sde",
            "res_multistep",
            "res_multistep_cfg_pp",
            "res_multistep_ancestral",
            "res_multistep_ancestral_cfg_pp",
            "gradient_estimation",
            "gradient_estimation_cfg_pp",
            "er_sde",
            "seeds_2",
            "seeds_3",
            "sa_solver",
            "sa_solver_pece",
            "uni_pc_bh2",
        )
    ),
)


@dataclass(frozen=True, slots=True)
class _Scheduler:
    forge: str
    comfyui: str
    also: tuple[str, ...] = ()
    only_from_forge: bool = False  # an earlier row is what ComfyUI's name means on Forge


_SCHEDULERS = (
    _Scheduler("Karras", "karras"),
    _Scheduler("Exponential", "exponential"),
    _Scheduler("SGM Uniform", "sgm_uniform", ("SGMUniform",)),
    _Scheduler("KL Optimal", "kl_optimal"),
    _Scheduler("Simple", "simple"),
    _Scheduler("Normal", "normal"),
    _Scheduler("DDIM", "ddim_uniform"),
    _Scheduler("Beta", "beta"),
    _Scheduler("Uniform", "normal", only_from_forge=True),
    _Scheduler("Polyexponential", "exponential", only_from_forge=True),
    _Scheduler("Align Your Steps", "", ("align_your_steps",)),
    _Scheduler("Align Your Steps GITS", "", ("align_your_steps_GITS",)),
    _Scheduler("Align Your Steps 11", "", ("align_your_steps_11",)),
    _Scheduler("Align Your Steps 32", "", ("align_your_steps_32",)),
    _Scheduler("Turbo", ""),
    _Scheduler("", "linear_quadratic"),
)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


_SAMPLER_BY_KEY = {
    _key(name): row for row in _SAMPLERS for name in (row.forge, row.comfyui, *row.also) if name
}
# Reversed, so that for ComfyUI's names the row that is not `only_from_forge` comes last and stays.
_SCHEDULER_BY_KEY = {
    _key(name): row
    for row in reversed(_SCHEDULERS)
    for name in (row.forge, "" if row.only_from_forge else row.comfyui, *row.also)
    if name
}
_EMPTY_SCHEDULERS = {"", _key(AUTOMATIC)}


def to_comfyui(sampler: str, scheduler: str = "") -> tuple[str, str]:
    """Return ComfyUI's names for a sampler and scheduler of either family.

    Case and spacing do not matter; a legacy name such as "DPM++ 2M Karras" is split. An empty or
    "Automatic" scheduler becomes the one Forge takes for that sampler.

    Raises:
        NoCounterpart: ComfyUI's KSampler has nothing that does the same.
    """
    row, wanted = _find(sampler, scheduler)
    if not row.comfyui:
        raise NoCounterpart(
            "sampler",
            sampler,
            "exists on Forge and AUTOMATIC1111 only; choose another sampler",
        )
    if wanted is None:
        return row.comfyui_name(sampler), row.usual
    if not wanted.comfyui:
        raise NoCounterpart(
            "scheduler",
            wanted.forge,
            "exists on Forge and AUTOMATIC1111 only; choose another scheduler",
        )
    return row.comfyui_name(sampler), wanted.comfyui


def to_forge(sampler: str, scheduler: str = "") -> tuple[str, str]:
    """Return Forge's names (of the sampler, and the scheduler's label) for those of either family.

    Case and spacing do not matter; a legacy name such as "DPM++ 2M Karras" is split. An empty
    scheduler becomes "Automatic", which is the sampler's usual one there.

    Raises:
        NoCounterpart: Forge has nothing that does the same, or ignores the scheduler for that
            sampler (DDIM, PLMS and UniPC keep their own).
    """
    row, wanted = _find(sampler, scheduler)
    if not row.forge:
        raise NoCounterpart("sampler", sampler, "exists on ComfyUI only; choose another sampler")
    if wanted is None or (row.own_schedule and wanted.comfyui == row.usual):
        return row.forge, AUTOMATIC
    if not wanted.forge:
        raise NoCounterpart(
            "scheduler", wanted.comfyui, "exists on ComfyUI only; choose another scheduler"
        )
    if row.own_schedule:
        raise NoCounterpart(
            "scheduler",
            wanted.forge,
            f"has no effect on Forge, where {row.forge} keeps its own schedule; leave it empty",
        )
    return row.forge, wanted.forge


def split_legacy(sampler: str) -> tuple[str, str]:
    """Split a legacy name: "DPM++ 2M Karras" -> ("DPM++ 2M", "Karras"); others get an empty one.

    Neither part is looked up beyond that, so an unknown name comes back as it was.
    """
    key = _key(sampler)
    if key in _SAMPLER_BY_KEY:
        return sampler, ""
    for suffix, row in sorted(_SCHEDULER_BY_KEY.items(), key=lambda item: -len(item[0])):
        start = key.removesuffix(f" {suffix}")
        if start != key and start in _SAMPLER_BY_KEY:
            known = _SAMPLER_BY_KEY[start]
            return known.forge or known.comfyui, row.forge or row.comfyui
    return sampler, ""


def _find(sampler: str, scheduler: str) -> tuple[_Sampler, _Scheduler | None]:
    """Return the rows; None for "the usual scheduler"."""
    name, implied = split_legacy(sampler)
    row = _SAMPLER_BY_KEY.get(_key(name))
    if row is None:
        raise NoCounterpart("sampler", sampler, "is no sampler we know", _close(sampler, "sampler"))
    given = _key(scheduler)
    if given in _EMPTY_SCHEDULERS:
        return row, _SCHEDULER_BY_KEY.get(_key(implied))
    wanted = _SCHEDULER_BY_KEY.get(given)
    if wanted is None:
        raise NoCounterpart(
            "scheduler", scheduler, "is no scheduler we know", _close(scheduler, "scheduler")
        )
    if implied and wanted is not _SCHEDULER_BY_KEY[_key(implied)]:
        raise NoCounterpart(
            "scheduler",
            scheduler,
            f"contradicts the sampler's name {sampler!r}, which says {implied}; give one of them",
        )
    return row, wanted


def _close(name: str, field: Field) -> tuple[str, ...]:
    rows = _SAMPLERS if field == "sampler" else _SCHEDULERS
    names = {_key(known): known for row in rows for known in (row.forge, row.comfyui) if known}
    return tuple(names[key] for key in difflib.get_close_matches(_key(name), names, n=3))
