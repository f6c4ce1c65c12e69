//! What the agent makes of what it sees: pure, so that every turn of events can be tried.

use crate::update;
use bramble_api::stage::Stage;
use bramble_upgrade::gate::Part;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Data fuller than this is warned of. The kubelet begins to evict at 90 % as well, so this is when it hurts.
const FULL_PERCENT: u64 = 90;
/// A warning is over only below this, so that it does not come and go.
const FULL_OVER_PERCENT: u64 = 85;

/// What was seen in one round. Errors say why, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The machine has the stated address.
    pub has_stated: bool,
    /// The address that packets leave with.
    pub source: Option<Ipv4Addr>,
    /// Kubernetes on this machine; `None` on a management machine.
    pub kubernetes: Option<Kubernetes>,
    /// How full the data file system is, in percent.
    pub data_percent: Option<u64>,
    /// What is wrong with the clock.
    pub clock: Option<String>,
}

/// What was seen of Kubernetes. What was not asked, because what it needs is missing, is an error that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// The container runtime answers.
    pub runtime: Result<(), String>,
    /// The API is ready; its address.
    pub api: Result<String, String>,
    /// The node is Ready; its version.
    pub ready: Result<String, String>,
    /// The API server's version, where it was asked.
    pub api_version: Option<String>,
    /// A later card of this node that the cluster knows.
    pub replaced_by: Option<u32>,
}

/// What of a round decides about a release on trial.
pub fn for_updates(seen: &Seen) -> update::Seen {
    let mut broken = Vec::new();
    let mut put = |part: Part, why: String| broken.push((part, why));
    if seen.data_percent.is_none() {
        put(Part::Data, "data is not mounted".into());
    }
    if let Some(why) = &seen.clock {
        put(Part::Time, why.clone());
    }
    if !seen.has_stated && seen.source.is_none() {
        put(Part::Network, "no interface has an address".into());
    }
    if let Some(kubernetes) = &seen.kubernetes {
        let Kubernetes { runtime, api, ready, .. } = kubernetes;
        let answers = [
            (Part::Runtime, runtime.as_ref().err()),
            (Part::Api, api.as_ref().err()),
            (Part::Ready, ready.as_ref().err()),
        ];
        answers
            .into_iter()
            .filter_map(|(part, why)| Some((part, why?)))
            .for_each(|(part, why)| put(part, why.clone()));
    }
    update::Seen { broken, api_version: seen.kubernetes.as_ref().and_then(|k| k.api_version.clone()) }
}

/// Something to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// A stage line.
    Stage(Stage, String),
    /// A line that is no stage.
    Note(String),
}

/// What the agent knows, as `bramble-node status` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Host name.
    pub name: String,
    /// The stated address.
    pub address: Ipv4Addr,
    /// The last stage that was reached with all before it.
    pub stage: Stage,
    /// Why the next one is not; `null` when all are reached.
    pub waiting: Option<String>,
    /// What a person should look at, by what it is about.
    pub warnings: BTreeMap<About, String>,
    #[serde(skip)]
    mismatch: Option<Ipv4Addr>,
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// The address is not the stated one.
    Address,
    /// The data file system is nearly full.
    Data,
    /// The clock cannot be right.
    Clock,
}

impl Watch {
    /// Before the first round.
    pub fn new(name: &str, address: Ipv4Addr) -> Watch {
        Watch {
            name: name.into(),
            address,
            stage: Stage::System,
            waiting: None,
            warnings: BTreeMap::new(),
            mismatch: None,
        }
    }

    /// Whether everything is reached.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Takes in a round; gives what is to be said about it.
    pub fn observe(&mut self, seen: &Seen) -> Vec<Say> {
        let mut say = self.observe_address(seen);
        let mut reached = Stage::System;
        let mut waiting = None;
        for (stage, answer) in steps(self.address, &self.name, seen) {
            match answer {
                Ok(text) => {
                    if stage > self.stage {
                        say.push(Say::Stage(stage, text));
                    }
                    reached = stage;
                }
                Err(why) => {
                    waiting = Some(format!("{}: {why}", stage.name()));
                    break;
                }
            }
        }
        if reached < self.stage {
            let why = waiting.as_deref().unwrap_or("unknown");
            say.push(Say::Note(format!("no longer {}; waiting for {why}", self.stage.name())));
        }
        (self.stage, self.waiting) = (reached, waiting);
        say.extend(self.observe_warnings(seen));
        say
    }

