//! What Sensirion's sensors share: commands of their own length, answers in words with a checksum each.

use super::SensorError;
use embedded_hal::i2c::I2c;

const POLYNOMIAL: u8 = 0x31;

/// The checksum of a word.
pub(super) fn crc(word: [u8; 2]) -> u8 {
    word.iter().fold(0xFF, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL })
    })
}

/// Reads words, and takes none if one of them is damaged.
pub(super) fn words<B: I2c, const N: usize>(bus: &mut B, address: u8) -> Result<[u16; N], SensorError> {
    let mut answer = [[0; 3]; N];
    bus.read(address, answer.as_flattened_mut()).map_err(SensorError::of)?;
    let mut words = [0; N];
    for (word, [high, low, sum]) in words.iter_mut().zip(answer) {
        if crc([high, low]) != sum {
            return Err(SensorError::Checksum);
        }
        *word = u16::from_be_bytes([high, low]);
    }
    Ok(words)
}

/// A word as a share of its whole range.
pub(super) fn share(word: u16) -> f64 {
    f64::from(word) / 65_535.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_data_sheets() {
        assert_eq!(crc([0xBE, 0xEF]), 0x92);
        assert_eq!(crc([0x00, 0x00]), 0x81);
    }
}
