//! What the order of writes wants of disk and firmware. The agent answers with devices, the simulator with models.

use crate::journal::{COPIES, COPY};
use crate::state::Verdict;
use bramble_api::layout::{self, SECTOR};
use bramble_api::names::Slot;

/// How a machine's firmware is told which slot to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// systemd-boot: `loader.conf`, and the variable `LoaderEntryOneShot` for a trial.
    Uefi,
    /// A Raspberry Pi: `autoboot.txt`, and the tryboot flag for a trial.
    Pi,
}

impl Scheme {
    /// The one sector that names `slot`.
    pub fn switch(self, slot: Slot) -> [u8; SECTOR as usize] {
        match self {
            Scheme::Uefi => layout::loader_conf(slot),
            Scheme::Pi => layout::pi::autoboot_sector(slot),
        }
    }

    /// The slot that a sector names; `None` when it is not one that we wrote, whatever firmware makes of it.
    pub fn slot_of(self, sector: &[u8]) -> Option<Slot> {
        [Slot::A, Slot::B].into_iter().find(|slot| self.switch(*slot)[..] == *sector)
    }
}

/// A part of the disk that an update touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Area {
    /// A root slot: EROFS image, verity tree, and at its end the manifest.
    Root(Slot),
    /// What firmware loads of a slot: the extent of its UKI on the ESP, or its BOOT partition.
    Boot(Slot),
    /// The one sector that names the committed slot.
    Switch,
}

/// What the medium said no to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {act}: {why}")]
pub struct Refusal {
    /// What was being done, to what.
    pub act: String,
    /// Why not.
    pub why: String,
}

/// The disk. Writes may be held back and reordered by it until [`Media::flush`] returns.
pub trait Media {
    /// How firmware is told.
    fn scheme(&self) -> Scheme;
    /// Bytes of an area.
    fn size(&self, area: Area) -> u64;
    /// Fills `out` from the medium itself, past every cache of this machine.
    ///
    /// # Errors
    /// The medium's refusal.
    fn read(&mut self, area: Area, offset: u64, out: &mut [u8]) -> Result<(), Refusal>;
    /// Writes whole sectors.
    ///
    /// # Errors
    /// The medium's refusal.
    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), Refusal>;
    /// Everything written before is on the medium when it returns.
    ///
    /// # Errors
    /// The medium's refusal.
    fn flush(&mut self) -> Result<(), Refusal>;
    /// A copy of the journal; empty when it cannot be read.
    fn journal(&mut self, copy: usize) -> Vec<u8>;
    /// Writes a copy of the journal; it is on the medium when this returns.
    ///
    /// # Errors
    /// Data is full, read-only or gone.
    fn write_journal(&mut self, copy: usize, bytes: &[u8; COPY]) -> Result<(), Refusal>;

    /// Both copies of the journal.
    fn journals(&mut self) -> [Vec<u8>; COPIES] {
        std::array::from_fn(|copy| self.journal(copy))
    }
}

/// What firmware keeps outside of the disk.
pub trait BootFlag {
    /// Removes what would be stronger than the switch: variables that a person or a tool has set. Gives their names.
    ///
    /// # Errors
    /// The firmware's refusal.
    fn clear_overrides(&mut self) -> Result<Vec<String>, Refusal>;
    /// Asks for one start of `slot`, and reads back that the request stands.
    ///
    /// # Errors
    /// The firmware's refusal, or it forgot at once.
    fn ask(&mut self, slot: Slot) -> Result<(), Refusal>;
    /// Whether a request stands.
    ///
    /// # Errors
    /// The firmware's refusal.
    fn pending(&mut self) -> Result<bool, Refusal>;
    /// Takes a request back, if one stands.
    ///
    /// # Errors
    /// The firmware's refusal.
    fn withdraw(&mut self) -> Result<(), Refusal>;
}

/// Takes what a slot shall hold, each part from its beginning to its end.
pub trait Sink {
    /// The next blocks of the root image; its tree is made on the way.
    ///
    /// # Errors
    /// The medium's refusal, or more than the release has.
    fn root(&mut self, blocks: &[u8]) -> Result<(), Verdict>;
    /// The next blocks of what firmware loads; the last one is filled up with zeros.
    ///
    /// # Errors
    /// As above.
    fn boot(&mut self, blocks: &[u8]) -> Result<(), Verdict>;
}

/// Gives what a slot shall hold.
pub trait Content {
    /// Pours everything into the sink.
    ///
    /// # Errors
    /// Whether it is the source's fault or the release's, and what happened; or what the sink said.
    fn pour(&mut self, sink: &mut dyn Sink) -> Result<(), Verdict>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_read_back_and_garbage_is_none() {
        for scheme in [Scheme::Uefi, Scheme::Pi] {
            for slot in [Slot::A, Slot::B] {
                let sector = scheme.switch(slot);
                assert_eq!(scheme.slot_of(&sector), Some(slot));
                let mut torn = sector;
                torn[8] ^= 1;
                assert_eq!(scheme.slot_of(&torn), None);
            }
            assert_eq!(scheme.slot_of(&[0; 512]), None);
        }
    }
}
