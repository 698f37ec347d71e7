"""What people and programs see: pages, JSON endpoints, live events.

It asks the engine about jobs and decides nothing itself.
"""

from webapp.factory import create_app

__all__ = ["create_app"]
