"""Events reach followers in order; a slow follower loses logs, never states."""

from __future__ import annotations

from swarm.engine.hub import SUBSCRIBER_EVENTS, EventHub


async def test_events_are_numbered_and_end_with_the_run() -> None:
    hub = EventHub()
    subscription = hub.subscribe("run_1")
    hub.publish("run_1", "run.started", None, {})
    hub.publish("run_2", "run.started", None, {})
    hub.publish("run_1", "step.started", "a", {})
    hub.close_run("run_1")
    received = [(event.kind, event.sequence) async for event in subscription]
    assert received == [("run.started", 1), ("step.started", 2)]


async def test_a_full_queue_drops_logs_but_keeps_states() -> None:
    hub = EventHub()
    subscription = hub.subscribe("run_1")
    for _ in range(SUBSCRIBER_EVENTS + 5):
        hub.publish("run_1", "log", "a", {})
    hub.publish("run_1", "run.finished", None, {})
    hub.close_run("run_1")
    kinds = [event.kind async for event in subscription]
    assert kinds.count("log") == SUBSCRIBER_EVENTS
    assert kinds[-1] == "run.finished"


async def test_an_unsubscribed_follower_hears_nothing_more() -> None:
    hub = EventHub()
    subscription = hub.subscribe("run_1")
    hub.unsubscribe("run_1", subscription)
    hub.publish("run_1", "run.started", None, {})
    subscription.close()
    assert [event async for event in subscription] == []


async def test_what_nobody_follows_is_counted_and_the_first_of_it_kept() -> None:
    hub = EventHub()
    assert hub.begun("run_1") is None
    hub.publish("run_1", "run.started", None, {"resumed": True})
    hub.publish("run_1", "step.started", "a", {})
    begun = hub.begun("run_1")
    assert begun is not None
    assert (begun.kind, begun.sequence, begun.data) == ("run.started", 1, {"resumed": True})
    subscription = hub.subscribe("run_1")
    hub.publish("run_1", "log", "a", {"message": "late"})
    hub.close_run("run_1")
    assert [(event.sequence, event.data) async for event in subscription] == [
        (3, {"message": "late"})
    ]
    assert hub.begun("run_1") is None