    /// A lease that differs from the stated address is said once for each address.
    fn observe_address(&mut self, seen: &Seen) -> Vec<Say> {
        let mismatch = seen.source.filter(|source| !seen.has_stated && *source != self.address);
        let changed = mismatch != self.mismatch;
        self.mismatch = mismatch;
        match mismatch {
            Some(got) if changed => vec![Say::Stage(Stage::Network, differs(got, self.address))],
            _ => Vec::new(),
        }
    }

    fn observe_warnings(&mut self, seen: &Seen) -> Vec<Say> {
        let limit = match self.warnings.contains_key(&About::Data) {
            true => FULL_OVER_PERCENT,
            false => FULL_PERCENT,
        };
        let full = seen.data_percent.filter(|percent| *percent > limit);
        let warnings = [
            (About::Address, self.mismatch.map(|got| format!("the network {}", differs(got, self.address)))),
            (About::Data, full.map(|percent| format!("the data partition is {percent} % full; {EVICTS}"))),
            (About::Clock, seen.clock.clone()),
        ];
        let now: BTreeMap<About, String> =
            warnings.into_iter().filter_map(|(about, text)| Some((about, text?))).collect();
        // Said when it begins and when it is over; the text may change with every round.
        let mut say = Vec::new();
        for (_, text) in now.iter().filter(|(about, _)| !self.warnings.contains_key(about)) {
            say.push(Say::Note(format!("warning: {text}")));
        }
        for (_, text) in self.warnings.iter().filter(|(about, _)| !now.contains_key(about)) {
            say.push(Say::Note(format!("over: {text}")));
        }
        self.warnings = now;
        say
    }
}

const EVICTS: &str = "Kubernetes soon evicts pods";

fn differs(got: Ipv4Addr, stated: Ipv4Addr) -> String {
    format!("got {got}, stated {stated}")
}

