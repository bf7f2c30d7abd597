"""Have two engines answer the same labelled photos now."""

from __future__ import annotations

from engineworks.evaluate.paired import Paired
from engineworks.specs import LimitsSpec
from engineworks.stages import pair as stage
from engineworks.stages.pair import PairRequest
from tasks._run import Run
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Have two engines answer the same labelled photos now.").anew


def pair(run: Run, request: PairRequest, variant: str) -> Paired:
    """A candidate's answers beside the champion's, made now and never taken from the cache."""
    return TASK.call(run, request, LimitsSpec().check_s * 2, variant, note)


def note(value: Paired) -> str:
    """Both in a few words."""
    return (
        f"{value.metric} {value.candidate:.4f}, the champion {value.champion:.4f} on "
        f"{value.photos} photos"
    )
