"""Several servers that act as one: three as a cluster, two with a Sentinel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.services.servers import Server, wait_until

AGREE_SECONDS = 90.0
"""How long a Sentinel may take to find all well: it looks at some things only every ten seconds."""

SERVICE = "aibridge"
"""What the Sentinel calls the service it watches."""


class Cluster:
    """Three masters that share the slots; all of them must be there for any of them to answer."""

    def __init__(self, binary: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
        self.nodes = tuple(Server(binary, *options, tcp=True) for _ in range(3))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        new = not self.nodes[0].port
        for node in self.nodes:
            node.start()
        if new:
            self._create()
        wait_until(lambda: all(_cluster_is_ok(node) for node in self.nodes), "a cluster that is ok")

    def _create(self) -> None:
        bounds = (0, 5461, 10923, 16384)
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                # Without epochs of their own, two nodes that begin with the same one must first settle whose is higher.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                for other in self.nodes[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def freeze(self) -> None:
        for node in self.nodes:
            node.freeze()

    def thaw(self) -> None:
        for node in self.nodes:
            node.thaw()

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def end(self) -> None:
        for node in self.nodes:
            node.end()


def _cluster_is_ok(node: Server) -> bool:
    with node.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
    facts = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.split())
    return (facts["cluster_state"], facts["cluster_slots_ok"], facts["cluster_known_nodes"]) == (
        "ok",
        "16384",
        "3",
    )


class _Watcher(Server):
    """The Sentinel process itself: the same binary, with a file that it rewrites."""

    def __init__(self, binary: Path, master: Server, down_after: float) -> None:
        super().__init__(binary, tcp=True)
        self._options = ()
        self._master = master
        self._down_after = int(down_after * 1000)

    def _arguments(self) -> Sequence[str]:
        file = self._folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        return (str(file), "--sentinel")


class Sentinel:
    """A master, its replica, and one Sentinel that promotes the replica when the master is away.

    :param down_after: for how many seconds. With less than a start takes on a slow machine, what was killed finds that
        it has been replaced, and many seconds pass until all is well again.
    """

    def __init__(self, binary: Path, down_after: float = 5.0) -> None:
        # A replica is not kept waiting for others that might want the same copy of the data.
        self.master = Server(binary, "--repl-diskless-sync-delay", "0", tcp=True)
        self._binary, self._down_after = binary, down_after
        self.replica: Server | None = None
        self._watcher: _Watcher | None = None

    @property
    def url(self) -> str:
        assert self._watcher is not None, "the Sentinel is not running"
        return f"redis+sentinel://127.0.0.1:{self._watcher.port}/{SERVICE}"

    @property
    def _data(self) -> Sequence[Server]:
        return (self.master,) if self.replica is None else (self.master, self.replica)

    def start(self) -> None:
        for server in self._data:
            server.start()
        if self.replica is None:
            port = str(self.master.port)
            self.replica = Server(self._binary, "--replicaof", "127.0.0.1", port, tcp=True)
            self.replica.start()
        if self._watcher is None:
            self._watcher = _Watcher(self._binary, self.master, self._down_after)
            self._watcher.start()
        wait_until(self._is_whole, "a master and a replica that the Sentinel finds healthy", AGREE_SECONDS)

    def _is_whole(self) -> bool:
        master, replicas = self._said("MASTER"), self._said("REPLICAS")
        healthy = [
            each for each in replicas if each["flags"] == "slave" and each["master-link-status"] == "ok"
        ]
        return [each["flags"] for each in master] == ["master"] and len(healthy) == 1

    def _said(self, what: str) -> list[dict[str, str]]:
        assert self._watcher is not None
        with self._watcher.client() as client:
            answer = client.execute_command("SENTINEL", what, SERVICE)
        rows = answer if isinstance(answer, list) else [answer]
        if rows and isinstance(rows[0], str):
            rows = [rows]
        return [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in rows]

    def current_master(self) -> Server:
        """The server that the Sentinel names."""
        port = int(self._said("MASTER")[0]["port"])
        return next(server for server in self._data if server.port == port)

    def fail_over(self) -> None:
        """Kill the master and return when the replica has its place."""
        old = self.current_master()
        old.kill()
        wait_until(lambda: self.current_master() is not old, "a promoted replica")
        wait_until(lambda: _is_master(self.current_master()), "a replica that knows it is the master")

    def kill(self) -> None:
        for server in self._data:
            server.kill()

    def freeze(self) -> None:
        for server in self._data:
            server.freeze()

    def thaw(self) -> None:
        for server in self._data:
            server.thaw()

    def flush(self) -> None:
        self.current_master().flush()

    def end(self) -> None:
        for server in (*self._data, *([self._watcher] if self._watcher else [])):
            server.end()


def _is_master(server: Server) -> bool:
    with server.client() as client:
        return bool(client.execute_command("ROLE")[0] == "master")
