"""How close an embedding model's features are to float32's, and whether nearest neighbours stay the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit import statistics
from edgevit.bundle.manifest import Accuracy, Similarity
from edgevit.errors import DataError
from edgevit.evaluation.accuracy import check_outputs, known_labels
from edgevit.evaluation.gate import MIN_COSINE, embedding_verdict


def measure_embedding(
    reference: NDArray[np.float32],
    features: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    *,
    data: str,
    data_sha256: str,
    min_cosine: float = MIN_COSINE,
) -> Accuracy:
    """Compare a variant's features (N, width) with float32's for the same images, at least two, in the same order.

    ``labels`` (N,) may be any numbers that tell classes apart; None, or all -1, when there are none. ``data`` and
    ``data_sha256`` name the images. The neighbours of an image are looked for among the others, each model's own: as
    in a search where one model makes both the index and the query. Recall@1 with labels is the usual measure of such
    searches (Jegou et al. 2011, "Product quantization for nearest neighbor search").

    Raises:
        DataError: if the sizes differ, or there are fewer than two images.

    """
    labels = known_labels(labels)
    check_outputs(reference, features, labels)
    if len(features) < 2:
        raise DataError("one image has no nearest neighbour", remedy="give --data at least two images")
    finite = bool(np.isfinite(reference).all() and np.isfinite(features).all())
    cosines = statistics.cosines(reference, features)
    mean = float(cosines.mean())
    before, after = statistics.nearest_neighbors(reference), statistics.nearest_neighbors(features)
    recall, interval, change = _recall(before, after, labels)
    verdict = embedding_verdict(cosine=mean, finite=finite, min_cosine=min_cosine)
    return Accuracy(
        data=data,
        data_sha256=data_sha256,
        images=len(features),
        top1=None,
        top1_ci95=None,
        top5=None,
        delta_top1=None,
        mcnemar_p=None,
        agreement=float(((before == after) & (before >= 0)).mean()),
        kl=None,
        sqnr_db=statistics.sqnr_db(reference, features) if finite else None,
        max_drop=None,
        passed=verdict.passed,
        reason=verdict.reason,
        similarity=Similarity(
            cosine_mean=mean if finite else None,
            cosine_p1=statistics.percentiles(cosines, (1,))[0] if finite else None,
            cosine_between=statistics.mean_cosine_between(reference) if finite else None,
            recall_at_1=recall,
            recall_at_1_ci95=interval,
            delta_recall_at_1=change,
            min_cosine=min_cosine,
        ),
    )


def _recall(
    before: NDArray[np.int64], after: NDArray[np.int64], labels: NDArray[np.int64] | None
) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Return Recall@1 of the neighbours ``after`` (N,), its interval, and its change from ``before``."""
    if labels is None:
        return None, None, None
    images = len(labels)
    was, now = (int(((found >= 0) & (labels[found] == labels)).sum()) for found in (before, after))
    return now / images, statistics.wilson_interval(now, images), (now - was) / images
