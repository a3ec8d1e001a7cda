//! Where webhooks are until they are delivered: a small database on disk, or in memory where that is asked for.
//!
//! One thread writes. It takes everything that has come up since its last transaction and commits it at once, so that a
//! burst of events costs one sync of the disk and not one each; only then are events handed to their endpoints. Who
//! reports an event does not wait for any of it.
//!
//! The database is redb: written in Rust alone, a single file, transactions that survive a crash at any moment. What
//! else there is either needs a C library or is not maintained as a store of record.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use redb::DatabaseError;
use tokio::sync::oneshot;

use super::disk::Disk;
use super::inbox::{Change, Inbox, News};
use super::letter::{Address, DeadLetter};
use super::tables::{self, Found};
use super::unix_ms;
use super::writer::{Readers, Writer};

pub use super::disk::StoreError;

/// The file in the data directory.
const FILE: &str = "webhooks.redb";

/// The database and its writer.
pub(super) struct Store {
    disk: Arc<Disk>,
    inbox: Arc<Inbox>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Tells the ids of this store from those of others.
    id: u32,
}

impl Store {
    /// Opens the store in this directory, which is made if need be; without one, in memory. `max_unwritten` is the bound in
    /// bytes of what may wait for the writer.
    ///
    /// # Errors
    /// The directory cannot be made, or the database not be opened: the text says why.
    pub(super) fn open(directory: Option<&Path>, max_unwritten: usize) -> Result<(Self, Found), String> {
        let Some(directory) = directory else {
            return Self::on(Disk::memory().map_err(|error| error.to_string())?, max_unwritten);
        };
        let make = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        make.map_err(|error| format!("cannot be made: {error}"))?;
        let disk = Disk::file(&directory.join(FILE)).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => "is in use by another process".to_owned(),
            error => format!("{FILE} cannot be opened: {error}"),
        })?;
        Self::on(disk, max_unwritten)
    }

    fn on(disk: Disk, max_unwritten: usize) -> Result<(Self, Found), String> {
        let (id, found) = tables::read_all(&disk).map_err(|error| format!("{FILE} cannot be read: {error}"))?;
        // Larger than every number before it, also of events that are long delivered.
        let next_id = (unix_ms() * 1000).max(found.last_id + 1);
        let inbox = Arc::new(Inbox::new(max_unwritten, next_id));
        Ok((Self { disk: Arc::new(disk), inbox, writer: Mutex::default(), id }, found))
    }

    /// Starts the writer. `max_dead` is the bound of each endpoint's dead letters in bytes.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(&self, readers: Arc<dyn Readers>, max_dead: usize) -> io::Result<()> {
        let (disk, inbox) = (Arc::clone(&self.disk), Arc::clone(&self.inbox));
        let mut writer = Writer::new(disk, inbox, readers, max_dead);
        let thread = std::thread::Builder::new().name("webhooks".to_owned());
        *self.writer.lock() = Some(thread.spawn(move || writer.run())?);
        Ok(())
    }

    /// Writes what is left, stops the writer and closes the file.
    pub(super) fn close(&self) {
        self.inbox.close();
        if let Some(writer) = self.writer.lock().take() {
            // Its panic was printed when it happened; there is nothing left to do about it.
            let _ = writer.join();
        }
    }

    /// Whether what it holds outlives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.disk.is_durable()
    }

    /// The id of a delivery, by its first event's number: the same in every attempt, and after a restart.
    pub(super) fn delivery_id(&self, first: u64) -> String {
        format!("{:08x}-{first:x}", self.id)
    }

    /// The number in such an id.
    pub(super) fn parse_id(&self, id: &str) -> Option<u64> {
        let (store, first) = id.split_once('-')?;
        let ours = u32::from_str_radix(store, 16) == Ok(self.id);
        u64::from_str_radix(first, 16).ok().filter(|_| ours)
    }

    /// Hands news to the writer, for each of these endpoints.
    pub(super) fn keep(&self, to: &[&Address], mut news: News) {
        if !self.is_durable() {
            // Nobody would read it.
            news.told = None;
        }
        self.inbox.keep(to, news);
    }

    /// Hands something else to the writer.
    pub(super) fn change(&self, change: Change) {
        self.inbox.push(change);
    }

    /// Waits until everything handed over so far is written.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn sync(&self) {
        let (done, written) = oneshot::channel();
        self.change(Change::Sync(done));
        // A writer that is gone has written all it ever will.
        let _ = written.await;
    }

    /// The newest dead letters, at most `limit`, of those that are `wanted`.
    pub(super) fn dead(
        &self,
        limit: usize,
        wanted: impl Fn(&DeadLetter) -> bool,
    ) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        tables::dead_letters(&self.disk, limit, wanted)
    }

    /// One dead letter.
    pub(super) fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        tables::dead_letter(&self.disk, id)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("id", &self.id).field("durable", &self.is_durable()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
