//! Writes a confirmed disk and reads it back.
//!
//! The order, each line durable before the next:
//! 1. the head is zeroed but for the card's record, which says *writing*, and so is the second partition table;
//! 2. the body is written;
//! 3. the body is read back, past every cache, and compared by SHA-256, and so is what step 1 wrote: a counterfeit
//!    that keeps two places in one has lost it by now;
//! 4. the end of the disk, with the second table, is written and read back;
//! 5. the head, with the record that says *done*, is written and read back.
//!
//! The invariant: **no firmware ever finds a table that leads to something unfinished**. Until the head is zeroed the
//! disk is the old one, less its second table; from then on no table is there until everything that it leads to was
//! read back. A cut after step 1 leaves a disk that clearly does not start, that says whose it is, and that the next
//! run takes up where this one ended.
//!
//! Every write is preceded by a look at the open descriptor: is this still the medium that was confirmed?

use super::choose::Eyes;
use super::content::{Content, Pieces, TAIL};
use super::guard::{Confirmed, How, Request};
use super::journal::{Journal, Journals};
use super::reason::Refusal;
use crate::card::{self, Card, State};
use crate::device::{Device, Site, Target};
use bramble_effects::Cancel;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Pieces that are made ready while one is written.
const AHEAD: usize = 3;
/// Between two looks for a disk that was pulled.
const LOOK: Duration = Duration::from_millis(500);
/// How long a disk that fails may take to be seen gone: a pulled reader fails first and vanishes later.
const VANISH: u32 = 8;
/// How often a disk is tried that somebody else has open: a desktop looks at it for a moment.
const BUSY: u32 = 20;
/// Bytes given to one discard, so that a large disk can be interrupted.
const DISCARD: u64 = 1 << 30;
/// Bytes of the second partition table of GPT: 32 sectors of entries and the header.
const SECOND_TABLE: u64 = 33 * 512;
/// How often a disk may be pulled: one that comes and goes without end has a bad cable.
const PULLED: u32 = 100;

/// One disk to write.
pub struct Job<'a> {
    /// Which disk.
    pub confirmed: Confirmed,
    /// What goes onto it.
    pub content: &'a dyn Content,
    /// Its record; the state is set here.
    pub card: Card,
    /// Where broken runs are remembered.
    pub journals: &'a Journals,
    /// How long to wait for a disk that was pulled.
    pub patience: Duration,
}

/// What is done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Telling the disk that nothing on it is needed.
    Discard,
    /// Writing.
    Write,
    /// Reading back.
    Verify,
}

/// What is told while a disk is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// How far it is.
    Progress {
        /// What is done.
        phase: Phase,
        /// Bytes done of this phase.
        done: u64,
        /// Bytes of this phase.
        total: u64,
        /// Bytes a second.
        rate: u64,
        /// Seconds left of this phase.
        left: u64,
    },
    /// Something a person wants to know.
    Note(String),
    /// Something that is not as it should be, though it goes on.
    Warning(String),
    /// Everything was written and read back but the head, which is written now: from here on the disk may start a
    /// machine, also when writing the head fails.
    Finishing,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Bytes written.
    pub written: u64,
    /// Bytes of an earlier run that were found in order and left.
    pub kept: u64,
    /// Bytes read back and compared.
    pub verified: u64,
    /// How long writing took.
    pub writing: Duration,
    /// How long reading back took.
    pub verifying: Duration,
    /// How often the disk was pulled and put back.
    pub pulled: u32,
}

