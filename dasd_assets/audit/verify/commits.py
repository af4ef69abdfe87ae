"""Changes by hand: rows whose latest change no run and no command of ours made, as long as its snapshot is kept.

A hand that writes our name into its commit is not seen here; what it changed may be, by the other checks.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from dasd_assets.audit.files import Fault
from dasd_resources.storage.connections import AUTHOR
from dasd_resources.storage.lake import Reading
from dasd_resources.storage.tables import TABLES

REMEDY = "restore a backup; if the change was intended, it is reported until maintenance expires the snapshot"
CHANGED_ROWS = ("tables_inserted_into", "tables_deleted_from", "inlined_insert", "inlined_delete")
DONE = {"insert": "inserted", "update_postimage": "changed", "delete": "deleted"}


def by_hand(reading: Reading) -> Iterator[Fault]:
    """The rows that a commit without our name has inserted, changed or deleted, and that nothing of ours has since."""
    named: dict[int, str] = dict(
        reading.read("SELECT table_id, table_name FROM ducklake_table_info('dasd')").iter_rows()
    )
    times, commits = dict[int, datetime](), defaultdict[str, list[int]](list)
    for commit in reading.read(_FOREIGN, {"author": AUTHOR}).to_dicts():
        times[commit["snapshot_id"]] = commit["snapshot_time"]
        changed = {int(number) for kind in CHANGED_ROWS for number in commit["changes"].get(kind, [])}
        for number in changed & named.keys():
            commits[named[number]].append(commit["snapshot_id"])
    newest = reading.snapshot_id()
    for table, snapshots in sorted(commits.items()):
        key = ", ".join(TABLES[table].key) if table in TABLES else "number"
        query = _LATEST.format(table=table, key=key, first=min(snapshots), newest=newest)
        for snapshot, change, *values in reading.read(query).rows():
            if snapshot in snapshots:
                what = f"it was {DONE[change]} by hand (snapshot {snapshot}, {times[snapshot]:%Y-%m-%d %H:%M} UTC)"
                yield Fault(table, " ".join(map(str, values)), what, REMEDY)


_FOREIGN = """SELECT snapshot_id, snapshot_time, changes FROM dasd.snapshots()
    WHERE author IS DISTINCT FROM $author ORDER BY snapshot_id"""
_LATEST = """SELECT snapshot, change, {key}
    FROM dasd.table_changes('{table}', {first}, {newest}) AS c(snapshot, number, change)
    WHERE change <> 'update_preimage'
    QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY snapshot DESC, change DESC) = 1 ORDER BY ALL"""
