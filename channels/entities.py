"""Updates of entities: accounts, agents and synchronisations of the entity that a principal works for at the moment."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from channels.declaration import Access, Channel, EventType, Scope
from channels.values import Count, Id, Shape, SignedNumber, Text, Time, Word
from hub.terms import Terms

Timestamp = Annotated[Time | None, Meta(description="When it was so.")]


class TransactionsNew(Shape):
    """Money has moved."""

    transaction_id: Annotated[Id, Meta(description="The transaction.")]
    amount: Annotated[SignedNumber, Meta(description="How much; below zero when it was paid.")]
    merchant: Annotated[Text, Meta(description="With whom.")]
    category: Annotated[Word | None, Meta(description="For what.")] = None
    account_id: Annotated[Id | None, Meta(description="On which account.")] = None
    currency: Annotated[Word | None, Meta(description="In what, like `EUR`.")] = None
    timestamp: Timestamp = None


class AgentActionCompleted(Shape):
    """An agent has done something."""

    agent_id: Annotated[Id, Meta(description="The agent.")]
    action: Annotated[Text, Meta(description="What it did.")]
    result: Annotated[Any, Meta(description="What came of it.")]
    timestamp: Timestamp = None


class BalanceUpdated(Shape):
    """A balance is another than before."""

    account_id: Annotated[Id, Meta(description="The account.")]
    new_balance: Annotated[SignedNumber, Meta(description="The balance now.")]
    change: Annotated[SignedNumber, Meta(description="The balance now, less the balance before.")]
    currency: Annotated[Word | None, Meta(description="In what, like `EUR`.")] = None
    timestamp: Timestamp = None


class SyncCompleted(Shape):
    """Records of a source are up to date."""

    source: Annotated[Text, Meta(description="Where they came from.")]
    records_updated: Annotated[Count, Meta(description="How many are others than before.")]
    timestamp: Timestamp = None


_AUDIENCE = ("entity:demo",)
_AT = "2026-11-20T12:00:00Z"

CHANNELS = (
    Channel(
        "entities",
        "What happens to the principal's current entity.",
        (
            EventType(
                "transactions.new",
                TransactionsNew,
                {"transactionId": "t-1", "amount": 12.5, "merchant": "Corner shop", "category": "groceries", "timestamp": _AT},
                _AUDIENCE,
                "entities.transactions",
            ),
            EventType(
                "agent.action.completed",
                AgentActionCompleted,
                {"agentId": "bookkeeper", "action": "categorise", "result": {"categorised": 12}, "timestamp": _AT},
                _AUDIENCE,
                "entities.agents",
            ),
            EventType(
                "balance.updated",
                BalanceUpdated,
                {"accountId": "checking", "newBalance": "1042.50", "change": "-12.50", "timestamp": _AT},
                _AUDIENCE,
                "entities.balances",
                key="accountId",
            ),
            EventType(
                "sync.completed",
                SyncCompleted,
                {"source": "bank", "recordsUpdated": 12, "timestamp": _AT},
                _AUDIENCE,
                "entities.syncs",
            ),
        ),
        path="/events",
        access=Access.ENTITY,
        scope=Scope.ENTITY,
        claims=("entities.**",),
        terms=Terms("entities"),
    ),
)
