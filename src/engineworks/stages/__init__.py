"""The stages of the pipeline, one file each: request, function and value stand together.

`python -m engineworks.stages FOLDER` repeats one stage by hand from its `request.json`. Every file
here has its task of the same name in `tasks/`.
"""

from __future__ import annotations

from typing import Any

from engineworks.stages import (
    analyze,
    benchmark,
    build,
    calibrate,
    check,
    compare,
    export,
    generate,
    package,
    pair,
    quantize,
    reference,
    requantize,
    seal,
    simplify,
    validate,
)
from engineworks.stages._stage import Stage

STAGES: dict[str, Stage[Any, Any]] = {
    stage.name: stage
    for stage in (
        validate.STAGE,
        reference.STAGE,
        export.STAGE,
        simplify.STAGE,
        simplify.ONNXSIM,
        analyze.STAGE,
        analyze.UNSUPPORTED,
        generate.STAGE,
        calibrate.STAGE,
        quantize.STAGE,
        requantize.STAGE,
        build.STAGE,
        check.STAGE,
        benchmark.STAGE,
        compare.STAGE,
        package.STAGE,
        seal.STAGE,
        pair.STAGE,
    )
}

__all__ = ["STAGES", "Stage"]
