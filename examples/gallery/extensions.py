"""The gallery's own Flask extensions, which backup_admin must leave alone."""

from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect

from examples.gallery.models import AdminUser, Base

db = SQLAlchemy(metadata=Base.metadata)
login_manager = LoginManager()
csrf = CSRFProtect()
migrate = Migrate()

login_manager.login_view = "gallery.sign_in"
login_manager.login_message = ""


@login_manager.user_loader  # type: ignore[untyped-decorator]  # publishes no types
def load_user(user_id: str) -> AdminUser | None:
    """Find the person a session belongs to."""
    return db.session.get(AdminUser, int(user_id))
