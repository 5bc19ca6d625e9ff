//! The emulator is not only our own opinion of a PN532.

use crate::emulator::{Card, SerialPn532};
use std::process::Command;

fn with_libnfc(program: &str, arguments: &[&str], serial: &SerialPn532) -> Option<String> {
    let device = format!("pn532_uart:{}", serial.device.display());
    match Command::new(program).args(arguments).env("LIBNFC_DEVICE", device).output() {
        Ok(output) => Some(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => {
            println!(
                "not checked against libnfc: {program} does not start ({error}); apt-get install libnfc-bin libnfc-examples"
            );
            None
        }
    }
}

#[test]
fn libnfc_takes_the_emulator_for_a_pn532_with_an_ntag() {
    let serial = SerialPn532::start();
    serial.world.lock().unwrap().cards = vec![Card::ntag215([0x04, 0xA2, 0x2B, 0x1C, 0x5D, 0x6E, 0x80])];
    let Some(said) = with_libnfc("nfc-list", &["-v", "-t", "1"], &serial) else { return };
    println!("{said}");
    assert!(said.contains("1 ISO14443A passive target(s) found"), "{said}");
    assert!(said.contains("04  a2  2b  1c  5d  6e  80"), "{said}");

    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let Some(said) = with_libnfc("nfc-mfultralight", &["r", path], &serial) else { return };
    println!("{said}");
    assert!(said.contains("135 of 135 pages read"), "{said}");
    assert_eq!(std::fs::read(path).unwrap()[..540], serial.world.lock().unwrap().cards[0].memory);
}
