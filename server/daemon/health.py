"""The standard gRPC health service of a daemon (grpc.health.v1), on loopback or a Unix socket."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServer:
    """Answers whether the daemon and each of its parts serve."""

    def __init__(self, address: str) -> None:
        """address: as 127.0.0.1:8081, or unix:/run/health.sock.

        Raises:
            RuntimeError: the address cannot be listened at.
        """
        self._servicer = health.HealthServicer()
        self._server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="health"))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self._server.add_insecure_port(address)
        self._server.start()

    def tell(self, serving: dict[str, bool]) -> None:
        """Say which parts serve; the daemon itself, "", serves if all do."""
        for name, serves in {**serving, "": all(serving.values())}.items():
            self._servicer.set(name, SERVING if serves else NOT_SERVING)

    def stop(self) -> None:
        """Say that nothing serves any more, and end."""
        self._servicer.enter_graceful_shutdown()
        self._server.stop(grace=1.0)
