//! Disk and firmware as the engine wants them; every act is recorded, so that it can be cut.

use crate::disk::{Disk, Sector, sectors};
use crate::site::Site;
use bramble_api::layout;
use bramble_api::names::Slot;
use bramble_disk::firmware::ReadAt;
use bramble_disk::firmware::systemd_boot::Variables;
use bramble_upgrade::engine::HEAD;
use bramble_upgrade::journal::COPY;
use bramble_upgrade::media::{Area, BootFlag, Media, Refusal, Scheme};
use std::cell::RefCell;
use std::rc::Rc;

/// What firmware keeps outside of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// EFI variables; they outlive a power cut.
    pub variables: Variables,
    /// A Pi's one-shot flag; it does not.
    pub tryboot: bool,
}

/// An act.
#[derive(Clone, Debug)]
pub enum Act {
    /// Sectors were written; not yet durable.
    Write(Vec<Sector>),
    /// All that was written is durable.
    Flush,
    /// The journal's record of this number is durable.
    Recorded(u64),
    /// The firmware's memory is now this.
    Flags(Box<Flags>),
    /// The machine restarted cleanly.
    Restart,
}

/// A deliberate mistake in the order of writes. Each must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Flushes of slots are forgotten.
    NoFlush,
    /// The other slot is not made unbootable before it is written.
    NotCondemned,
    /// The boot image is written from its head on.
    HeadFirst,
    /// The switch names the other slot when the trial is asked for.
    SwitchAtTrial,
    /// The journal has one copy.
    OneCopy,
    /// The journal hears of a trial only when it is over.
    LateJournal,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 6] = [
        Mistake::NoFlush,
        Mistake::NotCondemned,
        Mistake::HeadFirst,
        Mistake::SwitchAtTrial,
        Mistake::OneCopy,
        Mistake::LateJournal,
    ];
}

/// A machine under the engine.
pub struct Machine {
    /// What reads give: everything written, durable or not.
    pub disk: Disk,
    /// What firmware keeps.
    pub flags: Flags,
    /// What was done.
    pub acts: Vec<Act>,
    /// The mistake that is made.
    pub mistake: Option<Mistake>,
    /// The firmware forgets a request for a trial.
    pub deaf: bool,
    head: Option<Vec<u8>>,
}

/// A handle on the machine: as a disk and as a firmware.
#[derive(Clone)]
pub struct Handle<'s> {
    /// Where things lie.
    pub site: &'s Site,
    /// The machine.
    pub machine: Rc<RefCell<Machine>>,
}

impl<'s> Handle<'s> {
    /// A machine with this disk and these flags.
    pub fn new(site: &'s Site, disk: Disk, flags: Flags) -> Handle<'s> {
        let machine = Machine { disk, flags, acts: Vec::new(), mistake: None, deaf: false, head: None };
        Handle { site, machine: Rc::new(RefCell::new(machine)) }
    }

    /// With a mistake in it.
    pub fn with(self, mistake: Option<Mistake>) -> Handle<'s> {
        self.machine.borrow_mut().mistake = mistake;
        self
    }

    /// What a boot image that is about to be written begins with: for the mistake that writes it first.
    pub fn announce(&self, boot: &[u8]) {
        self.machine.borrow_mut().head = Some(boot[..HEAD as usize].to_vec());
    }

    /// A clean restart: everything becomes durable.
    pub fn restart(&self) {
        let mut machine = self.machine.borrow_mut();
        machine.acts.push(Act::Flush);
        machine.acts.push(Act::Restart);
    }

    /// Firmware has changed its memory at a start.
    pub fn set_flags(&self, flags: Flags) {
        let mut machine = self.machine.borrow_mut();
        if machine.flags != flags {
            machine.acts.push(Act::Flags(Box::new(flags.clone())));
            machine.flags = flags;
        }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        let mut machine = self.machine.borrow_mut();
        let written = sectors(offset, bytes);
        written.iter().cloned().for_each(|sector| machine.disk.put(sector));
        machine.acts.push(Act::Write(written));
    }

    fn mistake(&self) -> Option<Mistake> {
        self.machine.borrow().mistake
    }

    fn refuse(&self, act: &str, why: impl ToString) -> Refusal {
        Refusal { act: act.into(), why: why.to_string() }
    }
}

