"""Values of a dataset's rows by its features: the name of a class, the digits that a short float was given."""

from __future__ import annotations

from typing import Any


def named_values(value: Any, feature: Any) -> Any:
    """Return a value, nested ones included, as people would write it.

    Args:
        value: As `datasets` gives it.
        feature: Its feature, or those of a row.

    Returns:
        The same with the names of classes in the place of their numbers, None where there is no class (-1), and floats
        of 16 and 32 bits as the shortest decimal number that they are nearest to (3.3, not 3.299999952316284).
    """
    import datasets
    import numpy

    if value is None:
        return None
    if isinstance(feature, datasets.ClassLabel):
        return feature.int2str(value) if value >= 0 else None
    if isinstance(feature, datasets.Value) and feature.dtype in ("float16", "float32"):
        return float(str(numpy.dtype(feature.dtype).type(value)))
    if isinstance(feature, dict):
        return {name: named_values(one, feature[name]) for name, one in value.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [named_values(one, feature.feature) for one in value]
    return value
