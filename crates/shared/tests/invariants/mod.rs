//! What must hold whatever the bytes are that come over the network or on a stick. Two drive it: `parsers.rs` with
//! requests drawn by proptest in every test run, and `fuzz/` with those that libFuzzer finds its way to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lumbung_shared::bundle::{Bundle, Seal, Writer};
use lumbung_shared::event::Event;
use lumbung_shared::reading::{Reading, SeriesName, Unit};
use lumbung_shared::receipt::Receipt;
use lumbung_shared::scan::Scan;
use lumbung_shared::signing::{Purpose, Signer};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::{parse_rfc3339, rfc3339};
use lumbung_shared::wire::{self, Batch, Budget, Epoch, MAX_BATCH_RECORDS, Refusal, Segment, Statuses};

/// A batch: each record of a segment becomes a record or a refusal, and what was taken is written and read the same.
pub fn batch(bytes: &[u8]) {
    let Ok(batch) = serde_json::from_slice::<Batch>(bytes) else { return };
    let mut budget = Budget::new(1 << 20);
    for segment in batch.runs.iter().flat_map(|run| run.streams.values().flatten()) {
        // As the cloud does before it reads any of them.
        if segment.n > MAX_BATCH_RECORDS {
            continue;
        }
        scans(segment, &batch.statuses, &mut budget);
        readings(segment, &mut budget);
        if let Ok(read) = wire::read_events_within(segment, &mut budget) {
            let taken = divide(segment, read, |seq, raw| wire::read_raw_event(seq, raw).is_ok());
            for event in &taken {
                event.check().unwrap();
                let raw = wire::write_raw_event(event);
                assert_eq!(
                    plain(wire::read_raw_event(event.seq, &raw).unwrap()),
                    plain(event.clone()),
                    "{raw}"
                );
            }
            if let Some(again) = wire::write_events(taken.clone()).unwrap() {
                let again = all(wire::read_events(&travelled(&again)).unwrap());
                assert!(again.into_iter().map(plain).eq(taken.into_iter().map(plain)));
            }
        }
    }
}

/// With its body written the one way: 1e308 and 1e+308 are the same, and PostgreSQL keeps both as one.
fn plain(mut event: Event) -> Event {
    let body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
    event.body = body.to_string();
    event
}

fn scans(segment: &Segment, codes: &[String], budget: &mut Budget) {
    let Ok(read) = wire::read_scans_within(segment, codes, budget) else { return };
    let taken: Vec<Scan> = divide(segment, read, |seq, raw| wire::read_raw_scan(seq, raw).is_ok());
    for scan in &taken {
        scan.content.check().unwrap();
        let raw = wire::write_raw_scan(scan);
        assert_eq!(&wire::read_raw_scan(scan.seq, &raw).unwrap(), scan, "{raw}");
    }
    let mut codes = Statuses::default();
    if let Some(again) = wire::write_scans(taken.clone(), &mut codes).unwrap() {
        assert_eq!(all(wire::read_scans(&travelled(&again), &codes.into_codes()).unwrap()), taken);
    }
}

fn readings(segment: &Segment, budget: &mut Budget) {
    let Ok(read) = wire::read_readings_within(segment, budget) else { return };
    let taken: Vec<Reading> = divide(segment, read, |seq, raw| wire::read_raw_reading(seq, raw).is_ok());
    for reading in &taken {
        reading.content.check().unwrap();
        let raw = wire::write_raw_reading(reading);
        assert_eq!(&wire::read_raw_reading(reading.seq, &raw).unwrap(), reading, "{raw}");
    }
    if let Some(again) = wire::write_readings(taken.clone()).unwrap() {
        assert_eq!(all(wire::read_readings(&travelled(&again)).unwrap()), taken);
    }
}

/// The records that were taken; none is lost, and what is kept of the others is as unreadable as it was.
fn divide<T>(
    segment: &Segment,
    read: Vec<Result<T, Refusal>>,
    readable: impl Fn(i64, &str) -> bool,
) -> Vec<T> {
    let numbers = wire::numbers(segment).unwrap();
    assert_eq!(numbers.len() as u64, segment.n);
    // One refusal may stand for the whole segment.
    assert!(read.len() == numbers.len() || read.len() == 1, "{} of {}", read.len(), numbers.len());
    let mut taken = Vec::new();
    for one in read {
        match one {
            Ok(record) => taken.push(record),
            Err(refusal) => {
                assert!(numbers.contains(&refusal.seq));
                readable(refusal.seq, &refusal.raw);
            }
        }
    }
    taken
}

