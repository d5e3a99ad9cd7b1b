"""The command `backup-admin` as `python -m backup_admin`."""

from __future__ import annotations

from backup_admin.cli.main import main

main()
