"""Start the command with `python -m backup_admin.cli`."""

from __future__ import annotations

from backup_admin.cli.main import main

if __name__ == "__main__":
    main()
