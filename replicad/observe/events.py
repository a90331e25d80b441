"""The names of log events: one line per unit of work, in the past tense, with typed fields.

A name is part of what users build alerts on: it is never changed, only added to. `docs/metrics.md` lists them
with these comments.
"""

from __future__ import annotations

from typing import Final

# --- the database and its WAL ----------------------------------------------------------------
DATABASE_FOUND: Final = "database_found"  # the file exists now
DATABASE_AWAITED: Final = "database_awaited"  # the file does not exist yet
DATABASE_REPLACED: Final = "database_replaced"  # another file stands at the path, or none: then it is awaited
ORPHANED_WAL: Final = "orphaned_wal"  # a replaced file left it behind: kept aside, or still in use
DATABASE_UNUSABLE: Final = "database_unusable"  # not SQLite, encrypted, or locked for good
WAL_CONVERTED: Final = "wal_converted"  # journal_mode was switched to WAL, once
WAL_KEPT: Final = "wal_kept"  # journal_mode is left alone, capture is by comparison
WATCH_REFUSED: Final = "watch_refused"  # no change events from the kernel: changes are found by looking
SQLITE_VULNERABLE: Final = "sqlite_vulnerable"  # the application's SQLite carries the WAL-reset bug

# --- capture ---------------------------------------------------------------------------------
CAPTURE_STARTED: Final = "capture_started"  # both pins hold
CAPTURE_FAILED: Final = "capture_failed"  # one round failed; it is tried again
CONTINUITY_PROVEN: Final = "continuity_proven"  # the state file matches: nothing to upload
CONTINUITY_LOST: Final = "continuity_lost"  # the state has to be compared or taken anew
RESYNCHRONISED: Final = "resynchronised"  # by comparison: the pages that differ went as one transaction
CHECKPOINT_DONE: Final = "checkpoint_done"  # room was made in the WAL
CHECKPOINT_STALLED: Final = "checkpoint_stalled"  # writers waited longer than intended
CHECKPOINT_FAILED: Final = "checkpoint_failed"  # room could not be made now; it is tried again
WAL_LET_GO: Final = "wal_let_go"  # unread: longer than max_wal_bytes, or the application's own checkpoint waited for it

# --- shipping --------------------------------------------------------------------------------
STATE_NOT_WRITTEN: Final = "state_not_written"  # the file beside the database; a restart has more to prove
SEGMENT_SHIPPED: Final = "segment_shipped"  # its transactions are durable
SHIP_FAILED: Final = "ship_failed"  # it is tried again
SNAPSHOT_STORED: Final = "snapshot_stored"
SNAPSHOT_FAILED: Final = "snapshot_failed"  # it is tried again
OBJECTS_LOST: Final = "objects_lost"  # somebody deleted what was stored; what a restore of now needs is stored again
STORE_UNREACHABLE: Final = "store_unreachable"  # said once per outage
STORE_REFUSED: Final = "store_refused"  # credentials or permissions
STORE_RECOVERED: Final = "store_recovered"  # the outage is over

# --- ownership -------------------------------------------------------------------------------
CLAIM_CREATED: Final = "claim_created"  # this instance owns the epoch
KEYRING_STORED: Final = "keyring_stored"  # the replica is encrypted from now on, or also with another key
LOST_ANSWER_SETTLED: Final = "lost_answer_settled"  # a create without an answer was read back
FENCING_ADVISORY: Final = "fencing_advisory"  # the store keeps two owners apart no better than they do themselves
CLAIM_LOST: Final = "claim_lost"  # another instance has the epoch
WARMING: Final = "warming"  # the present head is restored while its owner goes on
WARMING_FAILED: Final = "warming_failed"  # the restore waits until the owner has ended
HANDOVER_REQUESTED: Final = "handover_requested"  # the owner is asked to end its epoch
OWNER_SILENT: Final = "owner_silent"  # it gives no sign of life: its epoch is claimed without its leave
HANDOVER_BEGUN: Final = "handover_begun"  # another instance asks: the rest is stored, writers wait
HANDOVER_PUT_OFF: Final = "handover_put_off"  # the rest could not be stored in time: the application goes on
HANDED_OVER: Final = "handed_over"  # another instance owns the database now, as agreed
RECLAIMED: Final = "reclaimed"  # whoever asked is gone: this instance goes on
FENCED: Final = "fenced"  # another instance owns a later epoch: nothing is stored any more
LAG_FROZEN: Final = "lag_frozen"  # writers wait: a commit that is not durable is older than max_lag
LAG_THAWED: Final = "lag_thawed"  # everything is durable again
EPOCH_NOT_ENDED: Final = "epoch_not_ended"  # its end could not be stored: the next owner waits to be sure
EPOCH_ENDED: Final = "epoch_ended"  # cleanly, with its final TXID

