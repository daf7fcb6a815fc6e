"""Rows that are nearest to a target: the queries of a task, embedded by the same encoder.

Ivison et al. 2025, "Large-Scale Data Selection for Instruction Tuning" (RDS+, arXiv 2503.01807).
"""

from collections.abc import Iterator

import numpy as np

from deita_train.selection.baselines.pool_products import first_alike, products
from deita_train.selection.baselines.ranking import trace_of
from deita_train.selection.candidates import Candidates
from deita_train.selection.repr_filter.repr_filter import Trace
from deita_train.selection.repr_filter.unit_rows import UnitRows
from deita_train.selection.row_ids import order_of_ids

# Queries whose similarities to the whole pool are held at once.
QUERIES_AT_ONCE = 64


def target(candidates: Candidates, budget: int) -> Trace:
    """Round-robin over the queries, each naming its next nearest row by cosine: the best row of each query first.

    Queries go by id, and a query's rows by similarity, ties by the lowest id. A query whose next row another one has
    named before loses that turn, as in the public code. So a row comes in the first round in which any query names it,
    in the order of the queries, and a smaller budget is a prefix of a larger one.

    Costs N * Q * D multiply-adds and Q times sorting N numbers. Memory: 64 similarities of every row.
    """
    assert candidates.queries is not None
    pool, order = candidates.unit_rows(), order_of_ids(candidates.ids)
    queries = pool.others(candidates.queries.embeddings, candidates.queries.ids)
    turn = np.full(len(order), len(order), dtype=np.int64)  # the first round in which a query names the row
    query = np.zeros(len(order), dtype=np.int64)
    for number, similarity in enumerate(_similarities(pool, queries, order, order_of_ids(candidates.queries.ids))):
        rank = np.empty(len(order), dtype=np.int64)
        rank[np.argsort(-similarity, kind="stable")] = np.arange(len(order))
        earlier = rank < turn
        turn[earlier], query[earlier] = rank[earlier], number
    return trace_of(len(order), order[np.lexsort((query, turn))[:budget]])


def _similarities(pool: UnitRows, queries: UnitRows, order: np.ndarray, by_id: np.ndarray) -> Iterator[np.ndarray]:
    """For each query in turn its similarity to every row, `[N]` float32 along `order`, the same for equal rows."""
    alike = first_alike(pool, order)
    for start in range(0, len(by_id), QUERIES_AT_ONCE):
        vectors = queries.unit_rows(by_id[start : start + QUERIES_AT_ONCE], np.float32)
        similarity = np.empty((len(order), len(vectors)), dtype=np.float32)
        for block, product in products(pool, vectors, order):
            similarity[block] = product
        yield from similarity[alike].T
