"""The standalone app for a WSGI server: `waitress-serve wsgi:app`."""

from backup_admin.web.standalone import create_app

app = create_app()
