"""The shop's Celery application, with a broker of its own."""

from celery import Celery

app = Celery("shop", broker="memory://", include=["shop.tasks"])
