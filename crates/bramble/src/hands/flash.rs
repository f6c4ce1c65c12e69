//! Performs the steps of `flash`; what must be built for them goes to the builder.

use crate::settings::Settings;
use bramble_api::event::{Event, Outcome, TransferPhase};
use bramble_api::plan::{CardStart, Step, StepKind};
use bramble_disk::card::{Card, CardId, State};
use bramble_disk::device::linux::Linux;
use bramble_disk::flash::choose::ChooseError;
use bramble_disk::flash::journal::Journals;
use bramble_disk::flash::{
    Confirmed, Content, FlashError, Job, KnownCard, Phase, Refusal, Report, Request, Told, flash,
};
use bramble_effects::{Context, Failure, Hand};
use bramble_exec::{Builder, NodeDisk};
use bramble_plan::NextCard;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A node and the disk that was confirmed for it.
#[derive(Clone, Debug)]
pub(crate) struct FlashTarget {
    /// The disk.
    pub(crate) confirmed: Confirmed,
    /// What was asked for.
    pub(crate) request: Request,
    /// How long to wait for it when it is pulled.
    pub(crate) patience: Duration,
}

/// Performs the steps of `flash`.
pub(super) struct FlashHand<'a> {
    builder: &'a Builder<'a>,
    site: Linux,
    targets: BTreeMap<String, FlashTarget>,
    journals: Journals,
    cards: PathBuf,
    /// Held while the list of cards is changed: disks are written side by side.
    keeping: Mutex<()>,
}

impl<'a> FlashHand<'a> {
    pub(super) fn new(builder: &'a Builder<'a>, settings: &Settings, targets: Vec<FlashTarget>) -> Self {
        let targets = targets.into_iter().map(|t| (t.request.node.clone(), t)).collect();
        FlashHand {
            builder,
            site: Linux::default(),
            targets,
            journals: Journals::new(&settings.project.state().join("flash")),
            cards: cards_file(settings),
            keeping: Mutex::new(()),
        }
    }
}

/// The list of cards that the project has flashed.
fn cards_file(settings: &Settings) -> PathBuf {
    settings.project.state().join("cards.json")
}

/// Cards that the project has flashed. A list that cannot be read is empty: then a person is asked.
pub(crate) fn cards(settings: &Settings) -> Vec<KnownCard> {
    read_cards(&cards_file(settings)).into_iter().map(|(id, node)| KnownCard { id, node }).collect()
}

fn read_cards(path: &Path) -> BTreeMap<CardId, String> {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// A node's disk as what is written.
struct Whole(NodeDisk);

impl Content for Whole {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.0.ranges()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }
}

impl Hand for FlashHand<'_> {
    fn perform(&self, step: &Step, context: &Context<'_>) -> Result<Outcome, Failure> {
        match &step.kind {
            StepKind::FlashDisk { node, start, .. } => self.flash(node, *start, context),
            _ => self.builder.perform(step, context),
        }
    }
}

impl FlashHand<'_> {
    fn flash(&self, node: &str, start: CardStart, context: &Context<'_>) -> Result<Outcome, Failure> {
        let Some(target) = self.targets.get(node) else {
            return Err(Failure::bug(format!("no disk was confirmed for {node}")));
        };
        let size = target.confirmed.identity().size;
        let vault = (self.builder.vault)()?;
        let now = self.builder.clock.now();
        // Another card than every one before, so that what an old card still holds is not mistaken for this one's;
        // but a card that was pulled in the middle, known by its record, is still the same one.
        let incarnation = vault.identity(node)?.incarnation;
        let goes_on = target
            .confirmed
            .card()
            .is_some_and(|c| c.state == State::Writing && c.node == node && c.incarnation == incarnation);
        let next = if goes_on && start != CardStart::Found { NextCard::GoesOn } else { next_card(start) };
        let keep_data = start == CardStart::KeepData;
        // Counted before it can start a machine.
        self.builder.begin_card(node, next)?;
        let disk = Whole(bramble_exec::node_disk(self.builder, node, size, keep_data, context)?);
        let card = Card {
            id: card_id(&target.confirmed)?,
            state: State::Writing,
            cluster: self.builder.cluster.metadata.name.to_string(),
            node: node.to_string(),
            incarnation: vault.identity(node)?.incarnation,
            size,
            written_at: now,
        };
        self.keep(card.id, node, context);
        let job = Job {
            confirmed: target.confirmed.clone(),
            content: &disk,
            card,
            journals: &self.journals,
            patience: target.patience,
        };
        let finishing = AtomicBool::new(false);
        let tell = |told| {
            if told == Told::Finishing {
                finishing.store(true, Ordering::Relaxed);
            }
            tell(context, told);
        };
        let report = flash(&self.site, &target.request, &job, context.cancel, &tell).map_err(|e| {
            // Nothing leads to what was written: this card starts no machine, and the next one takes its place.
            if !finishing.load(Ordering::Relaxed)
                && let Err(unkept) = self.builder.card_unfinished(node)
            {
                context.warn(format!("cannot take the card of {node} back in the lock: {}", unkept.what));
            }
            flash_failure(node, e)
        })?;
        context.note(said(node, &target.confirmed, &report));
        Ok(Outcome::Done)
    }

    /// Remembers whose card it is. Without that a person is asked the next time, so a full disk does not stop it.
    fn keep(&self, id: CardId, node: &str, context: &Context<'_>) {
        let _held = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cards = read_cards(&self.cards);
        if cards.insert(id, node.to_string()).as_deref() == Some(node) {
            return;
        }
        let text = serde_json::to_vec_pretty(&cards).unwrap_or_default();
        if let Err(e) = bramble_exec::replace(&self.cards, &text, 0o644) {
            context.warn(format!("cannot remember whose card this is: {e}"));
        }
    }
}

