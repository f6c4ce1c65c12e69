//! The first boot on media that forget: power is cut at every write, a seeded subset of what was not flushed is
//! lost, and the next boot must put it right.

use super::*;
use crate::fixture;
use std::io;

const SECTOR: usize = 512;
const IDENTITY: usize = 256 << 10;

/// A raw medium with a volatile cache of whole sectors.
#[derive(Clone)]
struct Medium {
    durable: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
}

impl Medium {
    fn new(size: usize) -> Medium {
        Medium { durable: vec![0; size], seen: vec![0; size] }
    }

    fn flush(&mut self) {
        self.durable = self.seen.clone();
    }

    fn cut(&mut self, random: &mut Random) {
        for (durable, seen) in self.durable.chunks_mut(SECTOR).zip(self.seen.chunks(SECTOR)) {
            if random.next().is_multiple_of(2) {
                durable.copy_from_slice(seen);
            }
        }
        self.seen = self.durable.clone();
    }
}

/// xorshift: a seed is one boot.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 20
    }
}

/// A machine whose power goes after `budget` writes or flushes. The file system on data is modelled as its head
/// plus one file; a file system is whole when its superblock is.
#[derive(Clone)]
struct Machine {
    identity: Medium,
    head: Medium,
    document: Option<Vec<u8>>,
    previous: Option<Vec<u8>>,
    mounted: bool,
    damaged: bool,
    budget: usize,
    spent: usize,
    /// What an ill medium does to a document that is stored.
    spoil: bool,
}

impl Machine {
    fn with(document: &MachineDocument) -> Machine {
        let mut identity = Medium::new(IDENTITY);
        let bytes = fixture::stored(document);
        identity.seen[..bytes.len()].copy_from_slice(&bytes);
        identity.flush();
        Machine {
            identity,
            head: Medium::new(ext4::HEAD),
            document: None,
            previous: None,
            mounted: false,
            damaged: false,
            budget: usize::MAX,
            spent: 0,
            spoil: false,
        }
    }

    fn spend(&mut self) -> Result<(), Refused> {
        if self.spent == self.budget {
            return Err(Refused { act: "go on", path: "/power".into(), source: io::Error::other("cut") });
        }
        self.spent += 1;
        Ok(())
    }

    fn cut(&mut self, seed: u64) {
        let mut random = Random(seed);
        self.identity.cut(&mut random);
        self.head.cut(&mut random);
        self.mounted = false;
        self.spent = 0;
        self.budget = usize::MAX;
    }

    fn holds_document(&self) -> bool {
        let good = |bytes: &[u8]| parse(bytes).is_ok();
        let header = &self.identity.durable[..BLOCK as usize];
        let in_identity = parse_identity_header(header)
            .is_ok_and(|(length, _)| good(&self.identity.durable[..BLOCK as usize + length as usize]));
        in_identity || self.document.as_deref().is_some_and(good)
    }
}

/// A superblock as far as [`ext4::parse`] looks, without checksums.
fn superblock(uuid: &Incarnation) -> [u8; ext4::HEAD] {
    let mut head = [0; ext4::HEAD];
    head[1024 + 4..1024 + 8].copy_from_slice(&16384u32.to_le_bytes());
    head[1024 + 0x18] = 2;
    head[1024 + 0x38..1024 + 0x3A].copy_from_slice(&0xEF53u16.to_le_bytes());
    head[1024 + 0x3A] = 1;
    head[1024 + 0x68..1024 + 0x78].copy_from_slice(uuid);
    head
}

impl Media for Machine {
    fn read_identity(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Refused> {
        Ok(self.identity.seen[offset as usize..offset as usize + length].to_vec())
    }
    fn write_identity(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        // Sector by sector, so that a cut falls inside a write too.
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            self.spend()?;
            let at = offset as usize + index * SECTOR;
            self.identity.seen[at..at + sector.len()].copy_from_slice(sector);
        }
        Ok(())
    }
    fn flush_identity(&mut self) -> Result<(), Refused> {
        self.spend()?;
        self.identity.flush();
        Ok(())
    }
    fn read_head(&mut self) -> Result<[u8; ext4::HEAD], Refused> {
        Ok(self.head.seen.clone().try_into().unwrap())
    }
    fn write_head(&mut self, block: &[u8; BLOCK as usize]) -> Result<(), Refused> {
        self.spend()?;
        self.head.seen.copy_from_slice(block);
        self.spend()?;
        self.head.flush();
        Ok(())
    }
    fn make(&mut self, uuid: &Incarnation) -> Result<(), Trouble> {
        assert!(!self.mounted, "mkfs under a mounted file system");
        self.spend()?;
        self.head.seen.fill(0);
        self.document = None;
        self.previous = None;
        self.spend()?;
        self.head.flush();
        self.spend()?;
        self.head.seen.copy_from_slice(&superblock(uuid));
        self.spend()?;
        self.head.flush();
        Ok(())
    }
    fn mount(&mut self, _: &ext4::Superblock) -> Result<(), String> {
        if self.damaged {
            return Err("bad".into());
        }
        self.mounted = true;
        Ok(())
    }
    fn read_document(&mut self) -> Result<Option<Vec<u8>>, Refused> {
        assert!(self.mounted);
        Ok(self.document.clone())
    }
    fn write_document(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        assert!(self.mounted);
        self.spend()?;
        self.previous = self.document.take();
        self.document = Some(bytes.to_vec());
        if self.spoil {
            self.document.as_mut().unwrap()[5000] ^= 1;
        }
        self.spend()
    }
}

