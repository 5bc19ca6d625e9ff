use super::*;
use crate::event::Event;
use crate::reading::{Quality, Reading, ReadingContent, SeriesName, Unit};
use crate::scan::{Scan, ScanContent, Source};
use crate::tag::TagId;
use uuid::Uuid;

fn scan(seq: i64) -> Scan {
    Scan {
        seq,
        mono_ms: 1_000 * seq,
        wall_ms: 1_700_000_000_000 + 1_000 * seq,
        clock: ClockState::Held,
        source: Source::Reader,
        content: ScanContent {
            tag: TagId::parse(&format!("04A22B1C5D{seq:04X}")).unwrap(),
            status: ["makanan_keluar", "makanan_masuk"][usize::try_from(seq % 2).unwrap()].to_owned(),
            at_ms: None,
            note: None,
            officer: None,
            quantity: None,
            client_ref: None,
        },
    }
}

fn read_back(scans: &[Scan]) -> Vec<Scan> {
    let mut statuses = Statuses::default();
    let segment = write_scans(scans.to_vec(), &mut statuses).unwrap().unwrap();
    let segment: Segment = serde_json::from_str(&serde_json::to_string(&segment).unwrap()).unwrap();
    read_scans(&segment, &statuses.into_codes()).unwrap().into_iter().map(Result::unwrap).collect()
}

#[test]
fn scans_come_out_of_the_wire_as_they_went_in() {
    let mut scans: Vec<Scan> = [1, 2, 3, 7, 9].map(scan).into();
    scans[1].clock = ClockState::Synced;
    scans[2].wall_ms -= 3_600_000; // the clock was set back an hour while the batch was open
    scans[3].source = Source::Phone;
    scans[3].content.client_ref = Some(Uuid::from_u128(7));
    scans[3].content.at_ms = Some(12);
    scans[4].content.note = Some("sup tumpah\nsedikit".to_owned());
    scans[4].content.quantity = Some(24.5);
    scans[4].content.officer = Some("P-07".to_owned());
    assert_eq!(read_back(&scans), scans);
}

#[test]
fn a_clock_at_either_end_of_time_survives() {
    let mut scans = vec![scan(1), scan(2)];
    scans[0].wall_ms = i64::MIN;
    scans[1].wall_ms = i64::MAX;
    assert_eq!(read_back(&scans), scans);
}

#[test]
fn one_bad_record_spoils_only_itself_and_can_be_read_again() {
    let mut statuses = Statuses::default();
    let segment = write_scans((1..=500).map(scan).collect(), &mut statuses).unwrap().unwrap();
    let bad = segment.cols.get().replacen("\"04A22B1C5D0064\"", "{\"uid\":100}", 1);
    let segment = Segment { cols: RawValue::from_string(bad).unwrap(), ..segment };
    let read = read_scans(&segment, &statuses.into_codes()).unwrap();
    assert_eq!(read.iter().filter(|r| r.is_ok()).count(), 499);
    let refusal = read[99].as_ref().unwrap_err();
    assert_eq!((refusal.seq, refusal.reason), (100, "bad_field"));
    assert!(refusal.detail.contains("nfc_tag_id"), "{}", refusal.detail);
    let mended = refusal.raw.replace("{\"uid\":100}", "\"04A22B1C5D0064\"");
    assert_eq!(read_raw_scan(100, &mended).unwrap(), scan(100));
    assert_eq!(read_raw_scan(100, &refusal.raw).unwrap_err().seq, 100);
    assert_eq!(read_raw_scan(9, &write_raw_scan(&scan(9))).unwrap(), scan(9));
}

#[test]
fn a_record_over_a_limit_is_refused_by_name() {
    let mut long = scan(1);
    long.content.status = "x".repeat(65);
    let mut statuses = Statuses::default();
    let segment = write_scans(vec![long, scan(2)], &mut statuses).unwrap().unwrap();
    let read = read_scans(&segment, &statuses.into_codes()).unwrap();
    assert!(read[0].as_ref().unwrap_err().detail.starts_with("status_scan"));
    assert!(read[1].is_ok());
}

