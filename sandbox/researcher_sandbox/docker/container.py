"""One hardened container: its flags, its start, its requests, its end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry, retry_if_exception, stop_after_attempt, stop_after_delay, wait_fixed

from researcher.errors import SandboxFault, UserError
from researcher_sandbox.docker import owner
from researcher_sandbox.docker.channel import Channel
from researcher_sandbox.docker.client import attach, faults
from researcher_sandbox.docker.wire import ChannelBroken, Reply

if TYPE_CHECKING:
    from docker import APIClient

MB = 2**20
HELLO_SECONDS = 60.0
"""From the start of a container to its supervisor's first word."""

REMOVE_SECONDS = 20
"""For a container that removes itself, and for a daemon that could not kill one yet."""

REMOVE_AGAIN_SECONDS = 0.5

SCRATCH, TMP, SHM = "/scratch", "/tmp", "/dev/shm"
"""Where a job may write; each is memory of the container."""

CPU_SHARES = 512
"""Half of a usual container's: where the processors are busy, other containers go first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may have. `memory` is all of it: the supervisor, the job, and what the job writes."""

    image: str
    runtime: str | None = None
    memory: int = 768 * MB
    pids: int = 128
    cpus: float | None = None
    scratch: int = 64 * MB
    inodes: int = 8192
    run: str = ""


def config(limits: Limits) -> dict[str, Any]:
    """The body of Docker's call that creates such a container."""
    return {
        "Image": limits.image,
        "Hostname": "sandbox",
        "User": "0:0",
        "Env": [],
        "Labels": owner.labels(limits.run),
        "NetworkDisabled": True,
        "Tty": False,
        # The container ends with this process: the daemon closes its stdin when the one attached connection is lost,
        # a killed process's too, and the supervisor exits at the end of its stdin. Without StdinOnce it never would.
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host_config(limits),
    }


def _host_config(limits: Limits) -> dict[str, Any]:
    mounts = "rw,nosuid,nodev,mode=1777"
    host: dict[str, Any] = {
        "AutoRemove": True,
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        # For the supervisor alone: to become the job's user in the child, and to end what the job leaves.
        "CapAdd": ["SETUID", "SETGID", "KILL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "PidsLimit": limits.pids,
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "CpuShares": CPU_SHARES,
        # A private namespace without Docker's own /dev/shm, whose inodes have no limit.
        "IpcMode": "none",
        "CgroupnsMode": "private",
        "Tmpfs": {
            SCRATCH: f"{mounts},exec,size={limits.scratch},nr_inodes={limits.inodes}",
            TMP: f"{mounts},noexec,size={16 * MB},nr_inodes=1024",
            SHM: f"{mounts},noexec,size={16 * MB},nr_inodes=256",
        },
        # The default one copies all output to the host's disk.
        "LogConfig": {"Type": "none", "Config": {}},
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": 1024, "Hard": 1024},
            {"Name": "memlock", "Soft": 0, "Hard": 0},
        ],
    }
    if limits.cpus is not None:
        host["NanoCpus"] = round(limits.cpus * 10**9)
    if limits.runtime is not None:
        host["Runtime"] = limits.runtime
    return host


class Container:
    """A container whose supervisor answered; leased to one caller at a time."""

    def __init__(self, id: str, channel: Channel, hello: Reply) -> None:
        self.id = id
        self.channel = channel
        self.hello = hello

    async def ask(self, message: Mapping[str, Any], seconds: float) -> Reply:
        """The supervisor's reply. Raises ChannelBroken, TimeoutError, TooLarge."""
        return await self.channel.ask(message, seconds)


def _lost(error: BaseException) -> bool:
    """Whether the container ended, or was removed, before its first word: nothing has run in it yet."""
    from docker.errors import NotFound

    return isinstance(error, ChannelBroken) or isinstance(error.__cause__, NotFound)


@retry(retry=retry_if_exception(_lost), stop=stop_after_attempt(2), reraise=True)
def start(client: APIClient, limits: Limits, version: str) -> Container:
    """A container that is ready. Blocks for some tenths of a second; another is started where the first was lost.

    Raises SandboxFault where it did not start, UserError where the image is absent or not this version's.
    """
    id = _create(client, limits)
    channel: Channel | None = None
    try:
        with faults("attach to a container"):
            channel = Channel(attach(client, id))
        with faults("start a container"):
            client.start(id)
        try:
            hello = channel.ask_now({"op": "hello"}, HELLO_SECONDS)
        except TimeoutError:
            raise SandboxFault(f"a new container did not answer within {HELLO_SECONDS:g} s") from None
        if hello.version != version:
            raise UserError(
                f"The image {limits.image} is of version {hello.version or 'unknown'}, not {version}; "
                "run researcher sandbox build."
            )
    except BaseException:
        if channel is not None:
            channel.close()
        with suppress(SandboxFault):
            remove(client, id)
        raise
    return Container(id, channel, hello)


def remove(client: APIClient, id: str) -> None:
    """Kill the container and remove it; returns when it is gone. Raises SandboxFault."""
    from docker.errors import APIError, NotFound

    def once() -> None:
        try:
            client.remove_container(id, force=True, v=True)
        except APIError as error:
            if error.status_code != 409:
                raise
            # It is being removed already, which it does by itself at its end.
            client.wait(id, timeout=REMOVE_SECONDS, condition="removed")

    # On a busy machine the daemon may lose patience with a runtime that takes long to kill: an error of the server.
    patient = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, APIError) and error.is_server_error()),
        stop=stop_after_delay(REMOVE_SECONDS),
        wait=wait_fixed(REMOVE_AGAIN_SECONDS),
        reraise=True,
    )
    with faults("remove a container"), suppress(NotFound):
        patient(once)


def _create(client: APIClient, limits: Limits) -> str:
    from docker.errors import ImageNotFound

    name = f"researcher-sandbox-{secrets.token_hex(6)}"
    with faults("create a container"):
        try:
            return str(client.create_container_from_config(config(limits), name)["Id"])
        except ImageNotFound:
            raise UserError(f"The image {limits.image} is not there; run researcher sandbox build.") from None
