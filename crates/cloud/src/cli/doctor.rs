//! `lumbung-cloud doctor`.

use super::{say, say_json};
use crate::config::Config;
use crate::doctor;
use crate::finding::State;
use anyhow::bail;
use serde_json::json;

/// Says what was found. Warnings are no failure: a timer that runs this should not cry every night.
pub(super) async fn run(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let findings = doctor::look(config).await;
    let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    if as_json {
        say_json(&json!({"state": worst, "checks": findings}))?;
    } else {
        for finding in &findings {
            let word = match finding.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            say(format_args!("{word:<5} {:<15} {}", finding.check, finding.found))?;
            if let Some(advice) = &finding.advice {
                say(format_args!("{:22}→ {advice}", ""))?;
            }
        }
    }
    if worst == State::Fail {
        bail!("{} checks failed", findings.iter().filter(|finding| finding.state == State::Fail).count());
    }
    Ok(())
}
