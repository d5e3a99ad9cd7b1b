"""Find templates, static files and migrations, installed or in a checkout."""

from __future__ import annotations

from pathlib import Path

from backup_admin.core.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent.parent


def resource_dir(name: str) -> Path:
    """Return the folder `templates`, `static` or `migrations`.

    A wheel carries them inside the package; in a checkout, also after an
    editable install, they lie beside `pyproject.toml`.
    """
    inside = _PACKAGE / name
    if inside.is_dir():
        return inside
    checkout = _PACKAGE.parent
    beside = checkout / name
    if (checkout / "pyproject.toml").is_file() and beside.is_dir():
        return beside
    raise ConfigurationError(
        f"The folder {name!r} of backup_admin is missing in {_PACKAGE}; "
        "the installation is incomplete, install the package again."
    )
