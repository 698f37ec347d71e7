#!/usr/bin/env python3
"""Takes an order and submits what is to be done about it, in one transaction.

    SHOP_DATABASE_URL=postgresql://... REDIS_URL=redis://... place_order.py ARTICLE PRICE

The database is that of Fairq. With a price below zero nothing is ordered, and nothing submitted.
"""

import sys

from shop.orders import Base, Order, engine
from sqlalchemy.orm import Session

from scheduler.enqueue import enqueue


def place(session: Session, article: str, price: int) -> int:
    """Order *article*, and have it charged, packed and acknowledged."""
    session.add(order := Order(article=article, price=price))
    session.flush()
    told = {"order_id": order.id}
    charge, pack = (f"order-{order.id}-{step}" for step in ("charge", "pack"))
    enqueue(session, "shop.tasks.charge", told, owner="shop", job_id=charge, priority="high")
    enqueue(session, "shop.tasks.pack", told, owner="shop", job_id=pack, depends_on=[charge])
    enqueue(session, "shop.tasks.send_receipt", told, owner="shop", depends_on=[charge, pack])
    if price < 0:
        raise ValueError("nobody is paid for buying")
    return order.id


if __name__ == "__main__":
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        number = place(session, sys.argv[1], int(sys.argv[2]))
    print(f"order {number} is taken")