/// Why a disk was not finished. It does not start, and the next run goes on, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// It is not the confirmed disk, or no longer may be written. This run wrote nothing more.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Somebody else has it open.
    #[error("{name} is in use by another program")]
    Busy {
        /// Its name.
        name: String,
    },
    /// Not allowed.
    #[error("no permission to write {name}")]
    Permission {
        /// Its name.
        name: String,
    },
    /// The disk failed.
    #[error("cannot {act} {name} at byte {offset}")]
    Io {
        /// `write`, `read back`.
        act: &'static str,
        /// Its name.
        name: String,
        /// Where.
        offset: u64,
        /// What the kernel says.
        source: io::Error,
    },
    /// It gives back other bytes than it was given.
    #[error("{name} gives back other bytes than were written, at bytes {start} to {end}, twice")]
    Lies {
        /// Its name.
        name: String,
        /// First byte.
        start: u64,
        /// First byte after.
        end: u64,
    },
    /// It was pulled and not put back.
    #[error("{name} was pulled and did not come back")]
    Gone {
        /// Its name.
        name: String,
    },
    /// What is to be written cannot be read.
    #[error("cannot read what is to be written")]
    Content(#[source] io::Error),
    /// The disk's layout was made for another size.
    #[error("the layout is for {wants} bytes and {name} has {has}")]
    Layout {
        /// Its name.
        name: String,
        /// Bytes of the layout.
        wants: u64,
        /// Bytes of the disk.
        has: u64,
    },
    /// A person stopped it.
    #[error("interrupted; the same command goes on")]
    Interrupted,
}

/// Why an attempt ended.
enum Broken {
    /// The disk is not there any more.
    Lost,
    Error(FlashError),
}

impl From<FlashError> for Broken {
    fn from(error: FlashError) -> Self {
        Broken::Error(error)
    }
}

/// Writes the disk and reads it back. Returns when both were done.
///
/// # Errors
/// Why it was not finished.
pub fn flash(
    site: &dyn Site,
    request: &Request,
    job: &Job<'_>,
    cancel: &Cancel,
    tell: &(dyn Fn(Told) + Sync),
) -> Result<Report, FlashError> {
    let size = job.confirmed.identity().size;
    let name = job.confirmed.identity().name.clone();
    if job.content.size() != size {
        return Err(FlashError::Layout { name, wants: job.content.size(), has: size });
    }
    let mut run = Run {
        site,
        request,
        job,
        cancel,
        tell,
        pieces: Pieces::of(job.content),
        journal: None,
        sums: HashMap::new(),
        report: Report::default(),
        touched: false,
        marked: false,
    };
    let mut confirmed = job.confirmed.clone();
    loop {
        match run.attempt(&confirmed) {
            Ok(()) => break,
            Err(Broken::Error(error)) => return Err(error),
            Err(Broken::Lost) if run.marked && run.report.pulled < PULLED => {
                run.report.pulled += 1;
                confirmed = run.put_back(&confirmed)?;
            }
            Err(Broken::Lost) if run.touched => return Err(FlashError::Gone { name }),
            Err(Broken::Lost) => return Err(Refusal::Gone { name }.into()),
        }
    }
    if let Some(journal) = &mut run.journal {
        journal.clear();
    }
    Ok(run.report)
}

/// One disk's way through all attempts.
struct Run<'a> {
    site: &'a dyn Site,
    request: &'a Request,
    job: &'a Job<'a>,
    cancel: &'a Cancel,
    tell: &'a (dyn Fn(Told) + Sync),
    pieces: Pieces,
    journal: Option<Journal>,
    /// SHA-256 of each piece, by its start, once it was made.
    sums: HashMap<u64, [u8; 32]>,
    report: Report,
    /// Something was written.
    touched: bool,
    /// The record was written: the disk can be known again.
    marked: bool,
}

/// A held disk that is the confirmed one.
struct Held<'a> {
    target: Box<dyn Target>,
    confirmed: &'a Confirmed,
}

impl Held<'_> {
    /// Whether this is still the confirmed medium. Asked before every batch.
    fn same(&mut self) -> Result<(), Broken> {
        match self.target.facts() {
            Ok(facts) if self.confirmed.identity().is(&facts) => Ok(()),
            // Another medium answers, or none.
            Ok(_) | Err(_) => Err(Broken::Lost),
        }
    }
}

