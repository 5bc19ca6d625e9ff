//! Runs one story: its own stand and runtime, few at a time, the programs' logs when it fails.

use crate::stand::Stand;
use anyhow::{Result, anyhow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Stories at once: they mostly wait, but each runs two debug programs on what may be two cores.
const AT_ONCE: usize = 6;
/// Longest a story may take before it is called stuck.
const LONGEST: Duration = Duration::from_secs(240);

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

struct Turn;

impl Turn {
    fn wait() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running =
            ENDED.wait_while(running, |running| *running >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Tells a story on a stand of its own.
pub fn story(body: impl AsyncFnOnce(&Stand) -> Result<()>) -> Result<()> {
    let _turn = Turn::wait();
    let stand = Stand::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let told = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { tokio::time::timeout(LONGEST, Box::pin(body(&stand))).await })
    }));
    runtime.shutdown_timeout(Duration::from_secs(5));
    match told {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(anyhow!("{error:#}\n{}", stand.logs())),
        Ok(Err(_)) => Err(anyhow!("stuck for {LONGEST:?}\n{}", stand.logs())),
        Err(_) => Err(anyhow!("an assertion failed (above)\n{}", stand.logs())),
    }
}