/// The stages in order, each reached (with its text) or not (with the reason).
fn steps(address: Ipv4Addr, name: &str, seen: &Seen) -> Vec<(Stage, Result<String, String>)> {
    let network = if seen.has_stated {
        Ok(address.to_string())
    } else {
        Err(match seen.source {
            Some(got) => differs(got, address),
            None => "no interface has an address yet".into(),
        })
    };
    let mut steps = vec![(Stage::Network, network)];
    match &seen.kubernetes {
        Some(kubernetes) => steps.extend([
            (Stage::Runtime, kubernetes.runtime.clone().map(|()| "containerd".into())),
            (Stage::Api, kubernetes.api.clone()),
            (Stage::Ready, kubernetes.ready.clone().map(|version| format!("{name} {version}"))),
        ]),
        None => steps.push((Stage::Ready, Ok(format!("{name} without Kubernetes")))),
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);

    fn ready() -> Seen {
        Seen {
            has_stated: true,
            source: Some(ADDRESS),
            kubernetes: Some(Kubernetes {
                runtime: Ok(()),
                api: Ok("https://192.168.1.10:6443".into()),
                ready: Ok("v1.36.3".into()),
                api_version: None,
                replaced_by: None,
            }),
            data_percent: Some(10),
            clock: None,
        }
    }

    fn lines(watch: &mut Watch, seen: &Seen) -> Vec<String> {
        let text = |say| match say {
            Say::Stage(stage, text) => format!("{} {text}", stage.name()),
            Say::Note(text) => text,
        };
        watch.observe(seen).into_iter().map(text).collect()
    }

    fn with(change: impl FnOnce(&mut Seen)) -> Seen {
        let mut seen = ready();
        change(&mut seen);
        seen
    }

    fn without_api() -> Seen {
        with(|seen| {
            let kubernetes = seen.kubernetes.as_mut().unwrap();
            kubernetes.api = Err("refused".into());
            kubernetes.ready = Err("the API is not there".into());
        })
    }

    #[test]
    fn stages_are_said_once_and_in_order() {
        let mut watch = Watch::new("n1", ADDRESS);
        let nothing = with(|seen| {
            seen.has_stated = false;
            seen.source = None;
        });
        assert!(lines(&mut watch, &nothing).is_empty());
        assert_eq!(watch.waiting.as_deref(), Some("network: no interface has an address yet"));
        assert_eq!(lines(&mut watch, &without_api()), ["network 192.168.1.11", "runtime containerd"]);
        assert_eq!(watch.waiting.as_deref(), Some("api: refused"));
        assert_eq!(lines(&mut watch, &ready()), ["api https://192.168.1.10:6443", "ready n1 v1.36.3"]);
        assert!(lines(&mut watch, &ready()).is_empty());
        assert!(watch.is_ready() && watch.waiting.is_none());
    }

    #[test]
    fn what_is_lost_is_said_and_said_again_when_it_is_back() {
        let mut watch = Watch::new("n1", ADDRESS);
        lines(&mut watch, &ready());
        assert_eq!(lines(&mut watch, &without_api()), ["no longer ready; waiting for api: refused"]);
        assert!(lines(&mut watch, &without_api()).is_empty());
        assert_eq!(lines(&mut watch, &ready()).last().unwrap(), "ready n1 v1.36.3");
    }

    #[test]
    fn a_lease_that_differs_is_said_at_each_change() {
        let leased = |got| {
            with(|seen| {
                seen.has_stated = false;
                seen.source = Some(got);
            })
        };
        let mut watch = Watch::new("n1", ADDRESS);
        let first = lines(&mut watch, &leased(OTHER));
        assert_eq!(
            first,
            [
                "network got 192.168.1.77, stated 192.168.1.11",
                "warning: the network got 192.168.1.77, stated 192.168.1.11"
            ]
        );
        assert!(lines(&mut watch, &leased(OTHER)).is_empty());
        let moved = lines(&mut watch, &leased(Ipv4Addr::new(192, 168, 1, 78)));
        assert_eq!(moved, ["network got 192.168.1.78, stated 192.168.1.11"]);
        assert!(lines(&mut watch, &ready()).iter().any(|line| line.starts_with("over: the network")));
    }

    #[test]
    fn a_full_disk_is_one_warning_until_it_has_room_again() {
        let filled = |percent| with(|seen| seen.data_percent = Some(percent));
        let mut watch = Watch::new("n1", ADDRESS);
        lines(&mut watch, &ready());
        assert!(lines(&mut watch, &filled(90)).is_empty());
        assert_eq!(lines(&mut watch, &filled(91)).len(), 1);
        assert!(lines(&mut watch, &filled(97)).is_empty());
        assert!(lines(&mut watch, &filled(88)).is_empty());
        assert!(lines(&mut watch, &filled(85))[0].starts_with("over: "));
        assert!(lines(&mut watch, &filled(88)).is_empty());
    }

    #[test]
    fn a_clock_that_runs_is_one_warning() {
        let off = |text: &str| with(|seen| seen.clock = Some(text.into()));
        let mut watch = Watch::new("n1", ADDRESS);
        lines(&mut watch, &ready());
        assert_eq!(lines(&mut watch, &off("the clock says 5")), ["warning: the clock says 5"]);
        assert!(lines(&mut watch, &off("the clock says 65")).is_empty());
    }

    #[test]
    fn a_machine_without_kubernetes_is_ready_with_its_network() {
        let mut watch = Watch::new("m1", ADDRESS);
        let said = lines(&mut watch, &with(|seen| seen.kubernetes = None));
        assert_eq!(said, ["network 192.168.1.11", "ready m1 without Kubernetes"]);
        assert!(watch.is_ready());
    }
}
