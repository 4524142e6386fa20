"""How well classes can be read from latents: accuracy, NMI and ARI of a linear classifier's predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

__all__ = ["CLASSIFIER", "ClassScores", "class_scores", "fit_classifier", "score_classifier"]

CLASSIFIER = (
    "multinomial logistic regression on standardised latents (scikit-learn, L2 with C = 1, at most 2,000 steps)"
)


@dataclass(frozen=True)
class ClassScores:
    r"""How predicted classes agree with the true ones.

    Arguments:
        accuracy: Share of correct predictions; CoVAE calls it precision.
        nmi: Normalised mutual information, :math:`2 I(\hat Y; Y) / (H(\hat Y) + H(Y))`.
        ari: Adjusted Rand index.
    """

    accuracy: float
    nmi: float
    ari: float


def class_scores(predicted: np.ndarray, true: np.ndarray) -> ClassScores:
    """Accuracy, NMI and ARI of predicted classes.

    Arguments:
        predicted: Integer classes, ``(N,)``.
        true: Integer classes, ``(N,)``.

    Raises:
        ValueError: If the lengths differ or there is no sample.

    Source: CoVAE, appendix B.2.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise ValueError(f"predicted classes {predicted.shape} and true ones {true.shape} must be (N,), N at least 1")
    return ClassScores(
        float((predicted == true).mean()),
        float(normalized_mutual_info_score(true, predicted)),
        float(adjusted_rand_score(true, predicted)),
    )


def _numpy(z: Tensor | np.ndarray) -> np.ndarray:
    return z.detach().cpu().double().numpy() if isinstance(z, Tensor) else np.asarray(z, dtype=np.float64)


def _classes(labels: Tensor | np.ndarray) -> np.ndarray:
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)


def fit_classifier(latents: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> Pipeline:
    """Fits :data:`CLASSIFIER`, which is deterministic.

    Arguments:
        latents: ``(N, d)``, on any device.
        labels: Integer classes, ``(N,)``, on any device.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, every latent is constant, or there is one class only.

    Source: CoVAE, section 3.2, which does not name its classifier.
    """
    z, y = _numpy(latents), _classes(labels)
    if z.ndim != 2 or y.shape != (len(z),):
        raise ValueError(f"latents {z.shape} and labels {y.shape}, must be (N, d) and (N,)")
    if not np.isfinite(z).all():
        raise ValueError("latents have values that are not finite")
    if len(z) == 0 or (z == z[0]).all():
        raise ValueError(f"all {z.shape[1]} latents are constant in training; no class can be read from them")
    if len(np.unique(y)) < 2:
        raise ValueError(f"the training split has class {np.unique(y).tolist()} alone; needs at least two")
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000)).fit(z, y)


def score_classifier(classifier: Pipeline, latents: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> ClassScores:
    """Scores of a fitted classifier on other samples, or on other latents of the same size.

    Arguments:
        classifier: From :func:`fit_classifier`.
        latents: ``(N, d)``, on any device.
        labels: Integer classes, ``(N,)``, on any device.

    Raises:
        ValueError: If sizes do not fit, or a class was absent from the training split.
    """
    z, y = _numpy(latents), _classes(labels)
    known = classifier[-1].classes_
    if absent := sorted(set(np.unique(y).tolist()) - set(known.tolist())):
        raise ValueError(f"classes {absent} are absent from the training split, which has {known.tolist()}")
    if z.ndim != 2 or z.shape[1] != classifier.n_features_in_:
        raise ValueError(f"latents {z.shape}, the classifier was fitted on {classifier.n_features_in_} a sample")
    return class_scores(classifier.predict(z), y)
