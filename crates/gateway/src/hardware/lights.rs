//! The light and the buzzer: what each tells the officer, and the thread that plays it.
//!
//! | | green | red | buzzer |
//! |---|---|---|---|
//! | stored | 0.8 s | | one short beep |
//! | refused | | 1.5 s | three beeps |
//! | reader trouble | | blinks once a second until it is over | |

use super::gpio::Output;
use super::{Light, Signal};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// A light the player has not got to yet is older news than the next one.
const QUEUE: usize = 8;
const FOREVER: Duration = Duration::from_secs(3_600);

/// What is on, and until when (since the pattern's begin).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    until_ms: u64,
    green: bool,
    red: bool,
    buzzer: bool,
}

const fn step(until_ms: u64, green: bool, red: bool, buzzer: bool) -> Step {
    Step { until_ms, green, red, buzzer }
}

const STORED: &[Step] = &[step(90, true, false, true), step(800, true, false, false)];
const REFUSED: &[Step] = &[
    step(200, false, true, true),
    step(300, false, true, false),
    step(500, false, true, true),
    step(600, false, true, false),
    step(800, false, true, true),
    step(1_500, false, true, false),
];
const TROUBLE: &[Step] = &[step(500, false, true, false), step(1_000, false, false, false)];

/// The outputs that are wired.
#[derive(Default)]
pub struct Pins {
    pub green: Option<Output>,
    pub red: Option<Output>,
    pub buzzer: Option<Output>,
}

impl Pins {
    fn set(&mut self, step: Step) {
        for (pin, on) in
            [(&mut self.green, step.green), (&mut self.red, step.red), (&mut self.buzzer, step.buzzer)]
        {
            if let Some(pin) = pin {
                pin(on);
            }
        }
    }
}

/// Plays on a thread of its own, so that showing takes no time.
#[derive(Debug)]
pub struct Lights(SyncSender<Light>);

impl Lights {
    /// Runs as long as somebody can show something.
    pub fn start(mut pins: Pins) -> std::io::Result<Self> {
        let (shown, lights) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new().name("lights".to_owned()).spawn(move || {
            let mut score = Score::default();
            loop {
                let (step, wait) = score.at(Instant::now());
                pins.set(step);
                match lights.recv_timeout(wait) {
                    Ok(light) => score.show(light, Instant::now()),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            pins.set(step(0, false, false, false));
        })?;
        Ok(Self(shown))
    }
}

impl Signal for Lights {
    fn show(&self, light: Light) {
        // Full: the officer is being told plenty already.
        let _ = self.0.try_send(light);
    }
}

/// What is being played.
#[derive(Debug, Default)]
struct Score {
    playing: Option<(&'static [Step], Instant)>,
    trouble: Option<Instant>,
}

impl Score {
    fn show(&mut self, light: Light, now: Instant) {
        match light {
            Light::Green => self.playing = Some((STORED, now)),
            Light::Red => self.playing = Some((REFUSED, now)),
            Light::Trouble => self.trouble = self.trouble.or(Some(now)),
            Light::Working => self.trouble = None,
        }
    }

    /// What is on now, and how long it stays so.
    fn at(&mut self, now: Instant) -> (Step, Duration) {
        if let Some((pattern, begun)) = self.playing {
            match playing(pattern, now.saturating_duration_since(begun)) {
                Some(found) => return found,
                None => self.playing = None,
            }
        }
        let round = Duration::from_millis(TROUBLE.last().map_or(1, |last| last.until_ms));
        let trouble = self.trouble.and_then(|since| {
            let into = now.saturating_duration_since(since).as_millis() % round.as_millis();
            playing(TROUBLE, Duration::from_millis(u64::try_from(into).unwrap_or(0)))
        });
        trouble.unwrap_or((step(0, false, false, false), FOREVER))
    }
}

fn playing(pattern: &[Step], into: Duration) -> Option<(Step, Duration)> {
    let step = pattern.iter().find(|step| into < Duration::from_millis(step.until_ms))?;
    Some((*step, Duration::from_millis(step.until_ms) - into))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(score: &mut Score, now: Instant) -> (bool, bool, bool) {
        let (step, _) = score.at(now);
        (step.green, step.red, step.buzzer)
    }

    #[test]
    fn stored_is_green_with_one_beep_and_refused_is_red_with_three() {
        for (light, pattern, beeps, colour) in
            [(Light::Green, STORED, 1, (true, false)), (Light::Red, REFUSED, 3, (false, true))]
        {
            let (mut score, begin) = (Score::default(), Instant::now());
            score.show(light, begin);
            let (mut at, mut heard, mut buzzing) = (begin, 0, false);
            while let Some((step, wait)) = score.playing.is_some().then(|| score.at(at)) {
                if score.playing.is_some() {
                    assert_eq!((step.green, step.red), colour);
                }
                heard += i32::from(step.buzzer && !buzzing);
                buzzing = step.buzzer;
                at += wait;
            }
            assert_eq!(heard, beeps);
            let length = Duration::from_millis(pattern.last().unwrap().until_ms);
            assert_eq!(played(&mut score, begin + length), (false, false, false));
        }
    }

    #[test]
    fn trouble_blinks_until_it_is_over_and_a_scan_shows_in_between() {
        let (mut score, begin) = (Score::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        score.show(Light::Trouble, begin);
        assert_eq!(played(&mut score, at(100)), (false, true, false));
        assert_eq!(played(&mut score, at(600)), (false, false, false));
        assert_eq!(played(&mut score, at(60_100)), (false, true, false));
        score.show(Light::Green, at(60_200));
        assert_eq!(played(&mut score, at(60_300)), (true, false, false));
        assert_eq!(played(&mut score, at(61_100)), (false, true, false));
        score.show(Light::Working, at(61_200));
        assert_eq!(score.at(at(61_200)), (step(0, false, false, false), FOREVER));
    }

    #[test]
    fn the_wired_pins_follow_and_everything_is_off_at_the_end() {
        let (changed, changes) = mpsc::channel();
        let green: Output = Box::new(move |on| {
            let _ = changed.send(on);
        });
        let lights = Lights::start(Pins { green: Some(green), ..Pins::default() }).unwrap();
        lights.show(Light::Green);
        while !changes.recv().unwrap() {}
        drop(lights);
        assert_eq!(changes.iter().last(), Some(false));
    }
}
