"""``errors``: the tree is what its docstring prints, and an exception keeps its evidence."""

from __future__ import annotations

import pickle

from flask_aibridge import errors
from flask_aibridge.errors import AIBridgeError, ConfigError, ConfigWarning, LicenseError


def test_the_docstring_prints_every_class() -> None:
    """A reader of the tree misses none of the classes that can be imported."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}

    assert classes == set(errors.__all__)
    assert [name for name in classes if name not in (errors.__doc__ or "")] == []


def test_one_root_catches_everything() -> None:
    """Every exception of the package is an ``AIBridgeError``; a warning is a warning."""
    assert issubclass(ConfigError, AIBridgeError)
    assert issubclass(LicenseError, AIBridgeError)
    assert issubclass(ConfigWarning, UserWarning)


def test_a_wrong_config_is_a_value_error() -> None:
    """Code that knows Flask alone catches it too."""
    assert issubclass(ConfigError, ValueError)


def test_a_license_error_survives_pickling() -> None:
    """Its code reaches another process with it."""
    error = pickle.loads(pickle.dumps(LicenseError("license_expired", "Buy a new one.")))

    assert (error.code, str(error)) == ("license_expired", "Buy a new one.")