/// A card keeps its name; a new one gets one.
fn card_id(confirmed: &Confirmed) -> Result<CardId, Failure> {
    if let Some(card) = confirmed.card() {
        return Ok(card.id);
    }
    let random = bramble_secrets::random_bytes::<16>()
        .map_err(|e| Failure::bug("this computer gives no random numbers").source(e))?;
    Ok(CardId(*random.expose()))
}

fn tell(context: &Context<'_>, told: Told) {
    match told {
        Told::Progress { phase, done, total, rate, left } => context.sink.event(Event::Transfer {
            step: context.step.clone(),
            phase: match phase {
                Phase::Discard => TransferPhase::Discard,
                Phase::Write => TransferPhase::Write,
                Phase::Verify => TransferPhase::Verify,
            },
            done,
            total,
            bytes_per_second: rate,
            seconds_left: left,
        }),
        Told::Note(text) => context.note(text),
        Told::Warning(text) => context.warn(text),
        Told::Finishing => {}
    }
}

/// Which card follows a finished one.
pub(super) fn next_card(start: CardStart) -> NextCard {
    match start {
        CardStart::Empty | CardStart::KeepData => NextCard::Another,
        CardStart::Found => NextCard::Founds,
    }
}

fn said(node: &str, confirmed: &Confirmed, report: &Report) -> String {
    let speed = |bytes: u64, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64().max(0.001);
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    let kept = match report.kept {
        0 => String::new(),
        kept => format!(", {} MB were there already", mb(kept)),
    };
    format!(
        "{node} is on {}: {} MB written at {:.1} MB/s, {} MB read back at {:.1} MB/s{kept}",
        confirmed.identity().name,
        mb(report.written),
        speed(report.written, report.writing),
        mb(report.verified),
        speed(report.verified, report.verifying),
    )
}

fn refusal(refusal: Refusal) -> Failure {
    let hint = refusal.hint();
    Failure::user(refusal.to_string()).hint(hint)
}

/// Why no disk was confirmed, as the command's end.
pub(crate) fn choose_failure(error: ChooseError) -> Failure {
    match error {
        ChooseError::Refused(why) => refusal(why),
        ChooseError::Interrupted => Failure::interrupted(),
        ChooseError::List(source) => Failure::user("cannot list the disks of this computer")
            .source(source)
            .hint("`bramble flash` looks at disks on Linux, in /sys"),
    }
}

fn flash_failure(node: &str, error: FlashError) -> Failure {
    let what = format!("{node}: {error}");
    match error {
        FlashError::Refused(why) => {
            let hint = why.hint();
            Failure::user(what).hint(hint)
        }
        FlashError::Busy { .. } => Failure::retry(what)
            .hint("another program has it open, perhaps another flash: wait for it, then run this again"),
        FlashError::Permission { name } => {
            Failure::user(what).hint(format!("let yourself write it: sudo setfacl -m u:$USER:rw /dev/{name}"))
        }
        FlashError::Io { source, .. } => Failure::user(what)
            .source(source)
            .hint("try another reader or cable; if that fails too, the card is worn: use another. Running again goes on"),
        FlashError::Lies { .. } => Failure::user(what)
            .hint("the card is worn, or counterfeit and smaller than it says: use another; it will not start as it is"),
        FlashError::Gone { .. } => Failure::retry(what).hint("put it in and run the command again: it goes on"),
        FlashError::Content(source) => Failure::user(what)
            .source(source)
            .hint("`bramble build` makes the release again; then run this again"),
        FlashError::Layout { .. } => Failure::bug(what),
        FlashError::Interrupted => Failure::interrupted(),
    }
}
