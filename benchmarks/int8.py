"""`make bench-int8`: INT8 that holds its accuracy, beside what the usual tools give.

YOLOX-Nano and ResNet-20 go through the real command, unattended. A net of YOLOv8n's shape shows
speed alone. Calibration is held against ONNX Runtime's own in time and against itself in memory.

ENGINEWORKS_COCO128=FOLDER judges YOLOX-Nano on COCO photos in YOLO layout (images/val2017,
labels/val2017, classes.txt) instead of the example's 33. NNCF_PYTHON=PYTHON is an interpreter
with nncf, openvino and onnx; without it NNCF's rows are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import yaml

from benchmarks import _int8_speed
from benchmarks._bars import Bar, finish

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def main() -> int:
    """Measure everything, print tables and bars; 0 only if all bars hold."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        collecting = _told("calibration", _int8_speed.collecting(home))
        detector = ship(home, "yolox_nano", yolox_changes(home))
        _told("yolox-nano", _rows(detector))
        classifier = ship(home, "resnet20_cifar10", resnet_changes())
        _told("resnet-20", _rows(classifier))
        speed = _told("a net of YOLOv8n's shape", _int8_speed.measure(home))
        usual = _told("the usual tools", usual_tools(home, detector))
    bars = [*_detector_bars(detector, usual), *_classifier_bars(classifier)]
    bars += [*_int8_speed.bars(speed, collecting)]
    details = {
        "yolox_nano": _rows(detector),
        "usual_tools": usual,
        "resnet20": _rows(classifier),
        "yolov8n_shape": speed,
        "calibration": collecting,
    }
    _tables(detector, usual, classifier, speed, collecting)
    return finish("int8", bars, details)


