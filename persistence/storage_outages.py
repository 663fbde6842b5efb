"""What of the storage does not answer a process, for its report."""

from collections.abc import Mapping
from datetime import UTC, datetime

from persistence.postgres.database import Database
from persistence.postgres.lease import Lease
from persistence.s3.objects import ObjectStore


def storage_outages(lease: Lease, database: Database, objects: ObjectStore) -> dict[str, datetime]:
    """The degradations `lease`, `database` and `object_store` that are in force, and since when."""
    since = {"database": database.outage.since, "object_store": objects.outage.since}
    if not lease.is_held:
        since["lease"] = lease.expires_at or datetime.now(UTC)
    return {name: began for name, began in since.items() if began is not None}


def earliest(*each: Mapping[str, datetime]) -> dict[str, datetime]:
    """All of them by name; of two beginnings of the same name the earlier one."""
    since: dict[str, datetime] = {}
    for some in each:
        for name, began in some.items():
            since[name] = min(began, since.get(name, began))
    return since
