//! The listening socket, and how a stop empties the house behind it.
//!
//! Every HTTP worker has a runtime of its own, which ends as soon as that worker has nobody left to answer, and with
//! it whatever was opened there: database connections that another worker, or a batch's writer, is in the middle of
//! using. So no worker is told to end before nobody is left at any of them: the door is shut, whoever is inside gets
//! their answer, and then all workers end at once.

use actix_web::dev::{Extensions, ServerHandle};
use nix::sys::socket::{Shutdown, shutdown};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// From the moment somebody is let in until their worker counts them: a hand-over between threads, a TLS handshake.
const COMING_IN: Duration = Duration::from_millis(200);

/// Until the accepting thread has heard that it pauses; should it be slower, it logs that the port is shut.
const GIVING_NOTICE: Duration = Duration::from_millis(10);

pub struct Door {
    listener: TcpListener,
    unfinished: TaskTracker,
}

/// Somebody is connected.
struct Connected {
    _counted: TaskTrackerToken,
}

impl Door {
    /// # Errors
    /// When no more files can be opened.
    pub fn of(listener: &TcpListener, unfinished: &TaskTracker) -> std::io::Result<Self> {
        Ok(Self { listener: listener.try_clone()?, unfinished: unfinished.clone() })
    }

    /// Counts a connection for as long as it lasts.
    pub fn count(unfinished: &TaskTracker, connection: &mut Extensions) {
        connection.insert(Connected { _counted: unfinished.token() });
    }

    /// Lets nobody in any more, so that a proxy asks elsewhere at once, and waits until everybody has left. Answers
    /// close their connections by then, and idle ones are closed after their time. Whether everybody has.
    pub async fn shut(&self, server: &ServerHandle, patience: Duration) -> bool {
        server.pause().await;
        tokio::time::sleep(GIVING_NOTICE).await;
        // The kernel refuses whoever comes now; a paused server alone would let them wait.
        if let Err(error) = shutdown(self.listener.as_raw_fd(), Shutdown::Read) {
            tracing::warn!("the port could not be closed early: {error}");
        }
        tokio::time::sleep(COMING_IN).await;
        self.unfinished.close();
        let everybody_left = tokio::time::timeout(patience, self.unfinished.wait()).await.is_ok();
        if !everybody_left {
            tracing::warn!(
                left = self.unfinished.len(),
                "some are still connected, or not done; they are cut off"
            );
        }
        everybody_left
    }
}