impl Run<'_> {
    fn attempt(&mut self, confirmed: &Confirmed) -> Result<(), Broken> {
        let mut held = self.hold(confirmed)?;
        if let Some(note) = held.target.note() {
            (self.tell)(Told::Note(note));
        }
        let resuming = confirmed.how() == How::PutBack
            || confirmed.card().is_some_and(|c| c.id == self.job.card.id && c.state == State::Writing);
        self.open_journal(resuming);
        self.begin(&mut held)?;
        if !resuming && !self.request.keep_data {
            self.discard(&mut held)?;
        }
        let body = self.pieces.body.clone();
        self.write(&mut held, &body)?;
        self.verify(&mut held, &body)?;
        self.begun(&mut held)?;
        let tail = self.pieces.tail.clone();
        self.write(&mut held, &tail)?;
        self.verify(&mut held, &tail)?;
        self.finish(&mut held)
    }

    /// Opens the disk and makes sure that the descriptor, the kernel's tables and what lies on the disk all say that
    /// it is the confirmed one.
    fn hold<'c>(&self, confirmed: &'c Confirmed) -> Result<Held<'c>, Broken> {
        let identity = confirmed.identity();
        let name = || identity.name.clone();
        let mut tries = 0;
        let target = loop {
            match self.site.open(&identity.name) {
                Ok(target) => break target,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Broken::Lost),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(FlashError::Permission { name: name() }.into());
                }
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    tries += 1;
                    if tries == BUSY {
                        return Err(FlashError::Busy { name: name() }.into());
                    }
                    if self.cancel.is_cancelled() {
                        return Err(FlashError::Interrupted.into());
                    }
                    self.site.pause(LOOK / 2);
                }
                Err(source) => {
                    self.gone(identity.name.as_str(), confirmed)?;
                    return Err(FlashError::Io { act: "open", name: name(), offset: 0, source }.into());
                }
            }
        };
        let mut held = Held { target, confirmed };
        let changed = |what: &str| -> Broken {
            // Once this run has written, its disk is known by the record: it is waited for.
            if self.marked {
                return Broken::Lost;
            }
            FlashError::Refused(Refusal::Changed { name: name(), what: what.to_string() }).into()
        };
        held.same().map_err(|_| changed("another medium answers"))?;
        let devices = Eyes::new(self.site).devices(self.request).map_err(|_| Broken::Lost)?;
        let Some(device) = devices.iter().find(|d| d.name == identity.name) else { return Err(Broken::Lost) };
        if let Some(what) = identity.differs(device, true) {
            return Err(changed(&what));
        }
        held.same().map_err(|_| changed("another medium answers"))?;
        Ok(held)
    }

    fn open_journal(&mut self, resuming: bool) {
        if self.journal.is_some() {
            return;
        }
        match self.job.journals.open(self.job.card.id) {
            Ok(mut journal) => {
                if !resuming {
                    // The card holds something else now than when the journal ended.
                    journal.clear();
                    self.journal = self.job.journals.open(self.job.card.id).ok();
                } else {
                    self.journal = Some(journal);
                }
            }
            Err(e) => (self.tell)(Told::Warning(format!(
                "cannot remember how far it is ({e}): after an interruption all is written anew"
            ))),
        }
    }

    fn card(&self, state: State) -> Vec<u8> {
        Card { state, size: self.job.content.size(), ..self.job.card.clone() }.encode()
    }

    /// The head while the body is written.
    fn first_head(&self) -> Vec<u8> {
        let mut head = vec![0; (self.pieces.head.end - self.pieces.head.start) as usize];
        let record = card::OFFSET as usize..(card::OFFSET + card::SIZE) as usize;
        head[record].copy_from_slice(&self.card(State::Writing));
        head
    }

    fn second_table(&self) -> Range<u64> {
        let end = self.job.content.size() / 512 * 512;
        end - SECOND_TABLE..end
    }

    /// Takes away what could start, and says whose disk this is to be.
    fn begin(&mut self, held: &mut Held<'_>) -> Result<(), Broken> {
        // The second table first: were it left when the first is gone, firmware might start from it.
        self.put(held, self.second_table().start, &[0; SECOND_TABLE as usize])?;
        self.put(held, 0, &self.first_head())?;
        self.sync(held)?;
        self.marked = true;
        Ok(())
    }

    /// Whether what [`Run::begin`] wrote is still there. Writing the body must not have changed it, or writing the
    /// head would change the body.
    fn begun(&mut self, held: &mut Held<'_>) -> Result<(), Broken> {
        let zeros = vec![0; SECOND_TABLE as usize];
        for (range, wanted) in [(self.pieces.head.clone(), self.first_head()), (self.second_table(), zeros)] {
            let found = self.reads(held, &range, &mut Buffer::default())?;
            if found[..] != Sha256::digest(&wanted)[..] {
                let name = held.confirmed.identity().name.clone();
                return Err(FlashError::Lies { name, start: range.start, end: range.end }.into());
            }
        }
        Ok(())
    }

    /// A discard makes cards faster and promises nothing: whatever must be zero is written.
    fn discard(&mut self, held: &mut Held<'_>) -> Result<(), Broken> {
        if held.confirmed.device().discard_max == 0 {
            return Ok(());
        }
        // Not the tail: what was zeroed there might come back.
        let to = self.job.content.size().saturating_sub(TAIL) / 4096 * 4096;
        let (from, to) = (self.pieces.head.end, to);
        let mut at = from;
        while at < to {
            self.stop()?;
            held.same()?;
            let end = to.min(at + DISCARD);
            if held.target.discard(at..end).is_err() {
                // Many readers say that they can and cannot.
                (self.tell)(Told::Note("the disk takes no discard; it is written all the same".to_string()));
                return Ok(());
            }
            at = end;
            let (done, total) = (at - from, to - from);
            (self.tell)(Told::Progress { phase: Phase::Discard, done, total, rate: 0, left: 0 });
        }
        Ok(())
    }

    fn stop(&self) -> Result<(), Broken> {
        if self.cancel.is_cancelled() { Err(FlashError::Interrupted.into()) } else { Ok(()) }
    }

    /// Writes bytes to the disk, if it is still the confirmed one. The only call of [`Target::write`].
    fn put(&mut self, held: &mut Held<'_>, offset: u64, bytes: &[u8]) -> Result<(), Broken> {
        held.same()?;
        self.touched = true;
        held.target.write(offset, bytes).map_err(|e| self.failed("write", held.confirmed, offset, e))
    }

    fn sync(&self, held: &mut Held<'_>) -> Result<(), Broken> {
        held.target.sync().map_err(|e| self.failed("write", held.confirmed, 0, e))
    }

    /// Whether an error means that the disk was pulled.
    fn failed(&self, act: &'static str, confirmed: &Confirmed, offset: u64, source: io::Error) -> Broken {
        let name = confirmed.identity().name.clone();
        match self.gone(&name, confirmed) {
            Err(lost) => lost,
            Ok(()) => FlashError::Io { act, name, offset, source }.into(),
        }
    }

    fn gone(&self, name: &str, confirmed: &Confirmed) -> Result<(), Broken> {
        for _ in 0..VANISH {
            let devices: Vec<Device> = self.site.devices().unwrap_or_default();
            match devices.iter().find(|d| d.name == name) {
                Some(device) if confirmed.identity().differs(device, false).is_none() => {}
                _ => return Err(Broken::Lost),
            }
            self.site.pause(LOOK / 2);
        }
        Ok(())
    }

    /// Writes pieces. What an earlier attempt wrote is read back and left when it is right.
    fn write(&mut self, held: &mut Held<'_>, pieces: &[Range<u64>]) -> Result<(), Broken> {
        let total = pieces.iter().map(|p| p.end - p.start).sum();
        let mut pace = Pace::new(self.site, Phase::Write, total);
        let content = self.job.content;
        let stop = AtomicBool::new(false);
        // One thread reads and hashes while the other writes, else the disk would wait for each piece.
        let result = std::thread::scope(|scope| {
            let (full_in, full) = sync_channel(AHEAD);
            let (empty, empty_out) = sync_channel(AHEAD + 2);
            for _ in 0..AHEAD {
                let _ = empty.send(Buffer::default());
            }
            let stop = &stop;
            scope.spawn(move || produce(content, pieces, &empty_out, &full_in, stop));
            let result = self.write_made(held, &full, &empty, &mut pace);
            stop.store(true, Ordering::SeqCst);
            // The thread may wait to hand over a piece.
            drop(full);
            drop(empty);
            result
        });
        self.report.writing += pace.spent();
        result?;
        self.sync(held)
    }

    fn write_made(
        &mut self,
        held: &mut Held<'_>,
        full: &Receiver<Made>,
        empty: &SyncSender<Buffer>,
        pace: &mut Pace<'_>,
    ) -> Result<(), Broken> {
        while let Ok(made) = full.recv() {
            self.stop()?;
            let Piece { range, sha256, buffer } = made.map_err(FlashError::Content)?;
            let length = range.end - range.start;
            self.sums.insert(range.start, sha256);
            let known = self.journal.as_ref().is_some_and(|j| j.has(&range, &sha256));
            let kept = known && self.reads(held, &range, &mut Buffer::default())? == sha256;
            if kept {
                self.report.kept += length;
            } else {
                self.put(held, range.start, buffer.bytes(length))?;
                self.report.written += length;
                if let Some(journal) = &mut self.journal
                    && journal.add(&range, sha256).is_err()
                {
                    self.journal = None;
                    let text = "cannot remember how far it is: after an interruption all is written anew";
                    (self.tell)(Told::Warning(text.to_string()));
                }
            }
            (self.tell)(pace.step(length, kept));
            let _ = empty.send(buffer);
        }
        Ok(())
    }

    fn reads(
        &self,
        held: &mut Held<'_>,
        range: &Range<u64>,
        buffer: &mut Buffer,
    ) -> Result<[u8; 32], Broken> {
        held.same()?;
        let bytes = buffer.get(range.end - range.start);
        held.target
            .read(range.start, bytes)
            .map_err(|e| self.failed("read back", held.confirmed, range.start, e))?;
        Ok(Sha256::digest(&*bytes).into())
    }

    /// Reads pieces back and compares them. A piece that is wrong is written once more; a disk that gives back
    /// something else again is not to be trusted with anything.
    fn verify(&mut self, held: &mut Held<'_>, pieces: &[Range<u64>]) -> Result<(), Broken> {
        held.target.forget().map_err(|e| self.failed("read back", held.confirmed, 0, e))?;
        let total = pieces.iter().map(|p| p.end - p.start).sum();
        let mut pace = Pace::new(self.site, Phase::Verify, total);
        let mut buffer = Buffer::default();
        let mut again = Vec::new();
        for piece in pieces {
            self.stop()?;
            let found = self.reads(held, piece, &mut buffer)?;
            if Some(&found) != self.sums.get(&piece.start) {
                again.push(piece.clone());
            }
            self.report.verified += piece.end - piece.start;
            (self.tell)(pace.step(piece.end - piece.start, false));
        }
        self.report.verifying += pace.spent();
        for piece in &again {
            let text = format!("bytes {} to {} read back wrong; written once more", piece.start, piece.end);
            (self.tell)(Told::Warning(text));
            let bytes = buffer.get(piece.end - piece.start);
            self.job.content.read(piece.start, bytes).map_err(FlashError::Content)?;
            self.put(held, piece.start, buffer.bytes(piece.end - piece.start))?;
        }
        if again.is_empty() {
            return Ok(());
        }
        self.sync(held)?;
        held.target.forget().map_err(|e| self.failed("read back", held.confirmed, 0, e))?;
        // All of them, not only those that were wrong: mending one place may have broken another.
        for piece in pieces {
            self.stop()?;
            let found = self.reads(held, piece, &mut buffer)?;
            if Some(&found) != self.sums.get(&piece.start) {
                let name = held.confirmed.identity().name.clone();
                return Err(FlashError::Lies { name, start: piece.start, end: piece.end }.into());
            }
        }
        Ok(())
    }

    /// The head, last of all: from here on the disk starts.
    fn finish(&mut self, held: &mut Held<'_>) -> Result<(), Broken> {
        self.stop()?;
        let head = self.pieces.head.clone();
        let mut bytes = vec![0; (head.end - head.start) as usize];
        self.job.content.read(0, &mut bytes).map_err(FlashError::Content)?;
        let record = card::OFFSET as usize..(card::OFFSET + card::SIZE) as usize;
        bytes[record].copy_from_slice(&self.card(State::Done));
        self.sums.insert(head.start, Sha256::digest(&bytes).into());
        (self.tell)(Told::Finishing);
        for attempt in 0..2 {
            self.put(held, 0, &bytes)?;
            self.sync(held)?;
            held.target.forget().map_err(|e| self.failed("read back", held.confirmed, 0, e))?;
            let found = self.reads(held, &head, &mut Buffer::default())?;
            if Some(&found) == self.sums.get(&head.start) {
                self.report.written += head.end;
                self.report.verified += head.end;
                return Ok(());
            }
            if attempt == 0 {
                (self.tell)(Told::Warning("the head reads back wrong; written once more".to_string()));
            }
        }
        let name = held.confirmed.identity().name.clone();
        Err(FlashError::Lies { name, start: head.start, end: head.end }.into())
    }

    /// Waits for the disk that was pulled, known by the record on it.
    fn put_back(&self, lost: &Confirmed) -> Result<Confirmed, FlashError> {
        let name = lost.identity().name.clone();
        let text = format!("{name} was pulled: put it back and it goes on, or press Ctrl-C");
        (self.tell)(Told::Warning(text));
        let until = self.site.elapsed() + self.job.patience;
        while self.site.elapsed() < until {
            if self.cancel.is_cancelled() {
                return Err(FlashError::Interrupted);
            }
            self.site.pause(LOOK);
            let Ok(devices) = Eyes::new(self.site).devices(self.request) else { continue };
            if let Some(found) = lost.put_back(self.job.card.id, &devices, self.request) {
                (self.tell)(Told::Note(format!("it is back, as {}", found.identity().name)));
                return Ok(found);
            }
        }
        Err(FlashError::Gone { name })
    }
}

