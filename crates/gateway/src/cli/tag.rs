//! `tag read`, `tag write`: one tag at the gateway's own reader.

use super::{Context, Failure, Outcome, TagAction, print};
use crate::hardware::pn532::{Chip, Content, Link, LinkAddress, OpenError, Target, WriteError, read, write};
use anyhow::anyhow;
use lumbung_shared::tag::TagId;
use std::time::{Duration, Instant};

const POLL_DEADLINE: Duration = Duration::from_millis(500);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

pub(super) async fn tag(context: &Context, action: TagAction) -> Result<Outcome, Failure> {
    let address = context.config.reader.pn532.link.clone();
    if let TagAction::Write { text, .. } = &action {
        TagId::parse(text)
            .map_err(|error| Failure::Usage(format!("TEXT {}", error.words.within(context.lang))))?;
    }
    let words = Words { id: context.say("id", "en") == "id" };
    let done = tokio::task::spawn_blocking(move || work(&address, &action, words)).await;
    done.map_err(anyhow::Error::from)?
}

#[derive(Clone, Copy)]
struct Words {
    id: bool,
}

impl Words {
    fn pick(self, id: &'static str, en: &'static str) -> &'static str {
        if self.id { id } else { en }
    }
}

fn work(address: &LinkAddress, action: &TagAction, words: Words) -> Result<Outcome, Failure> {
    let link = Link::open(address).map_err(|error| match error {
        OpenError::InUse(device) => anyhow!(
            "{}: {} (sudo systemctl stop lumbung-gateway)",
            device.display(),
            words.pick(
                "pembaca sedang dipakai; hentikan gateway lebih dahulu",
                "the reader is in use; stop the gateway first"
            )
        ),
        other => anyhow!(other),
    })?;
    let mut chip = Chip::new(link, POLL_DEADLINE);
    chip.prepare().map_err(anyhow::Error::from)?;
    let wait = match action {
        TagAction::Read { wait } | TagAction::Write { wait, .. } => Duration::from_secs(*wait),
    };
    let Some(target) = one_tag(&mut chip, wait, words)? else {
        let text = words.pick("tidak ada tag di pembaca", "no tag was held to the reader");
        return Ok(Outcome::NothingToDo(text.to_owned()));
    };
    match action {
        TagAction::Read { .. } => {
            let content = read(&mut chip, &target).map_err(anyhow::Error::from)?;
            let said = match content {
                Content::Text(text) => text,
                Content::Blank => words.pick("(kosong)", "(blank)").to_owned(),
                Content::Other => words.pick("(bukan teks)", "(no text)").to_owned(),
                Content::NotNdef => words.pick("(bukan tag NDEF)", "(not an NDEF tag)").to_owned(),
            };
            print(&format!("UID  {}\nNDEF {said}", target.hex()))?;
        }
        TagAction::Write { text, replace, .. } => {
            write(&mut chip, &target, text, *replace).map_err(|error| match error {
                WriteError::NotBlank(_) => anyhow!("{error} (--replace)"),
                other => anyhow!(other),
            })?;
            print(&format!("{} {}: {text}", words.pick("Tertulis di", "Written to"), target.hex()))?;
        }
    }
    Ok(Outcome::Done)
}

/// The tag that is held to the reader; an error when there are two, for nobody could say which is meant.
fn one_tag(chip: &mut Chip, wait: Duration, words: Words) -> anyhow::Result<Option<Target>> {
    let until = Instant::now() + wait;
    loop {
        let mut targets = chip.targets()?;
        match (targets.pop(), targets.is_empty()) {
            (Some(target), true) => return Ok(Some(target)),
            (Some(_), false) => {
                return Err(anyhow!(words.pick(
                    "ada dua tag di pembaca; sisakan satu",
                    "two tags are held to the reader; leave one"
                )));
            }
            (None, _) if Instant::now() >= until => return Ok(None),
            (None, _) => std::thread::sleep(BETWEEN_LOOKS),
        }
    }
}
