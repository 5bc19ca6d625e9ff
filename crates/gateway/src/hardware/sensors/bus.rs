//! One thread for each bus, and the way to ask it for a sensor's values.
//!
//! What must stay true:
//! - Whoever asks waits for a limited time, even when the kernel does not come back from a transfer: a bus
//!   on which something holds the line stops nobody but its own sensors.
//! - Questions do not pile up: one that nobody waits for any more is not asked.

use super::{Sample, Sensor, SensorError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Longer than the slowest sensor takes, and a few that stand in line before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a sensor said.
pub type Answer = Result<Vec<Sample>, SensorError>;

/// Opens a sensor and sets it up.
pub type Opener = Box<dyn FnMut() -> Result<Box<dyn Sensor>, SensorError> + Send>;

struct Question {
    sensor: usize,
    reply: oneshot::Sender<Answer>,
}

/// A bus's thread. It ends when nobody can ask it any more.
#[derive(Debug, Clone)]
pub struct Bus {
    questions: mpsc::Sender<Question>,
}

/// The thread has ended, which only a panic can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread of a sensor bus has ended")]
pub struct BusEnded;

impl Bus {
    pub fn start(name: &str, sensors: Vec<Opener>) -> std::io::Result<Self> {
        let (questions, asked) = mpsc::channel(sensors.len().max(1));
        std::thread::Builder::new().name(format!("sensors {name}")).spawn(move || {
            let seats = sensors.into_iter().map(|opener| Seat { opener, sensor: None });
            answer(asked, seats.collect());
        })?;
        Ok(Self { questions })
    }

    /// Reads the sensor of that number, in the order they were given at the start.
    pub async fn read(&self, sensor: usize) -> Result<Answer, BusEnded> {
        let (reply, answer) = oneshot::channel();
        match self.questions.try_send(Question { sensor, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Ok(Err(SensorError::Stuck)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(BusEnded),
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| BusEnded),
            Err(_) => Ok(Err(SensorError::Stuck)),
        }
    }
}

struct Seat {
    opener: Opener,
    sensor: Option<Box<dyn Sensor>>,
}

impl Seat {
    fn read(&mut self) -> Answer {
        let sensor = match &mut self.sensor {
            Some(sensor) => sensor,
            none => none.insert((self.opener)()?),
        };
        let answer = sensor.read();
        if answer.is_err() {
            // Set up anew the next time: it may have lost its power meanwhile.
            self.sensor = None;
        }
        answer
    }
}

fn answer(mut asked: mpsc::Receiver<Question>, mut seats: Vec<Seat>) {
    while let Some(Question { sensor, reply }) = asked.blocking_recv() {
        if reply.is_closed() {
            continue;
        }
        let Some(seat) = seats.get_mut(sensor) else { continue };
        // Whoever asked may have stopped waiting meanwhile.
        let _ = reply.send(seat.read());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, mpsc as std_mpsc};

    /// Gives what it is sent, and waits for it.
    struct Scripted(Arc<std::sync::Mutex<std_mpsc::Receiver<Answer>>>);

    impl Sensor for Scripted {
        fn read(&mut self) -> Answer {
            self.0.lock().unwrap().recv().unwrap_or(Err(SensorError::Absent))
        }
    }

    fn scripted() -> (std_mpsc::Sender<Answer>, Opener, Arc<AtomicUsize>) {
        let (script, answers) = std_mpsc::channel();
        let (answers, opened) = (Arc::new(std::sync::Mutex::new(answers)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&opened);
        let opener: Opener = Box::new(move || {
            counted.fetch_add(1, SeqCst);
            Ok(Box::new(Scripted(Arc::clone(&answers))))
        });
        (script, opener, opened)
    }

    #[tokio::test]
    async fn a_sensor_is_set_up_once_and_again_after_each_error() {
        let (script, opener, opened) = scripted();
        let bus = Bus::start("test", vec![opener]).unwrap();
        for (answer, openings) in
            [(Ok(vec![]), 1), (Ok(vec![]), 1), (Err(SensorError::Checksum), 1), (Ok(vec![]), 2)]
        {
            script.send(answer.clone()).unwrap();
            assert_eq!(bus.read(0).await, Ok(answer));
            assert_eq!(opened.load(SeqCst), openings);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_is_stuck_answers_all_the_same_and_its_questions_do_not_pile_up() {
        let (script, opener, _) = scripted();
        let bus = Bus::start("test", vec![opener]).unwrap();
        // The sensor's thread waits; the clock of whoever waits for it is moved by the runtime.
        for _ in 0..5 {
            assert_eq!(bus.read(0).await, Ok(Err(SensorError::Stuck)));
        }
        // One question was being asked and one was in line, but nobody waits for that one any more.
        tokio::time::resume();
        drop(script);
        let answer = loop {
            match bus.read(0).await.unwrap() {
                Err(SensorError::Stuck) => tokio::task::yield_now().await,
                other => break other,
            }
        };
        assert_eq!(answer, Err(SensorError::Absent));
    }

    #[tokio::test]
    async fn a_thread_that_panicked_is_noticed() {
        let opener: Opener = Box::new(|| panic!("as a test wants it"));
        let bus = Bus::start("test", vec![opener]).unwrap();
        assert_eq!(bus.read(0).await, Err(BusEnded));
        assert_eq!(bus.read(0).await, Err(BusEnded));
    }
}
