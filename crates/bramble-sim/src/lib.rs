//! A machine as a model, to be cut off at every write; and a house of them, to be planned for.
//!
//! The order of writes under test is the agent's own ([`bramble_upgrade::engine`]), and so are its states; the firmware
//! is `bramble-disk`'s model. Here are the rest of the machine and the cuts:
//!
//! - [`disk`]: a sparse disk, and what of its unflushed writes a cut leaves;
//! - [`site`]: a disk as `flash` leaves it, and releases to come, small but in the real layout;
//! - [`machine`]: disk and firmware as the engine wants them, every act recorded;
//! - [`start`]: what the machine starts: firmware's model, then what pid 1 would check;
//! - [`life`]: a machine that takes releases, good ones and bad ones, to the end;
//! - [`crash`]: every state that a cut may leave of a life, and what becomes of it.
//!
//! - [`house`]: machines, an API server, a clock and faults, for plans of the whole site.

pub mod crash;
pub mod disk;
pub mod house;
pub mod life;
pub mod machine;
pub mod site;
pub mod start;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end.max(1)
    }

    /// Random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.word().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}
