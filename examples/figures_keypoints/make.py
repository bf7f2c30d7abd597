"""Makes this example from nothing: figures with exact truth, and the weights. CPU, two minutes.

`python make.py` writes data/ and figures.pt beside it; the seed is fixed. Nothing here comes from
elsewhere: figures are drawn, and their points are where they were drawn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from model import POINTS, STRIDE, build

HERE = Path(__file__).resolve().parent
SIZE = 128
NAMES = ("head", "left_hand", "right_hand", "left_foot", "right_foot")
STEPS, BATCH, SCENES = 720, 16, 900

Figure = tuple[np.ndarray, np.ndarray]


def scene(rng: np.random.Generator) -> tuple[np.ndarray, list[Figure]]:
    """A picture uint8 (height, width, 3) BGR, and of each figure its box and points (k, 2)."""
    image = rng.uniform(90, 200, 3) + rng.normal(0, 10, (SIZE, SIZE, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    figures: list[Figure] = []
    for _ in range(int(rng.integers(1, 4))):
        tall = rng.uniform(36, 60)
        middle = rng.uniform(tall / 2 + 2, SIZE - tall / 2 - 2, 2)
        if any(np.abs(middle - (box[:2] + box[2:]) / 2).max() < 26 for box, _ in figures):
            continue
        figures.append(draw(image, middle, tall, rng))
    return image, figures


def draw(image: np.ndarray, middle: np.ndarray, tall: float, rng: np.random.Generator) -> Figure:
    """One figure: a dark body, a yellow head, red limbs on its left and blue ones on its right."""
    up = np.array([rng.uniform(-0.1, 0.1), -1.0])
    neck, hip = middle + 0.22 * tall * up, middle - 0.12 * tall * up
    head = middle + 0.38 * tall * up
    arms = [(1, rng.uniform(-0.25, 0.25)), (-1, rng.uniform(-0.25, 0.25))]
    hands = [neck + tall * np.array([0.3 * side, lift]) for side, lift in arms]
    feet = [hip + tall * np.array([side * rng.uniform(0.05, 0.22), 0.36]) for side in (1, -1)]
    wide = max(2, round(tall / 14))
    for start, end, colour in (
        (neck, hip, (40, 40, 40)),
        (neck, hands[0], (40, 40, 220)), (neck, hands[1], (220, 60, 40)),
        (hip, feet[0], (40, 40, 220)), (hip, feet[1], (220, 60, 40)),
    ):  # fmt: skip
        ends = [tuple(int(v) for v in np.rint(place)) for place in (start, end)]
        cv2.line(image, ends[0], ends[1], colour, wide, cv2.LINE_AA)
    at = tuple(int(v) for v in np.rint(head))
    cv2.circle(image, at, round(tall * 0.11), (40, 200, 230), -1, cv2.LINE_AA)
    points = np.stack([head, *hands, *feet])
    low, high = points.min(axis=0) - tall * 0.11, points.max(axis=0) + tall * 0.03
    return np.clip(np.concatenate([low, high]), 0, SIZE), points


def write(folder: str, count: int, rng: np.random.Generator) -> None:
    """Some scenes as files, and their annotations as COCO JSON."""
    (HERE / "data" / folder).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        image, figures = scene(rng)
        name = f"{number:03}.jpg"
        path = HERE / "data" / folder / name
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "file_name": name, "height": SIZE, "width": SIZE})
        for box, points in figures:
            left, top, right, bottom = (round(float(side), 2) for side in box)
            places = [v for x, y in points for v in (round(float(x), 2), round(float(y), 2), 2)]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
                "area": round((right - left) * (bottom - top), 2),
                "keypoints": places, "num_keypoints": POINTS,
            })  # fmt: skip
    categories = [{"id": 1, "name": "figure", "keypoints": list(NAMES), "skeleton": []}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (HERE / "data" / f"{folder}.json").write_text(text + "\n", encoding="utf-8")


def targets(scenes: list[list[Figure]]) -> tuple[torch.Tensor, ...]:
    """For every cell: whether a figure's centre is near, and that figure's box and points."""
    cells = SIZE // STRIDE
    near = np.zeros((len(scenes), cells, cells), np.float32)
    boxes = np.zeros((len(scenes), 4, cells, cells), np.float32)
    poses = np.zeros((len(scenes), POINTS * 2, cells, cells), np.float32)
    for n, figures in enumerate(scenes):
        for box, points in figures:
            centre = (box[:2] + box[2:]) / 2
            column, row = np.minimum(centre / STRIDE, cells - 1).astype(int)
            here = (n, slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
            near[n, row, column] = 1
            inside = (here[0], slice(None), here[1], here[2])
            boxes[inside] = np.concatenate([centre, box[2:] - box[:2]])[:, None, None]
            poses[inside] = points.reshape(-1, 1, 1)
    return tuple(torch.from_numpy(part.reshape(len(scenes), -1, cells * cells))
                 for part in (near, boxes, poses))  # fmt: skip


def train() -> None:
    """Fit the network to other figures."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    scenes = [scene(rng) for _ in range(SCENES)]
    net = build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, STEPS)
    for step in range(STEPS):
        pairs = [scenes[number] for number in rng.integers(0, SCENES, BATCH)]
        images = np.stack([image[..., ::-1] for image, _ in pairs]).transpose(0, 3, 1, 2)
        near, boxes, poses = targets([figures for _, figures in pairs])
        found = net(torch.from_numpy(images / np.float32(255)).float())
        known = (boxes[:, 2:3] > 0).float()
        score = found[:, 4:5].clamp(1e-6, 1 - 1e-6)
        weight = torch.where(near > 0, 6.0, torch.where(known > 0, 0.5, 1.0))
        loss = torch.nn.functional.binary_cross_entropy(score, near, reduction="none") * weight
        loss = loss.sum() / near.sum()
        places = found[:, 5:].reshape(BATCH, POINTS, 3, -1)
        apart = (found[:, :4] - boxes).abs().sum(1, keepdim=True) / STRIDE
        apart = apart + (places[:, :, :2].flatten(1, 2) - poses).abs().sum(1, keepdim=True) / STRIDE
        loss = loss + 0.2 * (apart * known).sum() / known.sum()
        sure = places[:, :, 2].clamp(1e-6, 1)
        loss = loss - 0.1 * (torch.log(sure) * known).sum() / known.sum() / POINTS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 60 == 59:
            sys.stdout.write(f"{step + 1} {loss.item():.4f}\n")
    torch.save(net.eval().state_dict(), HERE / "figures.pt")


if __name__ == "__main__":
    write("val", 40, np.random.default_rng(2))
    write("calibration", 24, np.random.default_rng(3))
    train()
