"""Numbers about generators: statistics as pure functions, feature networks, one-pass evaluation."""

from stylecli.lazy import lazy_attributes

_WHERE = {
    "frechet_distance": "stylecli.metrics.frechet",
    "kernel_distance": "stylecli.metrics.kernel",
    "inception_score": "stylecli.metrics.class_scores",
    "precision_recall": "stylecli.statistics.neighbours",
    "conditional_entropy": "stylecli.metrics.separability",
    "measure_separability": "stylecli.metrics.separability",
    "AttributeClassifiers": "stylecli.metrics.classifiers",
    "load_classifiers": "stylecli.metrics.classifiers",
    "train_classifiers": "stylecli.metrics.classifier_training",
    "ppl_trim": "stylecli.metrics.path_length",
    "InceptionV3": "stylecli.features.inception",
    "MetricResult": "stylecli.metrics.results",
    "evaluate": "stylecli.metrics.evaluation",
    "evaluate_over_psi": "stylecli.metrics.evaluation",
}

__all__ = list(_WHERE)
__getattr__ = lazy_attributes(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted(_WHERE)