/// A piece that is ready to be written.
struct Piece {
    range: Range<u64>,
    sha256: [u8; 32],
    buffer: Buffer,
}

type Made = io::Result<Piece>;

fn produce(
    content: &dyn Content,
    pieces: &[Range<u64>],
    empty: &Receiver<Buffer>,
    full: &SyncSender<Made>,
    stop: &AtomicBool,
) {
    for range in pieces {
        let Ok(mut buffer) = empty.recv() else { return };
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let bytes = buffer.get(range.end - range.start);
        let made = content.read(range.start, bytes).map(|()| Sha256::digest(&*bytes).into());
        let made = made.map(|sha256| Piece { range: range.clone(), sha256, buffer });
        let failed = made.is_err();
        if full.send(made).is_err() || failed {
            return;
        }
    }
}

/// Memory for one piece, at a place that O_DIRECT takes.
#[derive(Default)]
struct Buffer(Vec<u8>);

impl Buffer {
    const ALIGN: usize = 4096;

    fn start(&self) -> usize {
        self.0.as_ptr().align_offset(Self::ALIGN).min(Self::ALIGN)
    }

    fn get(&mut self, length: u64) -> &mut [u8] {
        let length = length as usize;
        if self.0.len() < length + Self::ALIGN {
            self.0 = vec![0; length + Self::ALIGN];
        }
        let start = self.start();
        &mut self.0[start..start + length]
    }

    fn bytes(&self, length: u64) -> &[u8] {
        let start = self.start();
        &self.0[start..start + length as usize]
    }
}

/// Speed and time left of one phase.
struct Pace<'a> {
    site: &'a dyn Site,
    phase: Phase,
    began: Duration,
    done: u64,
    moved: u64,
    total: u64,
}

impl<'a> Pace<'a> {
    fn new(site: &'a dyn Site, phase: Phase, total: u64) -> Pace<'a> {
        Pace { site, phase, began: site.elapsed(), done: 0, moved: 0, total }
    }

    fn spent(&self) -> Duration {
        self.site.elapsed().saturating_sub(self.began)
    }

    fn step(&mut self, bytes: u64, kept: bool) -> Told {
        self.done += bytes;
        // What was left as it is was faster than what is to come.
        self.moved += if kept { 0 } else { bytes };
        let millis = u64::try_from(self.spent().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = self.moved.saturating_mul(1000) / millis;
        let left = (self.total - self.done).checked_div(rate).unwrap_or(0);
        Told::Progress { phase: self.phase, done: self.done, total: self.total, rate, left }
    }
}
