"""Ask a gRPC health service (grpc.health.v1): exit code 0 if all of it serves, 1 if not.

python health.py ADDRESS [PART ...]        127.0.0.1:8081, unix:/path; "" is the whole
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 5.0


def serves(address: str, parts: list[str]) -> bool:
    """Return whether every part says of itself that it serves."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answers = [
                stub.Check(health_pb2.HealthCheckRequest(service=part), timeout=TIMEOUT_S)
                for part in parts or [""]
            ]
        except grpc.RpcError:
            return False
    return all(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in answers)


if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1], sys.argv[2:]) else 1)
