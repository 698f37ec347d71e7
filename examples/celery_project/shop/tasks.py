"""What the shop does about an order."""

from celery import shared_task
from sqlalchemy.orm import Session

from shop.celery import app
from shop.orders import Order, engine


@app.task
def charge(order_id: int) -> dict[str, int]:
    """Charge the price of an order."""
    with Session(engine) as session:
        return {"charged": session.get_one(Order, order_id).price}


@app.task
def pack(order_id: int) -> dict[str, str]:
    """Pack what was ordered."""
    with Session(engine) as session:
        return {"packed": session.get_one(Order, order_id).article}


@shared_task
def send_receipt(order_id: int) -> str:
    """Send the receipt of an order."""
    return f"receipt of order {order_id}"
