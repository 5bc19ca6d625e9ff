//! `lumbung-gateway tag`, the real command, at an emulated reader.

use crate::emulator::{Card, SerialPn532};
use std::process::Command;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn tag(serial: &SerialPn532, arguments: &[&str]) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lumbung-gateway"))
        .args(["--lang", "en", "--data-dir", dir.path().to_str().unwrap(), "tag"])
        .args(arguments)
        .env("LUMBUNG_GATEWAY__READER__PN532__LINK", format!("hsu:{}", serial.device.display()))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn the_command_writes_a_blank_tag_reads_it_back_and_overwrites_only_when_told() {
    let serial = SerialPn532::start();
    serial.world.lock().unwrap().cards = vec![Card::ntag215([4, 1, 2, 3, 4, 5, 6])];
    assert_eq!(tag(&serial, &["read"]).out, "UID  04010203040506\nNDEF (blank)\n");
    assert_eq!(tag(&serial, &["write", "LOT-07"]).out, "Written to 04010203040506: LOT-07\n");
    assert_eq!(tag(&serial, &["read"]).out, "UID  04010203040506\nNDEF LOT-07\n");
    let refused = tag(&serial, &["write", "LOT-08"]);
    assert!(refused.code == Some(1) && refused.err.contains("--replace"), "{}", refused.err);
    assert_eq!(tag(&serial, &["write", "--replace", "LOT-08"]).code, Some(0));
    assert_eq!(tag(&serial, &["read"]).out, "UID  04010203040506\nNDEF LOT-08\n");
}

#[test]
fn the_command_says_when_there_is_no_tag_or_one_too_many_or_the_reader_is_taken() {
    let serial = SerialPn532::start();
    let none = tag(&serial, &["read", "--wait", "0"]);
    assert!(none.code == Some(3) && none.err.contains("no tag"), "{}", none.err);
    serial.world.lock().unwrap().cards = vec![Card::plain(&[1; 4]), Card::plain(&[2; 4])];
    let two = tag(&serial, &["read"]);
    assert!(two.code == Some(1) && two.err.contains("two tags"), "{}", two.err);
    let _held = lumbung_gateway::hardware::pn532::Link::open(&crate::driver::address(&serial)).unwrap();
    let taken = tag(&serial, &["read"]);
    assert!(taken.code == Some(1) && taken.err.contains("stop the gateway first"), "{}", taken.err);
}
