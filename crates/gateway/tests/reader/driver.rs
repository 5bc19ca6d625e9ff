//! What the driver asks, over all three links, and what it makes of a chip that misbehaves.

use crate::emulator::{BusPn532, Card, Fault, SerialPn532};
use lumbung_gateway::hardware::pn532::{
    Chip, Content, I2cLink, Link, LinkAddress, OpenError, SpiLink, WriteError, read, write,
};
use std::time::{Duration, Instant};

const TAG: [u8; 7] = [0x04, 0xA2, 0x2B, 0x1C, 0x5D, 0x6E, 0x80];
const POLL: Duration = Duration::from_millis(200);

pub fn address(serial: &SerialPn532) -> LinkAddress {
    LinkAddress::Hsu(serial.device.clone())
}

fn chip(serial: &SerialPn532) -> Chip {
    let mut chip = Chip::new(Link::open(&address(serial)).unwrap(), POLL);
    chip.prepare().unwrap();
    chip
}

fn uids(chip: &mut Chip) -> Vec<String> {
    chip.targets().unwrap().iter().map(|target| target.hex()).collect()
}

/// The same walk over whichever link.
fn walk(mut chip: Chip, world: &crate::emulator::Shared) {
    let firmware = chip.prepare().unwrap();
    assert_eq!((firmware.version, firmware.revision), (1, 6));
    assert!(uids(&mut chip).is_empty());
    world.lock().unwrap().cards = vec![Card::plain(&[1, 2, 3, 4])];
    assert_eq!(uids(&mut chip), ["01020304"]);
    world.lock().unwrap().cards = vec![Card::plain(&[9; 10]), Card::ntag215(TAG)];
    assert_eq!(uids(&mut chip), ["09090909090909090909", "04A22B1C5D6E80"]);
    let target = chip.targets().unwrap().pop().unwrap();
    assert_eq!(read(&mut chip, &target).unwrap(), Content::Blank);
    write(&mut chip, &target, "KONTAINER-0042", false).unwrap();
    assert_eq!(read(&mut chip, &target).unwrap(), Content::Text("KONTAINER-0042".into()));
    let again = write(&mut chip, &target, "KONTAINER-0043", false);
    assert!(matches!(again, Err(WriteError::NotBlank(Content::Text(_)))));
    write(&mut chip, &target, &"é".repeat(128), true).unwrap();
    assert_eq!(read(&mut chip, &target).unwrap(), Content::Text("é".repeat(128)));
    world.lock().unwrap().cards.clear();
    assert!(read(&mut chip, &target).is_err());
    assert!(uids(&mut chip).is_empty());
}

#[test]
fn tags_are_found_read_and_written_over_a_serial_line() {
    let serial = SerialPn532::start();
    walk(Chip::new(Link::open(&address(&serial)).unwrap(), POLL), &serial.world);
}

#[test]
fn tags_are_found_read_and_written_over_spi() {
    let bus = BusPn532::default();
    let world = bus.world.clone();
    walk(Chip::new(Link::over(SpiLink::new(bus)), POLL), &world);
}

#[test]
fn tags_are_found_read_and_written_over_i2c() {
    let bus = BusPn532::default();
    let world = bus.world.clone();
    walk(Chip::new(Link::over(I2cLink::new(bus)), POLL), &world);
}

#[test]
fn one_bad_answer_is_asked_for_again_within_the_deadline() {
    let serial = SerialPn532::start();
    let mut chip = chip(&serial);
    serial.world.lock().unwrap().cards = vec![Card::ntag215(TAG)];
    for fault in [Fault::Nack, Fault::WrongChecksum] {
        serial.world.lock().unwrap().faults = [fault].into();
        assert_eq!(uids(&mut chip), ["04A22B1C5D6E80"], "{fault:?}");
    }
}

#[test]
fn after_any_fault_the_next_answer_belongs_to_the_next_question() {
    let serial = SerialPn532::start();
    let mut chip = chip(&serial);
    let late = Fault::Late(POLL + Duration::from_millis(50));
    for fault in [Fault::Garbage, Fault::Half, late, Fault::Nack, Fault::WrongChecksum] {
        serial.world.lock().unwrap().cards = vec![Card::plain(&[1, 1, 1, 1])];
        serial.world.lock().unwrap().faults = [fault].into();
        let begun = Instant::now();
        let first = chip.targets();
        assert!(begun.elapsed() < 2 * POLL, "{fault:?} took {:?}", begun.elapsed());
        // What was there then must not be told as what is there now.
        serial.world.lock().unwrap().cards = vec![Card::plain(&[2, 2, 2, 2])];
        let found = (0..10).find_map(|_| chip.targets().ok()).unwrap();
        assert!(found.iter().all(|target| target.hex() == "02020202"), "{fault:?}: {first:?} then {found:?}");
        assert_eq!(chip.firmware().unwrap().version, 1, "{fault:?}");
    }
}

#[test]
fn a_silent_chip_costs_no_more_than_the_deadline_and_is_found_again() {
    let serial = SerialPn532::start();
    let mut chip = chip(&serial);
    serial.world.lock().unwrap().dead = true;
    let begun = Instant::now();
    assert!(chip.targets().unwrap_err().to_string().contains("did not answer"));
    assert!(begun.elapsed() < 2 * POLL);
    serial.world.lock().unwrap().dead = false;
    chip.prepare().unwrap();
}

#[test]
fn a_reader_that_is_in_use_is_refused_by_name() {
    let serial = SerialPn532::start();
    let held = Link::open(&address(&serial)).unwrap();
    assert!(matches!(Link::open(&address(&serial)), Err(OpenError::InUse(_))));
    drop(held);
    Link::open(&address(&serial)).unwrap();
}
