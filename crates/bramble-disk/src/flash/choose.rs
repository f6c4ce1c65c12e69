//! From what a person asked for to a confirmed disk: lists, waits for a card, asks.

use super::guard::{self, Confirmed, Question, Request, Verdict};
use super::reason::Refusal;
use crate::device::{Contents, Device, Named, Number, Site};
use bramble_effects::Cancel;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Between two looks for a card that is put in. A person does not notice less.
const LOOK: Duration = Duration::from_millis(500);
/// Wrong answers before giving up.
const TRIES: usize = 3;

/// Whoever sits at the terminal.
pub trait Person {
    /// Tells something, one line.
    fn tell(&mut self, text: &str);
    /// Shows the disks that are there: those to choose from, and why not the others.
    fn show(&mut self, good: &[&Device], bad: &[(&Device, Refusal)]);
    /// Asks for the question's word; `None` at the end of input.
    fn ask(&mut self, question: &Question) -> Option<String>;
    /// A line that was typed within this time.
    fn typed(&mut self, within: Duration) -> Typed;
}

/// What came from the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing yet.
    Nothing,
    /// A line.
    Line(String),
    /// The terminal is gone.
    Closed,
}

/// Why no disk was confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// It may not be written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disks cannot be listed.
    #[error("cannot list the disks of this computer")]
    List(#[source] io::Error),
    /// A person stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// One medium in one place: another medium, or another place, is another key.
type Key = (String, Number, Option<u64>, u64);

fn key(device: &Device) -> Key {
    (device.name.clone(), device.number, device.sequence, device.size)
}

/// Lists disks and looks at those where it can matter, each medium once.
pub struct Eyes<'a> {
    site: &'a dyn Site,
    seen: BTreeMap<Key, Contents>,
}

