//! The Pi's own pins: the light, the buzzer, the reader's reset line.

use std::time::Duration;

/// Long enough for the PN532 to notice, and for it to start again.
const RESET_LOW: Duration = Duration::from_millis(10);
const RESET_START: Duration = Duration::from_millis(50);

/// A pin that cannot be had; names the setting that asked for it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{setting}: GPIO {pin} cannot be used: {problem}. It needs a Raspberry Pi and a user of the group gpio; \
     leave the setting out where nothing is wired"
)]
pub struct PinError {
    pub setting: &'static str,
    pub pin: u8,
    pub problem: String,
}

/// Sets one output; true is "on".
pub type Output = Box<dyn FnMut(bool) + Send>;

/// An output that is off until it is set, and off again when the program ends.
pub fn output(setting: &'static str, pin: u8, active_low: bool) -> Result<Output, PinError> {
    let mut output = own(setting, pin, active_low)?;
    Ok(Box::new(move |on| output.write(rppal::gpio::Level::from(on != active_low))))
}

/// Pulls a reset line low for a moment and waits until the chip has started.
pub fn reset_line(setting: &'static str, pin: u8) -> Result<Box<dyn FnMut() + Send>, PinError> {
    let mut line = own(setting, pin, true)?;
    // A chip that is held in reset while nobody runs would be a fault of our own making.
    line.set_reset_on_drop(false);
    Ok(Box::new(move || {
        line.set_low();
        std::thread::sleep(RESET_LOW);
        line.set_high();
        std::thread::sleep(RESET_START);
    }))
}

fn own(setting: &'static str, pin: u8, high: bool) -> Result<rppal::gpio::OutputPin, PinError> {
    let unusable = |error: rppal::gpio::Error| PinError { setting, pin, problem: error.to_string() };
    let pin = rppal::gpio::Gpio::new().map_err(unusable)?.get(pin).map_err(unusable)?;
    Ok(if high { pin.into_output_high() } else { pin.into_output_low() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_does_not_exist_is_named_with_its_setting() {
        // On a Pi there is no GPIO 200; elsewhere there is none at all.
        let Err(error) = output("signal.green_pin", 200, false) else { panic!("there is no such pin") };
        assert!(error.to_string().starts_with("signal.green_pin: GPIO 200 cannot be used"), "{error}");
    }
}
