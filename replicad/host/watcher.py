"""Wake an idle capture when a database's files change, at no cost while it is busy.

A watch fires once per arming, and the kernel itself disarms it (IN_ONESHOT): a writer that appends half a
million times a second costs one event, not a thread that reads events all day. Measured on two cores, a
process writing flat out for 3 s: a watch left armed and ignored, 40 to 100 % of a core and writers slowed by
a third; unscheduled or one-shot, 0.0 %. Arming and disarming: 26 µs here, 415 µs and a thread per folder
through watchdog's Observer. Hence the layer below the Observer: its InotifyFD, one thread and one descriptor
for all databases of the process.

Two kinds of watch together see everything that matters to a database. One on each *file* says that it was
written: in a folder full of databases a busy one does not wake the others. One on the *folder*, kept while
anything in it is armed, says that a name appeared, vanished or was replaced; writes do not reach it.

Events are a hint, never the truth. Whoever arms must look at the files once more afterwards, for a change
between the last look and the arming raises no event; and must look now and then without any event, for
network file systems report only this machine's writes, and limits can refuse a watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import weakref
from typing import TYPE_CHECKING

import structlog
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask, WatchDescriptor

from replicad.observe import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from watchdog.observers.inotify_c import InotifyEvent

_FILE_MASK = Mask(InotifyConstants.IN_MODIFY | InotifyConstants.IN_ONESHOT)
_FOLDER_MASK = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
_REFUSED = WatchDescriptor(-1)

_log = structlog.get_logger(__name__)


class Watch:
    """Change events for some files of one folder; made by `Watcher.watch`, used on the event loop only."""

    def __init__(self, folder: _Folder, names: Iterable[str], changed: asyncio.Event) -> None:
        self._folder = folder
        self._names = tuple(os.fsencode(name) for name in names)
        self._changed = changed
        self._descriptors: list[WatchDescriptor] = []
        self.armed = False

    def arm(self) -> bool:
        """Have the next change set the event, once. Look at the files again after this, see the module.

        Returns:
            Whether changes will be seen. False when the kernel refuses (no such folder, limit on watches,
            no permission): then only looking now and then finds them.
        """
        if self.armed:
            return True
        self.armed = True
        try:
            self._folder.add(self, self._names)
            for name in self._names:
                with contextlib.suppress(FileNotFoundError):  # the folder's watch tells when it appears
                    self._descriptors.append(self._folder.add_file(name, self))
        except OSError as error:
            self.disarm()
            self._folder.refused(error)
            return False
        return True

    def disarm(self) -> None:
        """Ask for no more events; costs nothing from here on. Safe to repeat. An event on its way is dropped."""
        if self.armed:
            self.armed = False
            self._folder.remove_files(self._descriptors, self)
            self._descriptors.clear()
            self._folder.remove(self, self._names)

    def fire(self) -> None:
        """Set the event and disarm: what a change does, on the event loop."""
        if self.armed:
            self.disarm()
            self._changed.set()

    # watchdog's side of it: called in the reading thread

    def on_event(self, event: InotifyEvent) -> None:  # noqa: ARG002 - the callback's signature
        """Pass a change of one of the files on to the event loop."""
        self._folder.pass_on(self)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Take no notice that a watch is gone: a one-shot watch ends that way, and so does a file's deletion."""

    def on_queue_overflow(self) -> None:
        """Take lost events for a change."""
        self._folder.pass_on(self)


