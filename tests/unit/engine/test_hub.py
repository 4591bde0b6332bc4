"""Events reach followers in order; a slow follower loses logs, never states."""

from __future__ import annotations

from swarm.engine.events import RunEvent
from swarm.engine.hub import SUBSCRIBER_EVENTS, EventHub


async def test_events_are_numbered_and_end_with_the_run() -> None:
    hub = EventHub()
    subscription = hub.subscribe("run_1")
    hub.publish(RunEvent("run_1", "run.started"))
    hub.publish(RunEvent("run_2", "run.started"))
    hub.publish(RunEvent("run_1", "step.started", "a"))
    hub.close_run("run_1")
    received = [(event.kind, event.sequence) async for event in subscription]
    assert received == [("run.started", 1), ("step.started", 2)]


async def test_a_full_queue_drops_logs_but_keeps_states() -> None:
    hub = EventHub()
    subscription = hub.subscribe("run_1")
    for _ in range(SUBSCRIBER_EVENTS + 5):
        hub.publish(RunEvent("run_1", "log", "a"))
    hub.publish(RunEvent("run_1", "run.finished"))
    hub.close_run("run_1")
    kinds = [event.kind async for event in subscription]
    assert kinds.count("log") == SUBSCRIBER_EVENTS
    assert kinds[-1] == "run.finished"


async def test_an_unsubscribed_follower_hears_nothing_more() -> None:
    hub = EventHub()
    subscription = hub.subscribe("run_1")
    hub.unsubscribe("run_1", subscription)
    hub.publish(RunEvent("run_1", "run.started"))
    subscription.close()
    assert [event async for event in subscription] == []