#[test]
fn columns_that_are_shorter_than_they_say_refuse_only_what_is_missing() {
    let text = r#"{"seq":5,"n":3,"cols":{"t":[1,1,1],"tag":["A","B"],"status":[0,0,0],"offset":[[0,0]],"clock":[[0,"held"]],"future":[1]}}"#;
    let segment: Segment = serde_json::from_str(text).unwrap();
    let read = read_scans(&segment, &["s".to_owned()]).unwrap();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(read[2].as_ref().unwrap_err().seq, 7);
}

#[test]
fn unknown_fields_are_ignored() {
    let text = r#"{"seq":5,"n":1,"new":0,"cols":{"t":[1],"tag":["A"],"status":[0],"offset":[[0,0]],"clock":[[0,"held"]],"mood":["good"]}}"#;
    let segment: Segment = serde_json::from_str(text).unwrap();
    assert!(read_scans(&segment, &["s".to_owned()]).unwrap()[0].is_ok());
}

#[test]
fn numbers_that_cannot_be_are_the_envelopes_fault() {
    let cols = || RawValue::from_string("{}".to_owned()).unwrap();
    for (seq, n, step) in [
        (0, 1, None),
        (1, 0, None),
        (i64::MAX, 2, None),
        (1, u64::MAX, None),
        (1, 2, Some(vec![0])),
        (1, 2, Some(vec![0, 0])),
        (1, 2, Some(vec![1, 1])),
        (1, 2, Some(vec![0, i64::MAX])),
        (1, 2, Some(vec![0, i64::MAX - 1])),
    ] {
        let segment = Segment { seq, n, step, cols: cols() };
        assert!(numbers(&segment).is_err(), "{segment:?}");
    }
}

