//! Random bytes, for whatever nobody may guess.

use anyhow::anyhow;

/// # Errors
/// The system's, which hardly ever has none.
pub(crate) fn draw<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gave no random bytes: {error}"))?;
    Ok(bytes)
}
