"""What the daemon may say to a removal, and a container that is lost on its way."""

from __future__ import annotations

import socket
from unittest.mock import Mock

import pytest
from researcher_sandbox.docker import container
from researcher_sandbox.docker.wire import ChannelBroken

from researcher.errors import SandboxFault

docker = pytest.importorskip("docker", reason="the docker extra is not installed")


def refused(status: int) -> Exception:
    """The daemon's error."""
    error: Exception = docker.errors.APIError("refused", response=Mock(status_code=status, reason="", url=""))
    return error


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "REMOVE_AGAIN_SECONDS", 0.0)


def client(*answers: Exception | None) -> Mock:
    """A daemon that answers removals in this way, one after the other."""
    return Mock(**{"remove_container.side_effect": list(answers)})


def test_a_container_that_could_not_be_killed_yet_is_removed_by_a_later_try() -> None:
    daemon = client(refused(500), refused(500), None)
    container.remove(daemon, "some id")
    assert daemon.remove_container.call_count == 3


def test_one_that_is_gone_by_itself_is_removed() -> None:
    container.remove(client(refused(500), docker.errors.NotFound("no such container")), "some id")


def test_one_that_removes_itself_is_waited_for() -> None:
    daemon = client(refused(409))
    container.remove(daemon, "some id")
    daemon.wait.assert_called_once_with("some id", timeout=container.REMOVE_SECONDS, condition="removed")


def test_a_daemon_that_refuses_is_told_at_once_and_one_that_fails_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = client(refused(400))
    with pytest.raises(SandboxFault, match="Docker failed to remove a container"):
        container.remove(daemon, "some id")
    assert daemon.remove_container.call_count == 1
    monkeypatch.setattr(container, "REMOVE_SECONDS", 0.0)
    daemon = client(refused(500), refused(500))
    with pytest.raises(SandboxFault, match="Docker failed to remove a container"):
        container.remove(daemon, "some id")
    assert daemon.remove_container.call_count == 1


LIMITS = container.Limits("some-image")


def ended(*_: object) -> socket.socket:
    """The channel to a container whose end is closed."""
    here, there = socket.socketpair()
    there.close()
    return here


@pytest.mark.parametrize("gone", ["removed before it was attached to", "ended before its first word"])
def test_a_container_that_is_lost_before_its_first_word_is_started_anew_once(
    monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    missing = Mock(side_effect=docker.errors.NotFound("no such container"))
    monkeypatch.setattr(container, "attach", missing if gone.startswith("removed") else ended)
    daemon = client(None, None)
    daemon.create_container_from_config.return_value = {"Id": "some id"}
    with pytest.raises(SandboxFault, match="no such container" if gone.startswith("removed") else "is gone"):
        container.start(daemon, LIMITS, "1")
    assert daemon.create_container_from_config.call_count == daemon.remove_container.call_count == 2


def test_the_second_start_is_the_container_that_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Mock(**{"ask_now.side_effect": [ChannelBroken("gone"), Mock(version="1")]})
    monkeypatch.setattr(container, "attach", Mock())
    monkeypatch.setattr(container, "Channel", Mock(return_value=channel))
    daemon = client(None)
    daemon.create_container_from_config.side_effect = [{"Id": "lost"}, {"Id": "had"}]
    assert container.start(daemon, LIMITS, "1").id == "had"
    daemon.remove_container.assert_called_once_with("lost", force=True, v=True)


def test_a_daemon_that_creates_no_container_is_not_asked_again() -> None:
    daemon = Mock(**{"create_container_from_config.side_effect": refused(500)})
    with pytest.raises(SandboxFault, match="Docker failed to create a container"):
        container.start(daemon, LIMITS, "1")
    assert daemon.create_container_from_config.call_count == 1
