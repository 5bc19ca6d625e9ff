//! Waiting for something to become true, with a deadline and a sentence for when it does not.

use anyhow::{Result, anyhow};
use std::fmt::{Debug, Write as _};
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a story waits for one thing. Generous, because two cores may be building something else.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Asks again and again until the answer is `Some`; an error counts as "not yet" and is told at the end.
pub async fn eventually<T, F, Fut>(what: &str, probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    eventually_within(PATIENCE, what, probe).await
}

/// [`eventually`] with its own deadline.
pub async fn eventually_within<T, F, Fut>(patience: Duration, what: &str, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    loop {
        let last = match probe().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let mut message = format!("waited {patience:?} in vain: {what}");
            if let Some(error) = last {
                let _ = write!(message, " (last: {error:#})");
            }
            return Err(anyhow!(message));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Asks until what was done is felt. However loaded the machine is, whoever begins to ask more than a second after it
/// was done must not get the old answer any more; one that is neither the old nor the new (a busy cloud's) says nothing.
pub async fn within_a_second<T, F, Fut>(what: &str, old: &T, new: &T, mut ask: F) -> Result<()>
where
    T: PartialEq + Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let done = Instant::now();
    loop {
        let asked = done.elapsed();
        let answer = ask().await?;
        if answer == *new {
            return Ok(());
        }
        if asked > Duration::from_secs(1) && answer == *old || asked > PATIENCE {
            return Err(anyhow!("{what}: asked {asked:?} after it was done, the answer was {answer:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `Some(())` when it holds: what a probe of [`eventually`] answers for a plain condition.
pub fn when(condition: bool) -> Option<()> {
    condition.then_some(())
}
