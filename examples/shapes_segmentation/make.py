"""Makes this example from nothing: scenes with exact truth, and the weights. CPU, two minutes.

`python make.py` writes data/ and shapes.pt beside it; the seed is fixed. Nothing here comes from
elsewhere: scenes are drawn, and their masks are drawn with them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from model import build

HERE = Path(__file__).resolve().parent
SIZE = (96, 128)
IGNORED = 255
#: BGR that a class tends to: discs are reddish, squares greenish, triangles bluish.
COLOURS = {1: (60, 60, 190), 2: (60, 190, 60), 3: (190, 60, 60)}
STEPS, BATCH, SCENES = 240, 16, 400


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (height, width, 3) BGR, and its classes; edges do not count."""
    height, width = SIZE
    ramp = np.linspace(0, 1, width)[None, :, None] * rng.uniform(-60, 60, 3)
    image = rng.uniform(40, 200, 3) + ramp + rng.normal(0, 8, (height, width, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    for _ in range(rng.integers(2, 5)):
        kind = int(rng.integers(1, 4))
        centre = rng.uniform((10, 10), (width - 10, height - 10))
        radius, turn = rng.uniform(9, 24), rng.uniform(0, 2 * np.pi)
        corners = {1: 40, 2: 4, 3: 3}[kind]
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        shape = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = [np.rint(shape).astype(np.int32)]
        inside = np.zeros(SIZE, np.uint8)
        cv2.fillPoly(inside, points, 1)
        texture = COLOURS[kind] + rng.uniform(-45, 45, 3) + rng.normal(0, 12, (height, width, 3))
        image[inside > 0] = np.clip(texture, 0, 255).astype(np.uint8)[inside > 0]
        mask[inside > 0] = kind
        cv2.polylines(mask, points, True, IGNORED, 1)
    return image, mask


def write(folder: str, count: int, rng: np.random.Generator) -> None:
    """Some scenes as files."""
    for part in ("images", "masks"):
        (HERE / "data" / folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = scene(rng)
        at = HERE / "data" / folder
        cv2.imwrite(str(at / "images" / f"{number:03}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(at / "masks" / f"{number:03}.png"), mask)


def train() -> None:
    """Fit the network to other scenes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    scenes = [scene(rng) for _ in range(SCENES)]
    net = build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, STEPS)
    for step in range(STEPS):
        pairs = [scenes[number] for number in rng.integers(0, SCENES, BATCH)]
        images = np.stack([image[..., ::-1] for image, _ in pairs]).transpose(0, 3, 1, 2)
        masks = np.stack([mask for _, mask in pairs])[:, 1::2, 1::2]
        scores = net(torch.from_numpy(images / np.float32(255)).float())
        loss = torch.nn.functional.cross_entropy(
            scores,
            torch.from_numpy(masks.astype(np.int64)),
            torch.tensor([0.4, 1.0, 1.0, 1.0]),
            ignore_index=IGNORED,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 60 == 59:
            sys.stdout.write(f"{step + 1} {loss.item():.4f}\n")
    torch.save(net.eval().state_dict(), HERE / "shapes.pt")


if __name__ == "__main__":
    write("val", 40, np.random.default_rng(2))
    write("calibration", 24, np.random.default_rng(3))
    train()
