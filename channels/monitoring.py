"""Compliance monitoring: what the scheduler, the runs and the deliveries of one organisation do."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from channels.declaration import Channel, EventType
from channels.values import MAX_LIST_LENGTH, Count, Details, Id, LongText, Shape, Share, Text, Time, Word

Timestamp = Annotated[Time | None, Meta(description="When it was.")]


class SchedulerTick(Shape):
    """The scheduler has looked for work."""

    timestamp: Annotated[Time, Meta(description="When it was.")]
    tick: Annotated[Count | None, Meta(description="Its number, counted up.")] = None
    due: Annotated[Count | None, Meta(description="How many runs were due.")] = None
    running: Annotated[Count | None, Meta(description="How many runs are going on.")] = None
    next_tick_at: Annotated[Time | None, Meta(description="When it looks again.")] = None


class RunStage(Shape):
    """A run has come to a stage."""

    run_id: Annotated[Id, Meta(description="The run.")]
    stage: Annotated[Word, Meta(description="Like `fetch`, `compare`, `deliver`.")]
    status: Annotated[Word | None, Meta(description="Like `started`, `finished`, `failed`.")] = None
    source_id: Annotated[Id | None, Meta(description="What is being watched.")] = None
    progress: Annotated[Share | None, Meta(description="How far the stage is, 0 to 1.")] = None
    error: Annotated[Text | None, Meta(description="What went wrong.")] = None
    timestamp: Timestamp = None


class ChangeDetected(Shape):
    """Something that is watched has changed."""

    change_id: Annotated[Id, Meta(description="The change.")]
    run_id: Annotated[Id | None, Meta(description="The run that found it.")] = None
    source_id: Annotated[Id | None, Meta(description="What has changed.")] = None
    title: Annotated[Text | None, Meta(description="The change in a line.")] = None
    summary: Annotated[LongText | None, Meta(description="The change in some sentences.")] = None
    severity: Annotated[Word | None, Meta(description="Like `low`, `medium`, `high`, `critical`.")] = None
    url: Annotated[Text | None, Meta(description="Where to read it.")] = None
    timestamp: Timestamp = None


class ActionDelivered(Shape):
    """What follows from a change has reached those who must act."""

    action_id: Annotated[Id, Meta(description="The action.")]
    change_id: Annotated[Id | None, Meta(description="The change that it follows from.")] = None
    run_id: Annotated[Id | None, Meta(description="The run that found the change.")] = None
    channel: Annotated[Word | None, Meta(description="How it was delivered, like `email` or `webhook`.")] = None
    status: Annotated[Word | None, Meta(description="Like `delivered` or `failed`.")] = None
    details: Annotated[Details | None, Meta(description="Whatever else.")] = None
    timestamp: Timestamp = None


class ChangeStateChanged(Shape):
    """Somebody has taken a change a step further."""

    change_id: Annotated[Id, Meta(description="The change.")]
    state: Annotated[Word, Meta(description="Its state now, like `acknowledged` or `resolved`.")]
    previous_state: Annotated[Word | None, Meta(description="Its state before.")] = None
    reason: Annotated[Text | None, Meta(description="Why.")] = None
    timestamp: Timestamp = None


class OrgEntitlementsChanged(Shape):
    """An organisation may do more, or less, than before."""

    entitlements: Annotated[
        dict[str, Any] | Annotated[list[Word], Meta(max_length=MAX_LIST_LENGTH)],
        Meta(description="What it may do now: names, or names with values."),
    ]
    plan: Annotated[Word | None, Meta(description="Its plan now.")] = None
    previous_plan: Annotated[Word | None, Meta(description="Its plan before.")] = None
    timestamp: Timestamp = None


_AUDIENCE = ("org:demo",)
_AT = "2026-11-20T12:00:00Z"

CHANNELS = (
    Channel(
        "monitoring",
        "What the compliance monitoring of an organisation does.",
        (
            EventType("scheduler.tick", SchedulerTick, {"timestamp": _AT, "tick": 17, "due": 2}, _AUDIENCE, "compliance.scheduler"),
            EventType(
                "run.stage",
                RunStage,
                {"runId": "run-7", "stage": "fetch", "status": "finished", "sourceId": "eu-ai-act", "timestamp": _AT},
                _AUDIENCE,
                "compliance.runs",
                key="runId",
            ),
            EventType(
                "change.detected",
                ChangeDetected,
                {
                    "changeId": "change-3",
                    "runId": "run-7",
                    "sourceId": "eu-ai-act",
                    "title": "Article 5, paragraph 2 has a new sentence",
                    "severity": "high",
                    "timestamp": _AT,
                },
                _AUDIENCE,
                "compliance.changes",
            ),
            EventType(
                "action.delivered",
                ActionDelivered,
                {"actionId": "action-5", "changeId": "change-3", "channel": "email", "status": "delivered", "timestamp": _AT},
                _AUDIENCE,
                "compliance.actions",
            ),
            EventType(
                "change.stateChanged",
                ChangeStateChanged,
                {"changeId": "change-3", "state": "acknowledged", "previousState": "open", "timestamp": _AT},
                _AUDIENCE,
                "compliance.changes",
                key="changeId",
            ),
            EventType(
                "org.entitlements.changed",
                OrgEntitlementsChanged,
                {"plan": "team", "previousPlan": "starter", "entitlements": ["sources:50", "webhooks"], "timestamp": _AT},
                _AUDIENCE,
                "compliance.entitlements",
            ),
        ),
        claims=("compliance.**",),
    ),
)