def _told(part: str, found: Any) -> Any:
    """Say on stderr what a part has found: the whole takes half an hour."""
    print(f"{part}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def ship(home: Path, example: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the real command on a changed example; its summary."""
    folder = EXAMPLES / example
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    for section, key in (("data", "images"), ("data", "annotations"), ("model", "weights")):
        if recipe[section].get(key):
            recipe[section][key] = str(folder / recipe[section][key])
    recipe["task"]["labels"] = str(folder / recipe["task"]["labels"])
    change(recipe)
    work = home / example
    work.mkdir()
    (work / "model.py").write_bytes((folder / "model.py").read_bytes())
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.ship", str(work / "recipe.yaml"), "--quiet", "--json"],
        cwd=ROOT,
        env={**os.environ, "ENGINEWORKS_HOME": str(home / "state")},
        stdout=subprocess.PIPE,
        check=False,
    )
    if not done.stdout:
        raise SystemExit(f"{example} failed with exit code {done.returncode}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def yolox_changes(home: Path) -> Callable[[dict[str, Any]], None]:
    """More photos when they are at hand; nothing else than what is measured here."""

    def change(recipe: dict[str, Any]) -> None:
        folder = EXAMPLES / "yolox_nano"
        recipe["calibration"] = {"images": str(folder / "data/train2017"), "minimum": 16}
        photos = os.environ.get("ENGINEWORKS_COCO128")
        if photos:
            labels = Path(recipe["task"]["labels"]).read_text(encoding="utf-8").split("\n")
            boxes = coco_json(Path(photos), [name for name in labels if name], home)
            recipe["data"] |= {
                "images": str(Path(photos) / "images/val2017"), "annotations": str(boxes),
            }  # fmt: skip
            recipe["calibration"]["images"] = str(Path(photos) / "images/train2017")
        recipe["targets"] = [
            {"target": "onnxruntime-cpu", "precisions": ["fp32", "int8"], "required": False},
            {"target": "openvino", "precisions": ["fp32", "int8"], "required": False},
        ]
        recipe["benchmark"] = {"batches": [1], "seconds": 3}
        recipe["budget"] = {"max_drop": 0.01}
        recipe["int8"] = {"limit_s": 420}

    return change


def resnet_changes() -> Callable[[dict[str, Any]], None]:
    """INT8 calibrated with a part of its own images (it is judged on all)."""

    def change(recipe: dict[str, Any]) -> None:
        recipe["calibration"] = {"images": recipe["data"]["images"], "limit": 64}
        recipe["targets"] = [
            {"target": "onnxruntime-cpu", "precisions": ["fp32", "int8"], "required": False},
            {"target": "openvino", "precisions": ["fp32", "int8"], "required": False},
        ]
        recipe["budget"] = {"max_drop": 0.003}
        recipe["int8"] = {"limit_s": 180, "images": 500}

    return change


def coco_json(folder: Path, labels: list[str], home: Path) -> Path:
    """COCO JSON of YOLO labels (class, centre x, centre y, width, height, relative)."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, path in enumerate(sorted((folder / "images/val2017").glob("*.jpg")), start=1):
        picture = cv2.imread(str(path))
        assert picture is not None, path  # noqa: S101
        height, width = picture.shape[:2]
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
        text = folder / "labels/val2017" / f"{path.stem}.txt"
        for line in text.read_text(encoding="utf-8").splitlines() if text.exists() else ():
            index, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            boxes.append(
                {"id": len(boxes) + 1, "image_id": number, "category_id": int(index), "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    data = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": n, "name": name} for n, name in enumerate(labels)],
    }
    path = home / "val.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def usual_tools(home: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What the usual tools make of the same graph with the same photos, judged the same way."""
    from benchmarks import _int8_usual

    return _int8_usual.measure(home, summary, os.environ.get("NNCF_PYTHON", ""))


def _int8(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [v for v in summary["variants"] if v["precision"] == "int8" and v["engine"]]


def _search_s(summary: dict[str, Any]) -> float:
    stages = [s for s in summary["stages"] if s["name"] in ("calibrate", "quantize")]
    return float(sum(s["elapsed_s"] for s in stages))


def _slower(variant: dict[str, Any]) -> float:
    """How much slower than the higher precision it is with confidence: 1 when it is not."""
    return max(1.0, 1 / float(variant["precision_comparison"]["ci95"][1]))


def _detector_bars(summary: dict[str, Any], usual: list[dict[str, Any]]) -> list[Bar]:
    bars = []
    for variant in _int8(summary):
        name = f"yolox-nano_{variant['target']}_int8"
        bars.append(Bar(f"{name}_drop", variant["accuracy"]["drop"], "AP", 0.01))
        bars.append(Bar(f"{name}_surely_slower", _slower(variant), "x of fp32", 1.0))
    bars.append(Bar("yolox-nano_search", _search_s(summary), "s", 900))
    passed = [row for row in usual if row["accurate"] and row["faster"]]
    bars.append(Bar("usual_int8_that_would_pass", len(passed), "tools", 0))
    return bars


def _classifier_bars(summary: dict[str, Any]) -> list[Bar]:
    return [
        Bar(f"resnet20_{v['target']}_int8_drop", v["accuracy"]["drop"], "top-1", 0.003)
        for v in _int8(summary)
    ]


def _rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for variant in summary["variants"]:
        compared = variant.get("precision_comparison")
        rows.append(
            {
                "variant": variant["name"],
                "verdict": variant["verdict"],
                "reason": variant["reason"],
                "metric": variant["accuracy"]["value"] if variant["accuracy"] else None,
                "drop": variant["accuracy"]["drop"] if variant["accuracy"] else None,
                "p50_ms": {str(row["batch"]): row["p50_ms"] for row in variant["benchmark"]},
                "speedup": compared["speedup"] if compared else None,
                "ci95": compared["ci95"] if compared else None,
                "chosen": variant["quantized"]["chosen"] if variant.get("quantized") else None,
            }
        )
    return rows


def _tables(
    detector: dict[str, Any],
    usual: list[dict[str, Any]],
    classifier: dict[str, Any],
    speed: dict[str, Any],
    collecting: dict[str, Any],
) -> None:
    for summary in (detector, classifier):
        print(f"\n{summary['name']}: {summary['reference']['images']} images")
        print(f"{'variant':<26}{'metric':>9}{'drop':>9}{'p50 ms':>9}{'speed-up':>10}  verdict")
        for row in _rows(summary):
            if row["metric"] is None:
                print(f"{row['variant']:<26}{'':37}  {row['verdict']}: {row['reason']}")
                continue
            speedup = f"{row['speedup']:.2f}" if row["speedup"] else "-"
            p50 = next(iter(row["p50_ms"].values()))
            print(
                f"{row['variant']:<26}{row['metric']:>9.4f}{row['drop']:>+9.4f}{p50:>9.2f}"
                f"{speedup:>10}  {row['verdict']}"
            )
    print("\nthe usual tools on yolox-nano, same photos")
    print(f"{'tool':<34}{'runtime':<18}{'AP':>8}{'drop':>9}{'speed-up':>10}{'s':>7}{'MiB':>7}")
    for row in usual:
        print(
            f"{row['tool']:<34}{row['runtime']:<18}{row['metric']:>8.4f}{row['drop']:>+9.4f}"
            f"{row['speedup']:>10.2f}{row['elapsed_s']:>7.0f}{row['peak_mib']:>7.0f}"
        )
    _int8_speed.tables(speed, collecting)


if __name__ == "__main__":
    raise SystemExit(main())