fn travelled(segment: &Segment) -> Segment {
    serde_json::from_str(&serde_json::to_string(segment).unwrap()).unwrap()
}

fn all<T>(read: Vec<Result<T, Refusal>>) -> Vec<T> {
    read.into_iter().map(|one| one.unwrap_or_else(|refusal| panic!("{refusal:?}"))).collect()
}

/// What quarantine kept, read again after an update.
pub fn kept(bytes: &[u8]) {
    let Ok(raw) = str::from_utf8(bytes) else { return };
    if let Ok(scan) = wire::read_raw_scan(1, raw) {
        assert_eq!(wire::read_raw_scan(1, &wire::write_raw_scan(&scan)).unwrap(), scan);
    }
    if let Ok(reading) = wire::read_raw_reading(1, raw) {
        assert_eq!(wire::read_raw_reading(1, &wire::write_raw_reading(&reading)).unwrap(), reading);
    }
    if let Ok(event) = wire::read_raw_event(1, raw) {
        let again = wire::read_raw_event(1, &wire::write_raw_event(&event)).unwrap();
        assert_eq!(plain(again), plain(event));
    }
    let (_, _, _) = (
        wire::read_raw_segment(1, raw).is_ok(),
        wire::read_raw_readings(1, raw).is_ok(),
        wire::read_raw_events(1, raw).is_ok(),
    );
}

/// A bundle: as it is, and with a signature that fits, so that what lies behind it is looked at too.
pub fn bundle(bytes: &[u8]) {
    let signer = Signer::from_seed(&[7; 32]).unwrap();
    let seal = Seal::of_key("lbg_kunci");
    let opened = |file: Vec<u8>| {
        let Ok(bundle) = Bundle::read(file) else { return };
        let Ok(opener) = bundle.opener(std::slice::from_ref(&seal)) else { return };
        for place in 0..=bundle.len() {
            assert!(place < bundle.len() || bundle.batch(&opener, place).is_err());
        }
    };
    opened(bytes.to_vec());
    let empty = Writer::new(Vec::new(), "GW-1", String::new(), signer.public_key(), &seal, [1; 32]);
    let (mut file, _) = empty.unwrap().finish(&signer).unwrap();
    // Behind the magic number: batches, and their list with its length and signature.
    let list = file.iter().position(|byte| *byte == b'{').unwrap();
    file.truncate(list);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    let (batches, list) = bytes.split_at(end);
    let list = String::from_utf8_lossy(list.strip_prefix(&[0]).unwrap_or(list));
    // The one text that nobody would draw.
    let list = list.replace("KEY", &String::from(signer.public_key()));
    file.extend_from_slice(batches);
    file.extend_from_slice(list.as_bytes());
    file.extend_from_slice(&u32::try_from(list.len()).unwrap().to_le_bytes());
    let signature = String::from(signer.sign(Purpose::Bundle, list.as_bytes()));
    file.extend_from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap());
    opened(file);
}

/// A receipt that somebody carried to the gateway.
pub fn receipt(bytes: &[u8]) {
    let signer = Signer::from_seed(&[7; 32]).unwrap();
    let Ok(receipt) = Receipt::read(bytes) else { return };
    assert_eq!(Receipt::read(&serde_json::to_vec(&receipt).unwrap()).unwrap(), receipt);
    if let Ok(statement) = receipt.open(&signer.public_key()) {
        assert_eq!(
            Receipt::sign(&statement, &signer).unwrap().open(&signer.public_key()).unwrap(),
            statement
        );
    }
}

/// The texts that are parsed into types: what was taken once is taken again and means the same.
pub fn texts(text: &str) {
    if let Ok(tag) = TagId::parse(text) {
        assert_eq!(TagId::parse(tag.as_str()).unwrap(), tag);
    }
    if let Ok(epoch) = text.parse::<Epoch>() {
        assert_eq!(epoch.to_string(), text.to_ascii_lowercase());
        assert_eq!(Epoch::from_db(epoch.to_db()), epoch);
    }
    if let Some(ms) = parse_rfc3339(text) {
        let written = rfc3339(ms);
        assert_eq!(rfc3339(parse_rfc3339(&written).unwrap()), written);
    }
    if let Ok(series) = SeriesName::parse(text) {
        assert_eq!(SeriesName::parse(series.as_str()).unwrap(), series);
    }
    if let Ok(unit) = Unit::parse(text) {
        assert_eq!(Unit::parse(unit.as_str()).unwrap(), unit);
    }
    let _ = lumbung_shared::enrol::is_key(text);
}
