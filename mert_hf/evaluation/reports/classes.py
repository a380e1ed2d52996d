"""Classes of a result: chance, recall and precision of each class, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..metrics.predictions import Predictions, predictions_path, read_predictions
from ..probing.results import Results
from .figures import confusion_map
from .pages import Figure, Table

KINDS = ("classification", "key")


def class_parts(result: Results, title: str) -> list[Table | Figure]:
    """The table and the confusion matrix of a result whose recordings have one class each, from the predictions next to
    its file; none for other kinds. `title` names task and model."""
    path = predictions_path(result["file"]) if "file" in result else Path()
    if result["kind"] not in KINDS or not path.is_file():
        return []
    labels = result["data"]["labels"]
    counts = confusion(list(read_predictions(path, result["kind"]).values()), len(labels))
    heading = f"{title}: {chance_text(counts)}"
    note = "Rows are annotated classes, columns are predictions; shares of a row in percent, mean over seeds."
    figure = Figure(f"{title}: confusion of classes", confusion_map(counts, labels), note)
    return [class_table(counts, labels, heading), figure]


def confusion(predictions: Sequence[Predictions], count: int) -> np.ndarray:
    """Test recordings by annotated and by predicted class, mean over seeds, float64 (classes, classes)."""
    found = np.zeros((count, count))
    for part in predictions:
        np.add.at(found, (np.asarray(part["target"]), np.asarray(part["output"]).argmax(axis=1)), 1 / len(predictions))
    return found


def chance_text(counts: np.ndarray) -> str:
    """The number of classes, and the accuracies of two answers that ignore the recording."""
    most = 100 * counts.sum(axis=1).max() / counts.sum()
    return (
        f"{len(counts)} classes, chance {100 / len(counts):.1f} % (guessing), {most:.1f} % (always the largest class)"
    )


def class_table(counts: np.ndarray, labels: Sequence[str], title: str) -> Table:
    """Recall, precision and F1 in percent of each class that was tested or predicted, and the one that it is most often
    taken for."""
    tested, predicted, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    wrong = counts - np.diag(right)
    rows = []
    for index in np.flatnonzero(tested + predicted):
        shares = [(right[index], tested[index]), (right[index], predicted[index])]
        shares.append((2 * right[index], tested[index] + predicted[index]))
        cells = [f"{100 * part / whole:.1f}" if whole else "-" for part, whole in shares]
        other = labels[wrong[index].argmax()] if wrong[index].any() else "-"
        rows.append((labels[index], f"{tested[index]:.0f}", *cells, other))
    header = ("Class", "Test recordings", "Recall", "Precision", "F1", "Most often taken for")
    return Table(title, header, rows)