impl Media for Handle<'_> {
    fn scheme(&self) -> Scheme {
        self.site.scheme
    }

    fn size(&self, area: Area) -> u64 {
        self.site.place(area).1
    }

    fn read(&mut self, area: Area, offset: u64, out: &mut [u8]) -> Result<(), Refusal> {
        let (start, _) = self.site.place(area);
        let machine = self.machine.borrow();
        machine.disk.read_at(start + offset, out).map_err(|error| self.refuse("read", error))
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let (start, size) = self.site.place(area);
        if offset + bytes.len() as u64 > size
            || !offset.is_multiple_of(512)
            || !bytes.len().is_multiple_of(512)
        {
            return Err(self.refuse("write", "beyond the area, or no whole sectors"));
        }
        let zeros = bytes.iter().all(|byte| *byte == 0);
        let is_head = matches!(area, Area::Boot(_)) && offset == 0;
        match self.mistake() {
            Some(Mistake::NotCondemned) if is_head && zeros => return Ok(()),
            Some(Mistake::HeadFirst) if is_head && zeros => {
                self.put(start, bytes);
                self.machine.borrow_mut().acts.push(Act::Flush);
                let head = self.machine.borrow().head.clone();
                if let Some(head) = head {
                    self.put(start, &head);
                }
                return Ok(());
            }
            _ => {}
        }
        self.put(start + offset, bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        if self.mistake() != Some(Mistake::NoFlush) {
            self.machine.borrow_mut().acts.push(Act::Flush);
        }
        Ok(())
    }

    fn journal(&mut self, copy: usize) -> Vec<u8> {
        let mut bytes = vec![0; COPY];
        match self.machine.borrow().disk.read_at(self.site.journal(copy), &mut bytes) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    fn write_journal(&mut self, copy: usize, bytes: &[u8; COPY]) -> Result<(), Refusal> {
        let mut copy = copy;
        match self.mistake() {
            Some(Mistake::OneCopy) => copy = 0,
            Some(Mistake::LateJournal) if is_asking(bytes) => return Ok(()),
            _ => {}
        }
        self.put(self.site.journal(copy), bytes);
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[24..32]);
        let mut machine = self.machine.borrow_mut();
        // The journal lies in a file of its own: its fsync flushes the whole device.
        machine.acts.push(Act::Flush);
        machine.acts.push(Act::Recorded(u64::from_le_bytes(number)));
        Ok(())
    }
}

/// A record that a trial is asked for, and not yet judged.
fn is_asking(copy: &[u8]) -> bool {
    let text = String::from_utf8_lossy(copy);
    text.contains("\"phase\":\"trying\"") && !text.contains("\"verdict\"")
}

impl BootFlag for Handle<'_> {
    fn clear_overrides(&mut self) -> Result<Vec<String>, Refusal> {
        let mut flags = self.machine.borrow().flags.clone();
        let variables = &mut flags.variables;
        let taken = [
            ("LoaderEntryDefault", variables.default.take()),
            ("LoaderEntryPreferred", variables.preferred.take()),
            ("LoaderConfigTimeout", variables.timeout.take()),
        ];
        self.set_flags(flags);
        Ok(taken.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name.into()).collect())
    }

    fn ask(&mut self, slot: Slot) -> Result<(), Refusal> {
        if self.mistake() == Some(Mistake::SwitchAtTrial) {
            let sector = self.site.scheme.switch(slot);
            self.write(Area::Switch, 0, &sector)?;
            self.flush()?;
        }
        if self.machine.borrow().deaf {
            return Err(self.refuse("ask for a trial", "the firmware forgot at once"));
        }
        let mut flags = self.machine.borrow().flags.clone();
        match self.site.scheme {
            Scheme::Uefi => {
                let entry = layout::uki_path(slot).rsplit('/').next().unwrap_or_default();
                flags.variables.one_shot = Some(entry.into());
            }
            Scheme::Pi => flags.tryboot = true,
        }
        self.set_flags(flags);
        Ok(())
    }

    fn pending(&mut self) -> Result<bool, Refusal> {
        let machine = self.machine.borrow();
        Ok(machine.flags.tryboot || machine.flags.variables.one_shot.is_some())
    }

    fn withdraw(&mut self) -> Result<(), Refusal> {
        let mut flags = self.machine.borrow().flags.clone();
        flags.tryboot = false;
        flags.variables.one_shot = None;
        self.set_flags(flags);
        Ok(())
    }
}
