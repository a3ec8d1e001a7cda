//! The database below the store, and how to open it again: after an error of the disk redb refuses everything until then,
//! and a disk that was full for a minute should not cost a restart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};

/// Memory for pages of the database. Everything that is read often is in the queues anyway.
const CACHE: usize = 16 * 1024 * 1024;

/// An error of the database: the file is another program's, broken, or on a disk that is full or gone.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(#[from] Box<redb::Error>);

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(Error, DatabaseError, TransactionError, TableError, StorageError, CommitError, CompactionError);

/// How a database is opened.
type Open = Arc<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// An open database.
pub(super) struct Disk {
    /// `None` while it cannot be opened.
    database: RwLock<Option<Database>>,
    open: Open,
    durable: bool,
}

impl Disk {
    /// A database in memory.
    pub(super) fn memory() -> Result<Self, DatabaseError> {
        Self::new(false, Arc::new(|| builder().create_with_backend(InMemoryBackend::new())))
    }

    /// The database in this file, which is made if need be.
    pub(super) fn file(file: &Path) -> Result<Self, DatabaseError> {
        let file = file.to_owned();
        Self::new(true, Arc::new(move || builder().create_with_backend(FileBackend::new(open_private(&file)?)?)))
    }

    fn new(durable: bool, open: Open) -> Result<Self, DatabaseError> {
        Ok(Self { database: RwLock::new(Some(open()?)), open, durable })
    }

    /// Whether what it holds outlives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Makes the file as small as what is in it.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        if let Some(database) = self.database.write().as_mut() {
            database.compact()?;
        }
        Ok(())
    }

    /// Reads in one transaction.
    pub(super) fn read<R>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let database = self.database.read();
        work(&database.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?)
    }

    /// Writes in one transaction. All of it is certain after a success, and nothing after an error.
    pub(super) fn write<R>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let database = self.database.read();
        let transaction = database.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_write()?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Opens the database anew. What is in memory only would be lost, and has no disk to fail.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        if self.durable {
            let mut database = self.database.write();
            // Before, because the file belongs to one at a time.
            drop(database.take());
            *database = Some((self.open)()?);
        }
        Ok(())
    }
}

/// Opens a file, or makes one that its owner alone may read: events hold what clients have sent, and URLs may hold tokens.
fn open_private(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// A disk for tests, which can be cloned at any moment as a crash would leave it, and which can fail.
#[cfg(test)]
pub(super) mod ram {
    use std::io;
    use std::sync::atomic::{AtomicU32, Ordering};

    use parking_lot::Mutex;
    use redb::StorageBackend;

    use super::*;

    /// The bytes of a disk; clones are the same disk.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Ram {
        bytes: Arc<Mutex<Vec<u8>>>,
        successes: Arc<AtomicU32>,
        failures: Arc<AtomicU32>,
    }

    impl Ram {
        /// The database on it.
        pub(crate) fn disk(&self) -> Disk {
            let ram = self.clone();
            Disk::new(true, Arc::new(move || builder().create_with_backend(ram.clone()))).unwrap()
        }

        /// Another disk with what is on this one now.
        pub(crate) fn after_a_crash(&self) -> Self {
            Self { bytes: Arc::new(Mutex::new(self.bytes.lock().clone())), ..Self::default() }
        }

        /// Lets writes fail, so many of them, after so many that succeed.
        pub(crate) fn fail(&self, successes: u32, failures: u32) {
            self.successes.store(successes, Ordering::Relaxed);
            self.failures.store(failures, Ordering::Relaxed);
        }

        fn try_to_write(&self) -> io::Result<()> {
            let count_down = |counter: &AtomicU32| {
                counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            };
            if !count_down(&self.successes) && count_down(&self.failures) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl StorageBackend for Ram {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let (bytes, offset) = (self.bytes.lock(), usize::try_from(offset).unwrap());
            out.copy_from_slice(&bytes[offset..offset + out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.try_to_write()?;
            self.bytes.lock().resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            self.try_to_write()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.try_to_write()?;
            let (mut bytes, offset) = (self.bytes.lock(), usize::try_from(offset).unwrap());
            bytes[offset..offset + data.len()].copy_from_slice(data);
            Ok(())
        }
    }
}
