"""An order that a person must approve: the workflow stops for the answer, for minutes or for days.

python examples/approve_order.py             runs up to the question
python examples/approve_order.py ID yes      answers it, and the order is charged and shipped

Tasks write down what they did, one line each, in the file that ORDER_LEDGER names. It shows that nothing is done twice,
whatever happens to the process in between.
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from flux import ExecutionContext, task, workflow
from flux.tasks import pause


class Item(BaseModel):
    sku: str = Field(description="What is bought, by its stock number")
    quantity: int = Field(ge=1)
    price: Decimal = Field(gt=0, description="For one piece")


class Order(BaseModel):
    order_id: str
    customer: str
    items: list[Item] = Field(min_length=1)


class Approval(BaseModel):
    approved: bool = Field(description="May the order be charged and shipped?")
    note: str | None = Field(default=None, description="A word to the customer")


class Receipt(BaseModel):
    order_id: str
    outcome: Literal["shipped", "declined"]
    total: Decimal
    charge_id: str | None = None
    tracking: str | None = None
    note: str | None = None


@task
async def validate(order: Order) -> Decimal:
    """The order's total. An order over 10,000 is not ours to take."""
    total = sum((item.price * item.quantity for item in order.items), Decimal(0))
    if total > 10_000:
        raise ValueError(f"Order {order.order_id} is over the limit: {total}")
    write_down(f"validated {order.order_id}")
    return total


@task.with_options(retry_max_attempts=2, retry_delay=0.5)
async def reserve_stock(order: Order) -> str:
    write_down(f"reserved {sum(item.quantity for item in order.items)} pieces for {order.order_id}")
    return f"reservation-{order.order_id}"


@task
async def release_stock(reservation: str) -> None:
    write_down(f"released {reservation}")


@task
async def charge(order: Order, total: Decimal) -> str:
    write_down(f"charged {order.customer} {total}")
    return f"charge-{order.order_id}"


@task
def ship(reservation: str) -> str:
    """A plain function is a task as well: it runs in a thread."""
    write_down(f"shipped {reservation}")
    return f"tracking-{reservation.removeprefix('reservation-')}"


@workflow
async def approve_order(ctx: ExecutionContext[Order]) -> Receipt:
    """Take an order: check it, reserve the stock, ask a person for approval, then charge and ship."""
    order = ctx.input
    total = await validate(order)
    reservation = await reserve_stock(order)
    answer = await pause(
        "approval",
        message=f"Approve order {order.order_id} of {order.customer} over {total}?",
        output={"order_id": order.order_id, "customer": order.customer, "total": str(total)},
        response=Approval,
    )
    if not answer.approved:
        await release_stock(reservation)
        return Receipt(order_id=order.order_id, outcome="declined", total=total, note=answer.note)
    return Receipt(
        order_id=order.order_id,
        outcome="shipped",
        total=total,
        charge_id=await charge(order, total),
        tracking=await ship(reservation),
        note=answer.note,
    )


def write_down(line: str) -> None:
    ledger = os.environ.get("ORDER_LEDGER")
    if ledger:
        with Path(ledger).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


SAMPLE = Order(
    order_id="A-1001",
    customer="Ada Lovelace",
    items=[
        Item(sku="engine", quantity=1, price=Decimal("149.90")),
        Item(sku="punched-card", quantity=500, price=Decimal("0.02")),
    ],
)


def main() -> None:
    if len(sys.argv) > 2:
        execution = approve_order.resume(sys.argv[1], Approval(approved=sys.argv[2] == "yes"))
        print(execution.output)
        return
    execution = approve_order.run(SAMPLE)
    print(execution.pauses[0].message)
    print(f"to answer: python {sys.argv[0]} {execution.execution_id} yes")


if __name__ == "__main__":
    main()