impl<'a> Eyes<'a> {
    /// Of this computer.
    pub fn new(site: &'a dyn Site) -> Eyes<'a> {
        Eyes { site, seen: BTreeMap::new() }
    }

    /// Every disk, with what lies on those that could be written.
    ///
    /// # Errors
    /// When the disks cannot be listed.
    pub fn devices(&mut self, request: &Request) -> Result<Vec<Device>, ChooseError> {
        let mut devices = self.site.devices().map_err(ChooseError::List)?;
        for device in devices.iter_mut().filter(|d| guard::worth_looking(d, request)) {
            let key = key(device);
            let known = self.seen.get(&key).cloned().map(Ok);
            let seen = known.unwrap_or_else(|| self.site.look(device));
            if let Ok(contents) = &seen {
                self.seen.insert(key, contents.clone());
            }
            device.contents = Some(seen);
        }
        Ok(devices)
    }

    /// The same, looking again at every disk.
    ///
    /// # Errors
    /// When the disks cannot be listed.
    pub fn devices_anew(&mut self, request: &Request) -> Result<Vec<Device>, ChooseError> {
        self.seen.clear();
        self.devices(request)
    }
}

/// Finds the disk and has it confirmed. Without a person nothing is asked and nothing is waited for.
///
/// # Errors
/// Why no disk was confirmed; nothing was written.
pub fn choose(
    site: &dyn Site,
    request: &Request,
    person: Option<&mut dyn Person>,
    cancel: &Cancel,
) -> Result<Confirmed, ChooseError> {
    let mut eyes = Eyes::new(site);
    let devices = eyes.devices(request)?;
    let named = request.device.as_deref().map(|p| site.resolve(p));
    match (guard::judge(&devices, named.as_ref(), request)?, person) {
        (Verdict::Confirmed(confirmed), _) => Ok(*confirmed),
        (Verdict::Ask(question), Some(person)) => ask(&mut eyes, &question, request, person, cancel),
        (Verdict::Ask(question), None) => Err(not_confirmed(&question, request).into()),
        (Verdict::Wait(why), Some(person)) => wait(&mut eyes, &devices, &why, request, person, cancel),
        (Verdict::Wait(why), None) => Err(why.into()),
    }
}

fn not_confirmed(question: &Question, request: &Request) -> Refusal {
    let device = question.device();
    Refusal::NotConfirmed {
        name: device.name.clone(),
        node: request.node.clone(),
        token: guard::token(device),
    }
}

fn ask(
    eyes: &mut Eyes<'_>,
    question: &Question,
    request: &Request,
    person: &mut dyn Person,
    cancel: &Cancel,
) -> Result<Confirmed, ChooseError> {
    let mut tries = 0;
    loop {
        let Some(typed) = person.ask(question) else { return Err(not_confirmed(question, request).into()) };
        if cancel.is_cancelled() {
            return Err(ChooseError::Interrupted);
        }
        let now = eyes.devices_anew(request)?;
        match question.answer(&typed, &now, request) {
            Ok(confirmed) => return Ok(confirmed),
            Err(wrong @ Refusal::WrongAnswer { .. }) => {
                tries += 1;
                if tries == TRIES {
                    return Err(wrong.into());
                }
                person.tell(&format!("that is not {}", question.word.asks()));
            }
            Err(other) => return Err(other.into()),
        }
    }
}

/// Waits for a card that was not there before, or for a name to be typed.
fn wait(
    eyes: &mut Eyes<'_>,
    before: &[Device],
    why: &Refusal,
    request: &Request,
    person: &mut dyn Person,
    cancel: &Cancel,
) -> Result<Confirmed, ChooseError> {
    // A disk that lay there all the time is never taken because it is the only one: somebody's backup would be.
    let mut old: BTreeSet<Key> = before.iter().map(key).collect();
    let (good, bad) = guard::candidates(before, request);
    person.show(&good, &bad);
    person.tell(&format!("{why}; put the card of {} in now, or type the name of a disk", request.node));
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        if cancel.is_cancelled() {
            return Err(ChooseError::Interrupted);
        }
        let typed = person.typed(LOOK);
        let devices = eyes.devices(request)?;
        let mut asked = Vec::new();
        match typed {
            Typed::Closed => return Err(why.clone().into()),
            Typed::Line(line) if !line.trim().is_empty() => {
                let path = Path::new("/dev").join(line.trim());
                let named = eyes.site.resolve(&path);
                let request = Request { device: Some(path), ..request.clone() };
                asked.push(guard::judge(&devices, Some(&named), &request));
            }
            _ => {
                for device in devices.iter().filter(|d| d.size > 0 && !old.contains(&key(d))) {
                    let named = Named::Disk(device.name.clone());
                    let request = Request { device: Some(device.path()), ..request.clone() };
                    asked.push(guard::judge(&devices, Some(&named), &request));
                }
            }
        }
        let mut questions = Vec::new();
        for verdict in asked {
            match verdict {
                Ok(Verdict::Confirmed(confirmed)) => return Ok(*confirmed),
                Ok(Verdict::Ask(question)) => questions.push(*question),
                Ok(Verdict::Wait(why)) | Err(why) => {
                    let text = format!("{why}; {}", why.hint());
                    if told.insert(text.clone()) {
                        person.tell(&text);
                    }
                }
            }
        }
        match &questions[..] {
            [] => {}
            [question] => match ask(eyes, question, request, person, cancel) {
                // It was pulled while the question stood there: wait on.
                Err(ChooseError::Refused(gone @ (Refusal::Gone { .. } | Refusal::Changed { .. }))) => {
                    person.tell(&gone.to_string());
                    old.remove(&key(question.device()));
                }
                done => return done,
            },
            several => {
                let names: Vec<_> = several.iter().map(|q| q.device().name.clone()).collect();
                let text =
                    format!("{} came; take all but one out, or type the name of one", names.join(" and "));
                if told.insert(text.clone()) {
                    person.tell(&text);
                }
            }
        }
    }
}