# --- keeping the history ---------------------------------------------------------------------
VERIFY_PROGRESSED: Final = "verify_progressed"
DRILL_PASSED: Final = "drill_passed"  # the newest state was restored, and is what it should be
DRILL_FAILED: Final = "drill_failed"  # it was not, or an assertion does not hold
DRILL_PUT_OFF: Final = "drill_put_off"  # no room on the disk, or no answer from the store: it is tried again
DRILL_LEFT_BEHIND: Final = "drill_left_behind"  # the folder of a drill that was killed was removed
DAMAGE_FOUND: Final = "damage_found"  # by a drill: says what cannot be restored; a fresh snapshot is taken
COPY_PROGRESSED: Final = "copy_progressed"
COPIED: Final = "copied"  # all of a replica that was listed is at the destination
OBJECT_DAMAGED: Final = "object_damaged"  # in the source, or other bytes at the destination: it was not copied
MIRROR_CAUGHT_UP: Final = "mirror_caught_up"  # by listing both places: at a start, or after it was away for long
MIRROR_FAILED: Final = "mirror_failed"  # said once per outage; nothing else waits for it
MIRROR_RECOVERED: Final = "mirror_recovered"  # the outage is over, and what it lacked is there
MIRROR_BEHIND: Final = "mirror_behind"  # at the end of the process: what it lacks is copied by the next start
MIRROR_DELETION_HELD_BACK: Final = "mirror_deletion_held_back"  # what replaced it is not whole in the mirror
DUTY_FAILED: Final = "duty_failed"  # work beside capture; it is tried again
SEGMENTS_ROLLED_UP: Final = "segments_rolled_up"  # small ones, or roll-ups of them, became one object
ROLLED_UP_DELETED: Final = "rolled_up_deleted"  # objects whose transactions a roll-up holds, after rollup_grace
ROLL_UP_REFUSED: Final = "roll_up_refused"  # an object is damaged, or does not fit its neighbour: it is left as it is

# --- push ------------------------------------------------------------------------------------
PUSH_PROGRESSED: Final = "push_progressed"
PUSHED: Final = "pushed"  # a file is the newest state of the replica
LITESTREAM_READ: Final = "litestream_read"  # its newest state is put together, every checksum holds
OBJECTS_DELETED: Final = "objects_deleted"  # by retention: how many, how large, and for which reasons
OBJECT_DELETED: Final = "object_deleted"  # one of them, at level debug: its key and the reason
RETENTION_DONE: Final = "retention_done"  # what is stored now, from when on any moment can be restored
RETENTION_FAILED: Final = "retention_failed"  # nothing more is deleted until the next time; replication goes on
CLOCK_DIFFERS: Final = "clock_differs"  # two hours or more from the store's: nothing is deleted
STATE_PRESERVED: Final = "state_preserved"  # a much smaller database came in its place: the good one is kept

# --- restore ---------------------------------------------------------------------------------
RESTORE_STARTED: Final = "restore_started"
RESTORE_PROGRESSED: Final = "restore_progressed"
OBJECT_UNUSABLE: Final = "object_unusable"  # damaged or gone; another way to the same transaction is tried
RESTORED: Final = "restored"  # proven by checksum and in place
RESTORE_FAILED: Final = "restore_failed"  # the target was left as it was
LOCAL_KEPT_ASIDE: Final = "local_kept_aside"  # the local file was of another history; kept under a new name
FIRST_STARTED: Final = "first_started"  # neither a backup nor a database existed: it begins empty

# --- running ---------------------------------------------------------------------------------
STARTED: Final = "started"  # replicad itself
HOOK_DONE: Final = "hook_done"  # on_first_start or before_start
HOOK_FAILED: Final = "hook_failed"
APP_STARTED: Final = "app_started"
APP_SIGNALLED: Final = "app_signalled"  # a signal was passed on
APP_KILLED: Final = "app_killed"  # stop_timeout was over
APP_STOPPED: Final = "app_stopped"
LEFTOVERS_ENDED: Final = "leftovers_ended"  # processes that the application left running were ended
NOTIFY_FAILED: Final = "notify_failed"  # the service manager's socket; said once
READY: Final = "ready"
STOPPING: Final = "stopping"  # a stop signal came
FINAL_FLUSH_DONE: Final = "final_flush_done"  # all that was committed is durable
FINAL_FLUSH_FAILED: Final = "final_flush_failed"  # says what is missing; exit status 75
STOPPED: Final = "stopped"  # with the exit status: everything that could be done was done
FAULT_ISOLATED: Final = "fault_isolated"  # an unexpected error in one part; the rest goes on

# --- observing -------------------------------------------------------------------------------
HTTP_STARTED: Final = "http_started"
HTTP_ADDRESS_TAKEN: Final = "http_address_taken"  # the default one; it goes on, without HTTP over TCP
REQUEST_FAILED: Final = "request_failed"  # a request to replicad's own HTTP interface
LIBRARY_WARNED: Final = "library_warned"  # a log line of a library, at warning or above