class Watcher:
    """All watches of the process: one inotify descriptor and one thread, started with the first arming.

    Args:
        loop: where the events are set; calls come from its thread only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self._inotify: InotifyFD | None = None
        self._folders: weakref.WeakValueDictionary[Path, _Folder] = weakref.WeakValueDictionary()
        self._refusal_logged = False

    def watch(self, folder: Path, names: Iterable[str], changed: asyncio.Event) -> Watch:
        """Return a watch, disarmed, on files that need not exist yet.

        Args:
            folder: the folder that holds the files, links resolved (SQLite puts the WAL beside the file
                that a link points to).
            names: the files' names in it, such as `app.db` and `app.db-wal`.
            changed: set on the event loop at the first change after arming.
        """
        found = self._folders.get(folder)
        if found is None:
            self._folders[folder] = found = _Folder(self, folder)
        return Watch(found, names, changed)

    async def close(self) -> None:
        """End all watches and the thread. Safe to repeat."""
        for folder in list(self._folders.values()):
            folder.disarm_all()
        self.closed = True
        if self._inotify is not None:
            inotify, self._inotify = self._inotify, None
            await asyncio.to_thread(_end, inotify)

    def add(self, path: bytes, mask: Mask, callback: Watch | _Folder) -> WatchDescriptor:
        """Add a kernel watch.

        Raises:
            OSError: the kernel refuses.
        """
        if self.closed:
            raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
        if self._inotify is None:
            self._inotify = InotifyFD()
            self._inotify.name = "replicad-watch"
            self._inotify.start()
        descriptor = self._inotify.add_callback(path, mask, callback, CallbackId(id(callback)))
        if descriptor == _REFUSED:  # InotifyFD raises for every errno but EACCES
            self._inotify.remove_callbacks([(descriptor, CallbackId(id(callback)))])
            raise PermissionError(path)
        return descriptor

    def forget(self, descriptors: Iterable[WatchDescriptor], callback: Watch | _Folder) -> None:
        """Remove kernel watches; those that have ended by themselves are no error."""
        if self._inotify is not None:
            self._inotify.remove_callbacks([(descriptor, CallbackId(id(callback))) for descriptor in descriptors])

    def call(self, callback: Callable[..., None], *args: object) -> None:
        """Call something on the event loop; for the reading thread."""
        if not self.closed:
            with contextlib.suppress(RuntimeError):  # the loop has ended, nobody is left to be told
                self.loop.call_soon_threadsafe(callback, *args)

    def refused(self, path: Path, error: OSError) -> None:
        """Say once per process that changes are found by looking from now on."""
        if not self._refusal_logged and not self.closed:
            self._refusal_logged = True
            _log.warning(events.WATCH_REFUSED, path=str(path), error=error.strerror or repr(error))


def _end(inotify: InotifyFD) -> None:
    inotify.stop()
    inotify.join()


class _Folder:
    """The kernel watch on one folder, there while anything in it is armed, and who waits for which name."""

    def __init__(self, watcher: Watcher, path: Path) -> None:
        self._watcher = watcher
        self._path = path
        self._descriptor: WatchDescriptor | None = None
        # tuples, replaced whole by the event loop: the reading thread looks names up at any time
        self._waiting: dict[bytes, tuple[Watch, ...]] = {}

    def add(self, watch: Watch, names: tuple[bytes, ...]) -> None:
        """Enter a watch under its names. Raises OSError when the kernel refuses."""
        for name in names:
            self._waiting[name] = (*self._waiting.get(name, ()), watch)
        if self._descriptor is None:
            self._descriptor = self._watcher.add(os.fsencode(self._path), _FOLDER_MASK, self)

    def remove(self, watch: Watch, names: tuple[bytes, ...]) -> None:
        """Take a watch out again, and with the last one the kernel watch."""
        for name in names:
            rest = tuple(other for other in self._waiting.get(name, ()) if other is not watch)
            if rest:
                self._waiting[name] = rest
            else:
                self._waiting.pop(name, None)
        if not self._waiting and self._descriptor is not None:
            self._watcher.forget([self._descriptor], self)
            self._descriptor = None

    def add_file(self, name: bytes, watch: Watch) -> WatchDescriptor:
        """Return a one-shot watch on a file. Raises OSError when there is none or the kernel refuses."""
        return self._watcher.add(os.path.join(os.fsencode(self._path), name), _FILE_MASK, watch)  # noqa: PTH118 - bytes

    def remove_files(self, descriptors: Iterable[WatchDescriptor], watch: Watch) -> None:
        """Remove a watch's file watches."""
        self._watcher.forget(descriptors, watch)

    def refused(self, error: OSError) -> None:
        """Report that the kernel refuses to watch here."""
        self._watcher.refused(self._path, error)

    def disarm_all(self) -> None:
        """Disarm everything in the folder."""
        for watch in self._watches():
            watch.disarm()

    def pass_on(self, watch: Watch) -> None:
        """Fire a watch on the event loop; called in the reading thread."""
        if watch.armed:
            self._watcher.call(watch.fire)

    def on_event(self, event: InotifyEvent) -> None:
        """Pass on that a name appeared, vanished or was replaced; called in the reading thread."""
        if event.is_move_self:
            self._watcher.call(self._fire_all)
        for watch in self._waiting.get(event.name, ()):
            self.pass_on(watch)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Pass on that the folder itself is gone; called in the reading thread."""
        self._watcher.call(self._lost, wd)

    def on_queue_overflow(self) -> None:
        """Take lost events for changes of everything; called in the reading thread."""
        self._watcher.call(self._fire_all)

    def _lost(self, wd: WatchDescriptor) -> None:
        if wd == self._descriptor:
            self._descriptor = None
            self._fire_all()

    def _fire_all(self) -> None:
        for watch in self._watches():
            watch.fire()

    def _watches(self) -> set[Watch]:
        return {watch for waiting in self._waiting.values() for watch in waiting}
