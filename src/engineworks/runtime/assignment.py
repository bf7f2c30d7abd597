"""Pairs of rows and columns that gain the most together, where staying alone gains nothing.

What `lap.lapjv(cost_limit=)` computes: a pair at the limit is worth as much as two that stay alone,
so no pair beyond it can push another one aside. Knows no boxes and no tracks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def assign(gain: Array) -> list[tuple[int, int]]:
    """The pairs whose gains have the largest sum; each row and each column is in one at most.

    Most rows that have anybody have one who has nobody else; those need no search. The others are
    solved group by group.

    Args:
        gain: (n, m) finite; a pair that gains nothing (0 or less) is never made.

    Returns:
        (row, column), in no order.
    """
    rows, columns = np.nonzero(gain > 0)
    if not len(rows):
        return []
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    pairs = list(zip(rows[alone].tolist(), columns[alone].tolist(), strict=True))
    if len(pairs) == len(rows):
        return pairs
    for row_group, column_group in _groups(rows[~alone].tolist(), columns[~alone].tolist()):
        part = gain[np.ix_(row_group, column_group)]
        pairs += [(row_group[i], column_group[j]) for i, j in _dense(part)]
    return pairs


def _groups(rows: list[int], columns: list[int]) -> list[tuple[list[int], list[int]]]:
    """Rows and columns that hang together by the pairs (rows[k], columns[k])."""
    of_row: dict[int, list[int]] = {}
    of_column: dict[int, list[int]] = {}
    for row, column in zip(rows, columns, strict=True):
        of_row.setdefault(row, []).append(column)
        of_column.setdefault(column, []).append(row)
    groups = []
    while of_row:
        waiting, members, reached = [next(iter(of_row))], [], set()
        while waiting:
            row = waiting.pop()
            if row not in of_row:
                continue
            members.append(row)
            for column in of_row.pop(row):
                if column not in reached:
                    reached.add(column)
                    waiting += of_column[column]
        groups.append((members, sorted(reached)))
    return groups


def _dense(gain: Array) -> list[tuple[int, int]]:
    """The Hungarian method by shortest augmenting paths, over one group.

    Source: Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
    assignment problems", Computing 38 (1987).
    """
    n, m = gain.shape
    if n > m:
        return [(row, column) for column, row in _dense(gain.T)]
    cost = -np.maximum(gain, 0)
    row_price, column_price = np.zeros(n), np.zeros(m)
    owner = np.full(m, -1)
    for start in range(n):
        shortest, before = np.full(m, np.inf), np.full(m, -1)
        done = np.zeros(m, bool)
        row, column, length = start, -1, 0.0
        while True:
            way = length + cost[row] - row_price[row] - column_price
            nearer = ~done & (way < shortest)
            shortest[nearer], before[nearer] = way[nearer], column
            column = int(np.where(done, np.inf, shortest).argmin())
            length = float(shortest[column])
            if owner[column] < 0:
                break
            done[column] = True
            row = int(owner[column])
        row_price[start] += length
        row_price[owner[done]] += length - shortest[done]
        column_price[done] -= length - shortest[done]
        while column >= 0:  # back along the path, everybody moves on by one
            previous = int(before[column])
            owner[column] = start if previous < 0 else owner[previous]
            column = previous
    return [
        (int(owner[column]), column)
        for column in np.flatnonzero(owner >= 0).tolist()
        if gain[owner[column], column] > 0
    ]
