//! `resend`: for a cloud that was brought back from a backup and has lost what came after it.

use super::{Context, Failure, Outcome, complain, print};
use crate::sync::LocalGateway;
use lumbung_shared::time::{parse_rfc3339, rfc3339};
use serde_json::json;
use std::time::Duration;

/// How long nothing is said while the gateway goes over what it has.
const SILENCE: Duration = Duration::from_secs(10);

/// A time as it is typed; milliseconds since 1970.
pub(super) fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text)
        .ok_or_else(|| "expected a time with its UTC offset, such as 2026-11-21T09:30:00+07:00".to_owned())
}

pub(super) async fn resend(context: &Context, since_ms: Option<i64>) -> Result<Outcome, Failure> {
    let gateway = LocalGateway::at_leisure(context.config.http.listen).map_err(anyhow::Error::from)?;
    let request = json!({ "since": since_ms.map(rfc3339) });
    let marked = gateway.post("/api/resend", &request);
    tokio::pin!(marked);
    let answer = loop {
        tokio::select! {
            answer = &mut marked => break answer.map_err(anyhow::Error::from)?,
            () = tokio::time::sleep(SILENCE) => complain(context.say(
                "masih menandai catatan; pemindaian tetap berjalan",
                "still marking records; scans go on meanwhile",
            )),
        }
    };
    let resent = answer["resent"].as_u64().unwrap_or(0);
    if resent == 0 {
        let text = context.say("Tidak ada yang perlu dikirim ulang.", "There is nothing to send again.");
        return Ok(Outcome::NothingToDo(text.to_owned()));
    }
    print(&format!("{resent} {}", context.say("catatan akan dikirim ulang", "records will be sent again")))?;
    Ok(Outcome::Done)
}