#[test]
fn columns_that_are_no_object_are_kept_as_one_refusal_and_read_again_later() {
    let segment: Segment = serde_json::from_str(r#"{"seq":5,"n":3,"cols":"zip"}"#).unwrap();
    let read = read_scans(&segment, &["s".to_owned()]).unwrap();
    let refusal = read[0].as_ref().unwrap_err();
    assert_eq!((read.len(), refusal.seq, refusal.through), (1, 5, 7));
    let mended = refusal.raw.replace(
        "\"zip\"",
        r#"{"t":[1,1,1],"tag":["A","B","C"],"status":[0,0,0],"offset":[[0,0]],"clock":[[0,"held"]]}"#,
    );
    assert_eq!(read_raw_segment(5, &mended).unwrap().into_iter().filter(Result::is_ok).count(), 3);
}

#[test]
fn an_epoch_is_sixteen_hex_digits_and_the_same_bits_in_a_database() {
    let epoch = Epoch(0xFFEE_0000_0000_0001);
    assert_eq!(epoch.to_string(), "ffee000000000001");
    assert_eq!("ffee000000000001".parse(), Ok(epoch));
    assert_eq!(Epoch::from_db(epoch.to_db()), epoch);
    assert!("ffee".parse::<Epoch>().is_err());
}

fn with_cols(n: u64, cols: &str) -> Segment {
    serde_json::from_str(&format!(r#"{{"seq":1,"n":{n},"cols":{cols}}}"#)).unwrap()
}

const TWO: &str = r#""t":[1,1],"tag":["A","B"],"status":[0,0],"offset":[[0,0]],"clock":[[0,"held"]]"#;

#[test]
fn text_that_json_can_write_and_a_value_cannot_hold_spoils_one_record() {
    for bad in [r#""\ud800""#, "1e999", &format!("{}1{}", "[".repeat(200), "]".repeat(200))] {
        let cols = format!("{{{}}}", TWO.replacen(r#""A""#, bad, 1));
        let read = read_scans(&with_cols(2, &cols), &["s".to_owned()]).unwrap();
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true], "{bad}");
        let kept = whole_segment(&with_cols(2, &cols), &[1, 2], &[], "unknown_stream", "");
        assert!(kept.raw.contains(bad), "kept as it came");
    }
}

#[test]
fn columns_that_could_lose_or_move_a_value_are_kept_whole() {
    for extra in [
        r#""quantity":{"0":24.5}"#,
        r#""note":[[0]]"#,
        r#""note":[[2,"beyond"]]"#,
        r#""note":[[0,"a"],[0,"b"]]"#,
    ] {
        let read = read_scans(&with_cols(2, &format!("{{{TWO},{extra}}}")), &["s".to_owned()]).unwrap();
        assert_eq!(read.len(), 1, "{extra}");
        assert_eq!(read[0].as_ref().unwrap_err().reason, "bad_columns");
    }
    let swapped = format!(r#"{{{TWO},"note":[[1,"b"],[0,"a"]]}}"#);
    let read = read_scans(&with_cols(2, &swapped), &["s".to_owned()]).unwrap();
    let notes: Vec<_> = read.into_iter().map(|r| r.unwrap().content.note.unwrap()).collect();
    assert_eq!(notes, ["a", "b"]);
}

#[test]
fn a_value_that_many_bad_records_share_is_not_kept_with_each_of_them() {
    let n = 10_000u64;
    let list = |value: &str| format!("[{}]", vec![value; usize::try_from(n).unwrap()].join(","));
    let cols = format!(
        r#"{{"t":{},"tag":{},"status":{},"offset":[[0,0]],"clock":[[0,"held"]]}}"#,
        list("1"),
        list("\"A\""),
        list("0")
    );
    let long = "x".repeat(1_000_000);
    assert_eq!(read_scans(&with_cols(n, &cols), &[long]), Err(SegmentError::TooMuch));
}

fn reading(seq: i64, series: &str, value: f64) -> Reading {
    Reading {
        seq,
        mono_ms: 1_000 * seq,
        wall_ms: 1_700_000_000_000 + 1_000 * seq,
        clock: ClockState::Synced,
        content: ReadingContent {
            series: SeriesName::parse(series).unwrap(),
            unit: Unit::parse("Cel").unwrap(),
            value,
            quality: Quality::Good,
            at_ms: None,
        },
    }
}

#[test]
fn readings_come_out_of_the_wire_as_they_went_in() {
    let names = ["kulkas-1/temperature", "kulkas-2/temperature"];
    let mut readings: Vec<Reading> =
        [1i64, 2, 3, 7].iter().map(|&seq| reading(seq, names[seq as usize % 2], seq as f64 / 4.0)).collect();
    readings[1].content.quality = Quality::Implausible;
    readings[2].content.at_ms = Some(12);
    readings[2].content.unit = Unit::parse("%RH").unwrap();
    readings[3].content.value = -0.1e-7;
    readings[3].clock = ClockState::Unset;
    let segment = write_readings(readings.clone()).unwrap().unwrap();
    let segment: Segment = serde_json::from_str(&serde_json::to_string(&segment).unwrap()).unwrap();
    let read: Vec<Reading> = read_readings(&segment).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(read, readings);
    assert_eq!(read_raw_reading(7, &write_raw_reading(&readings[3])).unwrap(), readings[3]);
    assert_eq!(write_readings(Vec::new()).unwrap().map(|segment| segment.n), None);
}

#[test]
fn one_bad_reading_spoils_only_itself_and_can_be_read_again() {
    let readings = (1..=20).map(|seq| reading(seq, "meter-1/power", 2.5)).collect();
    let segment = write_readings(readings).unwrap().unwrap();
    for (good, bad, named) in [
        (r#""s":[0,0,"#, r#""s":[0,9,"#, "series"),
        (r#""v":[2.5,2.5,"#, r#""v":[2.5,"tinggi","#, "value"),
        (r#""v":[2.5,2.5,"#, r#""v":[2.5,1e999,"#, "value"),
        (r#""s":[0,0,"#, r#""s":[0,null,"#, "series"),
    ] {
        let cols = segment.cols.get().replacen(good, bad, 1);
        let spoilt = with_cols(20, &cols);
        let read = read_readings(&spoilt).unwrap();
        assert_eq!(read.iter().filter(|r| r.is_ok()).count(), 19, "{bad}");
        let refusal = read[1].as_ref().unwrap_err();
        assert_eq!((refusal.seq, refusal.reason), (2, "bad_field"));
        assert!(refusal.detail.starts_with(named), "{}", refusal.detail);
        assert!(read_raw_reading(2, &refusal.raw).is_err(), "{bad}");
    }
    let spoilt = segment.cols.get().replacen("2.5,2.5", "2.5,\"tinggi\"", 1);
    let read = read_readings(&with_cols(20, &spoilt)).unwrap();
    let mended = read[1].as_ref().unwrap_err().raw.replace("\"tinggi\"", "2.5");
    assert_eq!(read_raw_reading(2, &mended).unwrap(), reading(2, "meter-1/power", 2.5));
}

#[test]
fn a_bad_series_spoils_its_own_readings_and_a_segment_that_is_kept_whole_reads_by_itself() {
    let readings = [reading(1, "a", 1.0), reading(2, "b", 2.0), reading(3, "a", 3.0)];
    let segment = write_readings(readings.into()).unwrap().unwrap();
    let cols = segment.cols.get().replacen(r#"["a","Cel"]"#, r#"["a b","Cel"]"#, 1);
    let read = read_readings(&with_cols(3, &cols)).unwrap();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    let cols = segment.cols.get().replacen(r#"["a","Cel"]"#, "7", 1);
    let read = read_readings(&with_cols(3, &cols)).unwrap();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    assert!(read[0].as_ref().unwrap_err().raw.contains(r#""entry":7"#), "all there is of it is kept");
    let kept = whole_segment(&segment, &[1, 2, 3], &[], "unknown_stream", "");
    assert_eq!(read_raw_readings(1, &kept.raw).unwrap().into_iter().filter(Result::is_ok).count(), 3);
    let cols = segment.cols.get().replacen(r#""series":[["#, r#""series":3,"tables":[["#, 1);
    assert_eq!(read_readings(&with_cols(3, &cols)).unwrap()[0].as_ref().unwrap_err().reason, "bad_columns");
}

#[test]
fn events_come_out_of_the_wire_as_they_went_in_and_a_bad_one_spoils_only_itself() {
    let event = |seq: i64, kind: &str| Event {
        seq,
        mono_ms: 5 * seq,
        wall_ms: 9 * seq,
        clock: ClockState::Held,
        kind: kind.to_owned(),
        body: format!(r#"{{"reason":null,"sensor":"kulkas-{seq}"}}"#),
    };
    let events = vec![event(1, "sensor_down"), event(2, "sensor_up"), event(5, "kept_though_unknown")];
    let segment = write_events(events.clone()).unwrap().unwrap();
    let read: Vec<Event> = read_events(&segment).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(read, events);
    assert_eq!(read_raw_event(5, &write_raw_event(&events[2])).unwrap(), events[2]);
    let kept = whole_segment(&segment, &[1, 2, 5], &[], "unknown_stream", "");
    assert_eq!(read_raw_events(1, &kept.raw).unwrap().into_iter().filter(Result::is_ok).count(), 3);
    for bad in ["3", r#""Sensor Up""#] {
        let cols = segment.cols.get().replacen(r#""sensor_up""#, bad, 1);
        let read = read_events(&with_cols(3, &cols)).unwrap();
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{bad}");
    }
    let list = segment.cols.get().replacen(r#"{"reason":null,"sensor":"kulkas-2"}"#, "[2]", 1);
    let read = read_events(&with_cols(3, &list)).unwrap();
    assert!(read[1].as_ref().unwrap_err().detail.starts_with("body"), "{read:?}");
}
