//! Which runtime a request's connections, tasks and timers belong to.
//!
//! Every HTTP worker has a runtime of its own, which ends as soon as that worker has nobody left to answer. A database
//! connection that was opened in one would break in the middle of whatever another worker does with it: on every
//! stop, what the slower worker still answers would fail. So requests open and spawn in the program's own runtime,
//! which ends last.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{rt, web};
use std::future::{Future, poll_fn};
use std::pin::pin;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The two runtimes of a request.
#[derive(Clone)]
pub struct Runtimes {
    program: Handle,
    worker: Handle,
}

impl Runtimes {
    /// Called in the worker's.
    #[must_use]
    pub fn of_worker(program: &Handle) -> Self {
        Self { program: program.clone(), worker: Handle::current() }
    }

    /// Runs in the worker's thread what outlives its request's connection; what cannot leave that thread.
    pub(super) fn spawn_local<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: 'static> + 'static,
    {
        let program = self.program.clone();
        let _worker = self.worker.enter();
        rt::spawn(within(program, work))
    }
}

/// Handles a request within the program's runtime.
pub(crate) async fn lasting<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let program = request.app_data::<web::Data<Runtimes>>().map(|runtimes| runtimes.program.clone());
    let answered = next.call(request);
    match program {
        Some(program) => within(program, answered).await,
        None => answered.await,
    }
}

/// What it opens, spawns or sleeps on is that runtime's; it is still this task.
async fn within<F: Future>(runtime: Handle, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let _entered = runtime.enter();
        work.as_mut().poll(cx)
    })
    .await
}
