"""Run the worker of the app that FLASK_APP names: `python worker.py`."""

from flask.cli import ScriptInfo

from backup_admin import jobs

if __name__ == "__main__":
    jobs.work(ScriptInfo().load_app())
