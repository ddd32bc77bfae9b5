"""A store's lock, which may be taken before the models are loaded that it is opened for."""

from pathlib import Path

from deliberate.core.folder_lock import FolderInUseError, FolderLock
from deliberate.serve.store_errors import StoreError, StoreInUseError


def lock_store(folder: Path) -> FolderLock:
    """Take the lock of a store's folder, which is made if missing.

    Raises:
        StoreError: the folder cannot be made or written.
        StoreInUseError: another process has opened it, or this one already has.
    """
    try:
        return FolderLock(folder)
    except OSError as error:
        raise StoreError(
            f"the store {str(folder)!r} cannot be written: {error.strerror}; name another folder"
        ) from error
    except FolderInUseError as error:
        raise StoreInUseError(
            f"the store {str(folder)!r} is in use by process {error.holder}: stop that server, or "
            "name another folder"
        ) from error