fn boot(machine: &mut Machine) -> Result<Settled, Trouble> {
    settle(machine, || ())
}

fn assert_settled(machine: &mut Machine, expected: &MachineDocument, case: &str) {
    let settled = boot(machine).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(settled.document == *expected, "{case}");
    assert!(machine.mounted, "{case}");
    assert!(
        machine.identity.durable.iter().all(|byte| *byte == 0),
        "{case}: keys are left in the identity partition"
    );
    // And the next boot is an ordinary one that writes nothing.
    machine.cut(1);
    let again = boot(machine).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(again.document == *expected && again.repaired.is_empty(), "{case}");
    assert_eq!(machine.spent, 0, "{case}");
}

fn document() -> MachineDocument {
    let mut document = fixture::document();
    // Several blocks, so that the wipe has a middle.
    document.system.trusted_cas = vec!["x".repeat(10_000)];
    document
}

#[test]
fn a_fresh_card_boots_and_leaves_no_keys_behind() {
    assert_settled(&mut Machine::with(&document()), &document(), "fresh");
}

#[test]
fn every_cut_is_repaired_by_the_next_boot() {
    let mut whole = Machine::with(&document());
    boot(&mut whole).unwrap();
    assert!(whole.spent > 30, "{}", whole.spent);
    for budget in 0..whole.spent {
        for seed in 1..40 {
            let case = format!("cut after {budget} writes, seed {seed}");
            let mut machine = Machine::with(&document());
            machine.budget = budget;
            assert!(boot(&mut machine).is_err(), "{case}");
            machine.cut(seed * 0x9E37_79B9);
            assert!(machine.holds_document(), "{case}: the document is lost");
            // A second cut, in the repair.
            machine.budget = (seed as usize * 7) % whole.spent;
            let _ = boot(&mut machine);
            machine.cut(seed * 0x85EB_CA6B);
            assert!(machine.holds_document(), "{case}: the document is lost by the repair");
            assert_settled(&mut machine, &document(), &case);
        }
    }
}

#[test]
fn a_reused_card_is_left_alone_or_taken_over_as_the_document_says() {
    let mut old = document();
    old.machine.incarnation = "ee".repeat(16);
    let mut used = Machine::with(&old);
    boot(&mut used).unwrap();

    let reflashed = |document: &MachineDocument| {
        let mut machine = Machine::with(document);
        (machine.head, machine.document) = (used.head.clone(), used.document.clone());
        machine
    };
    let mut machine = reflashed(&document());
    assert!(matches!(boot(&mut machine), Err(Trouble::Decided(Reason::OtherIncarnation))));
    assert_eq!(machine.spent, 0);

    let mut keeping = document();
    keeping.machine.keep_data = true;
    let mut machine = reflashed(&keeping);
    assert_settled(&mut machine, &keeping, "taken over");
    assert_eq!(machine.previous, used.document);
}

#[test]
fn damage_is_reported_and_never_written_over() {
    let mut normal = Machine::with(&document());
    boot(&mut normal).unwrap();
    normal.cut(1);

    let refuses = |change: &dyn Fn(&mut Machine), expected: &str| {
        let mut machine = normal.clone();
        change(&mut machine);
        let said = boot(&mut machine).err().unwrap_or_else(|| panic!("{expected}: went on")).to_string();
        assert!(said.contains(expected), "{said}");
        assert_eq!(machine.spent, 0, "{expected}");
    };
    refuses(&|machine| machine.damaged = true, "damaged");
    refuses(&|machine| machine.head.seen.fill(0xAA), "not Bramble's");
    refuses(&|machine| machine.head.seen.fill(0), "is empty");
    refuses(&|machine| machine.document = None, "no machine document");
    refuses(&|machine| machine.document.as_mut().unwrap()[5000] ^= 1, "cannot be read");
    refuses(&|machine| machine.identity.seen[0] = 1, "something else");
}

#[test]
fn a_document_that_does_not_read_back_keeps_its_source() {
    let mut machine = Machine::with(&document());
    machine.spoil = true;
    assert!(matches!(boot(&mut machine), Err(Trouble::ReadBack("the machine document"))));
    assert!(machine.holds_document());
}
