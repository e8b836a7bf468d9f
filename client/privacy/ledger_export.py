"""A ledger handed out: signed JSON for an ethics board, without salt and without patients.

The signature is Ed25519 (RFC 8032) over the canonical JSON of all but itself, with a key that the
site made for this alone. Rows keep their hashes, so that whoever has an export can check the chain
in it, and that a later ledger goes on from it.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from client.privacy.ledger import Ledger, epsilon_of_charges
from client.privacy.ledger_rows import CHARGE, Chain, Charge, LedgerError, canonical, check_links
from common.secret_files import sync_folder, write_new

SIGNING_KEY = "signing.key"
FORMAT = "wardround ledger 1"


def default_delta(chain: Chain) -> float:
    """Return 1 / (2 x patients), of all patients that ever were in the data set."""
    return 1 / (2 * len(chain.patients))


def studies_of(chain: Chain) -> dict[str, list[Charge]]:
    """Return the charges by the digest of their study, in the order of their first charge."""
    studies: dict[str, list[Charge]] = {}
    for charge in chain.charges.values():
        studies.setdefault(charge.study, []).append(charge)
    return studies


def charge_rows(chain: Chain) -> list[tuple[str, Charge]]:
    """Return the time and the cost of every charge, oldest first."""
    return [(row.time, Charge(**row.fields())) for row in chain.rows if row.kind == CHARGE]


def export_of(ledger: Ledger, delta: float | None = None) -> dict[str, Any]:
    """Return the ledger's export, signed with the site's key.

    delta: of the epsilons; None for 1 / (2 x patients).

    Raises:
        LedgerError: the ledger is broken, or the key can be neither read nor made.
    """
    chain = ledger.chain()
    at = default_delta(chain) if delta is None else delta
    key = signing_key(ledger.path.parent)
    body = {
        "format": FORMAT,
        "data_set": chain.fingerprint,
        "patients": len(chain.patients),
        "rows": [_told(chain, number) for number in range(len(chain.rows))],
        "epsilon": {
            "delta": at,
            "life": _finite(epsilon_of_charges(list(chain.charges.values()), at)),
            "studies": {
                study: _finite(epsilon_of_charges(charges, at))
                for study, charges in studies_of(chain).items()
            },
        },
        "head": {"seq": chain.newest.seq, "hash": chain.newest.hash},
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
    return {**body, "signature": key.sign(canonical(body).encode()).hex()}


def _finite(epsilon: float) -> float | None:
    # JSON has no infinity: null is what an update without privacy leaves of epsilon.
    return epsilon if math.isfinite(epsilon) else None


def read_export(path: Path) -> dict[str, Any]:
    """Return an export whose signature and chain hold; whose key it is, the reader must know.

    Raises:
        LedgerError: not an export, changed since it was signed, or not one whole chain.
    """
    try:
        export = dict(json.loads(path.read_bytes()))
        signature = bytes.fromhex(export["signature"])
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(export["public_key"]))
        body = {name: value for name, value in export.items() if name != "signature"}
        public.verify(signature, canonical(body).encode())
        check_links(export["rows"])
        newest = export["rows"][-1]
        if export["head"] != {"seq": newest["seq"], "hash": newest["hash"]}:
            raise LedgerError(f"{path}: its head is not its newest row; ask the site for another")
    except InvalidSignature as error:
        raise LedgerError(
            f"{path}: the signature does not fit: the export was changed after it was signed; "
            "ask the site for another"
        ) from error
    except LedgerError:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise LedgerError(
            f"{path}: not an export of a ledger ({error}); make one with "
            "wardround-site ledger export FILE"
        ) from error
    return export


def check_continues(chain: Chain, export: Mapping[str, Any], path: Path) -> None:
    """Check that a ledger goes on from where it was exported.

    path: of the ledger, for the error.

    Raises:
        LedgerError: the ledger was put back to an older state, or is another.
    """
    seq, known = export["head"]["seq"], export["head"]["hash"]
    if len(chain.rows) < seq or chain.rows[seq - 1].hash != known:
        raise LedgerError(
            f"{path}: does not go on from the export, whose newest row is {seq}: it is another "
            "data set's, or was put back to an older state; restore the newest backup"
        )


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """Return the site's key for exports, made at its first use; readable by its owner alone.

    Raises:
        LedgerError: it can be neither read nor made.
    """
    path = folder / SIGNING_KEY
    try:
        if not path.exists():
            temporary = folder / f".{SIGNING_KEY}.{os.getpid()}.tmp"
            temporary.unlink(missing_ok=True)
            write_new(temporary, Ed25519PrivateKey.generate().private_bytes_raw())
            try:
                # Unlike a rename, a link never replaces a key that another process just made.
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
            sync_folder(folder)
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{path}: the site's key can be neither read nor made ({error}); export as the user "
            "of the trainer, from the site's own folder"
        ) from error


def _told(chain: Chain, number: int) -> dict[str, Any]:
    row = chain.rows[number]
    return {
        "seq": row.seq,
        "time": row.time,
        "kind": row.kind,
        "body": row.fields(),
        "previous": row.previous,
        "hash": row.hash,
    }
