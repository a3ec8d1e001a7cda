//! One token that says "stop" and one tracker that says "all gone".

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Shared by everything that runs: who is told to stop, and whom the process waits for.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Runs a task that the process waits for when it stops. The task watches [`Shutdown::requested`] itself.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Completes once stopping has begun.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether stopping has begun.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Tells everybody to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Tells everybody to stop when the guard is dropped.
    pub fn request_on_drop(&self) -> DropGuard {
        self.token.clone().drop_guard()
    }

    /// Completes when stopping has begun and every task has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn finished(&self) {
        self.requested().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}
