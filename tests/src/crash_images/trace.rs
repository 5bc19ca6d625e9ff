//! What the gateway asked of the kernel, read back from strace's log.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;

/// Files whose fate a power cut decides.
pub(super) const FILES: [&str; 2] = ["local_gateway.db", "local_gateway.db-wal"];

/// One thing that matters, in the order in which it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Bytes handed to the kernel; on the card only after a sync.
    Write {
        file: usize,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: u64,
    },
    /// The kernel said that the file is on the card.
    Synced {
        file: usize,
    },
    Unlink {
        file: usize,
    },
    /// Somebody was told that this scan is safe.
    Acked {
        id: i64,
        run: String,
        tag: String,
    },
}

/// Reads the whole log.
pub(super) fn read(log: &str) -> Result<Vec<Event>> {
    let mut reader = Reader::default();
    for line in log.lines() {
        reader.line(line).with_context(|| format!("strace said: {line:.200}"))?;
    }
    reader.events.sort_by_key(|(at, _)| *at);
    Ok(reader.events.into_iter().map(|(_, event)| event).collect())
}

#[derive(Default)]
struct Reader {
    number: usize,
    /// Calls that have begun and not ended, by thread: where they began and what was said of them.
    open: HashMap<String, (usize, String)>,
    /// Position of each descriptor.
    positions: HashMap<u32, u64>,
    events: Vec<(usize, Event)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        self.number += 1;
        let (thread, call) = line.split_once(' ').context("no thread")?;
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            let begun = begun.trim_end().to_owned();
            self.open.insert(thread.to_owned(), (self.number, begun));
            return Ok(());
        }
        if let Some(resumed) = call.strip_prefix("<... ") {
            let (_, rest) = resumed.split_once("resumed>").context("no end of a resumption")?;
            let Some((began, begun)) = self.open.remove(thread) else {
                return Ok(());
            };
            return self.call(began, &format!("{begun}{rest}"));
        }
        self.call(self.number, call)
    }

    fn call(&mut self, began: usize, call: &str) -> Result<()> {
        let Some((name, rest)) = call.split_once('(') else {
            return Ok(()); // a signal or an exit
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            return Ok(()); // ended with the process
        };
        let Ok(result) = result.split(['<', ' ']).next().unwrap_or_default().parse::<i64>() else {
            return Ok(());
        };
        if result < 0 {
            return Ok(());
        }
        match name {
            "openat" => {
                self.positions.insert(u32::try_from(result)?, 0);
            }
            "lseek" => {
                self.positions.insert(descriptor(arguments)?.0, u64::try_from(result)?);
            }
            "unlink" | "unlinkat" => {
                let path = quoted(arguments).into_iter().next().unwrap_or_default();
                if let Some(file) = file_of(&String::from_utf8_lossy(&path)) {
                    self.push(self.number, Event::Unlink { file });
                }
            }
            "write" | "pwrite64" | "writev" | "sendto" | "sendmsg" => {
                self.wrote(name, began, arguments, result)?;
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = file_of(&descriptor(arguments)?.1) {
                    // It counts from when it came back.
                    self.push(self.number, Event::Synced { file });
                }
            }
            "ftruncate" => {
                if let Some(file) = file_of(&descriptor(arguments)?.1) {
                    let len = last_number(arguments)?;
                    self.push(began, Event::Truncate { file, len });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wrote(&mut self, name: &str, began: usize, arguments: &str, result: i64) -> Result<()> {
        let (fd, path) = descriptor(arguments)?;
        let mut bytes = quoted(arguments).concat();
        let written = usize::try_from(result)?;
        if path.starts_with("socket:") {
            // It counts from when it began.
            if let Some(event) = acknowledgement(&bytes) {
                self.push(began, event);
            }
            return Ok(());
        }
        let Some(file) = file_of(&path) else {
            return Ok(());
        };
        if bytes.len() < written {
            bail!("the data of a write is cut short in the log");
        }
        bytes.truncate(written);
        let at = match name {
            "pwrite64" => last_number(arguments)?,
            _ => {
                let position = self.positions.entry(fd).or_default();
                let at = *position;
                *position += written as u64;
                at
            }
        };
        self.push(began, Event::Write { file, at, bytes });
        Ok(())
    }

    fn push(&mut self, at: usize, event: Event) {
        self.events.push((at, event));
    }
}

/// `7<\x2f…>, …` → 7 and the path.
fn descriptor(arguments: &str) -> Result<(u32, String)> {
    let (fd, rest) = arguments.split_once('<').context("no descriptor")?;
    let (path, _) = rest.split_once('>').context("no end of a path")?;
    let path = String::from_utf8_lossy(&unhex(path)).into_owned();
    Ok((fd.trim().parse()?, path))
}

/// The last argument, as a number.
fn last_number(arguments: &str) -> Result<u64> {
    let last = arguments.rsplit(',').next().unwrap_or_default();
    let digits: String = last.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn file_of(path: &str) -> Option<usize> {
    let path = path.trim_end_matches(" (deleted)");
    FILES.iter().position(|name| path.rsplit('/').next() == Some(*name))
}

/// Every quoted string. All of them are hexadecimal, so a quote is always an end.
fn quoted(text: &str) -> Vec<Vec<u8>> {
    text.split('"').skip(1).step_by(2).map(unhex).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).filter_map(|pair| u8::from_str_radix(pair.get(..2)?, 16).ok()).collect()
}

/// The 201 of a scan, if that is what went over a socket.
fn acknowledgement(bytes: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !text.starts_with("HTTP/1.1 201") {
        return None;
    }
    let body: serde_json::Value = serde_json::from_str(text.get(text.find("\r\n\r\n")? + 4..)?).ok()?;
    Some(Event::Acked {
        id: body["id"].as_i64()?,
        run: body["run"].as_str()?.to_owned(),
        tag: body["nfc_tag_id"].as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn writes_syncs_and_answers_come_out_in_the_order_in_which_they_count() {
        let db = hex("/data/local_gateway.db");
        let answer = hex("HTTP/1.1 201 Created\r\n\r\n{\"id\":3,\"run\":\"ab\",\"nfc_tag_id\":\"T\"}");
        let log = format!(
            "7 openat(AT_FDCWD, \"{db}\", O_RDWR) = 4<{db}>\n\
             7 lseek(4<{db}>, 100, SEEK_SET) = 100\n\
             7 write(4<{db}>, \"{}\", 2) = 2\n\
             7 fdatasync(4<{db}> <unfinished ...>\n\
             9 sendto(8<{}>, \"{answer}\", 60, 0, NULL, 0) = 60\n\
             7 <... fdatasync resumed>) = 0\n\
             7 pwrite64(4<{db}>, \"{}\", 1, 5) = 1\n\
             7 +++ killed by SIGKILL +++\n",
            hex("hi"),
            hex("socket:[1]"),
            hex("x"),
        );
        let expected = vec![
            Event::Write { file: 0, at: 100, bytes: b"hi".to_vec() },
            Event::Acked { id: 3, run: "ab".to_owned(), tag: "T".to_owned() },
            Event::Synced { file: 0 },
            Event::Write { file: 0, at: 5, bytes: b"x".to_vec() },
        ];
        assert_eq!(read(&log).unwrap(), expected);
    }
}
