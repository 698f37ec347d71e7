"""The shop's orders, in a table of its own."""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_engine(os.environ["SHOP_DATABASE_URL"])


class Base(DeclarativeBase):
    """The shop's tables."""


class Order(Base):
    """What somebody has bought."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str]
    price: Mapped[int]
