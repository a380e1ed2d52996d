"""A missing optional package is reported with the extra to install."""

from __future__ import annotations

import pytest

from mert_hf.utils.optional import MissingExtraError, needs_extra, require_extra


def test_a_missing_package_says_what_to_install():
    with pytest.raises(MissingExtraError, match=r'^no_such is not installed. .*: pip install "mert_hf\[eval\]"$'):
        with needs_extra("eval"):
            import no_such.module  # noqa: F401
    with pytest.raises(MissingExtraError, match="no_such"):
        require_extra("eval", "json", "no_such")
    require_extra("eval", "json")


def test_other_import_errors_are_left_alone():
    with pytest.raises(ImportError) as caught, needs_extra("eval"):
        from json import no_such  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
    with pytest.raises(ModuleNotFoundError) as caught, needs_extra("eval"):
        import mert_hf.no_such  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
