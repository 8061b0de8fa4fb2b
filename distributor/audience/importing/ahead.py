"""Reading ahead: the next window is read while the database writes this one."""

from collections.abc import Iterable, Iterator
from itertools import islice
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
#: Seconds between two looks at whether anybody still wants what was read.
_LOOK = 0.2


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def ahead(items: Iterable[T], number: int = 2) -> Iterator[T]:
    """The same items, up to `number` of them read ahead by a thread; its exception is raised here."""
    ready: Queue[Any] = Queue(number)
    gone = Event()
    reader = Thread(target=_read, args=(items, ready, gone), name="import-reader", daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        gone.set()
        reader.join()


def _read(items: Iterable[object], ready: "Queue[object]", gone: Event) -> None:
    try:
        for item in items:
            if not _offer(item, ready, gone):
                return
        _offer(_END, ready, gone)
    except BaseException as error:
        _offer(error, ready, gone)  # raised again where it is waited for


def _offer(item: object, ready: "Queue[object]", gone: Event) -> bool:
    """Whether it was taken: nobody waits any more when the import has ended."""
    while not gone.is_set():
        try:
            ready.put(item, timeout=_LOOK)
        except Full:
            continue
        return True
    return False
