//! Why something is not done now, as data; and what a person may permit.

use super::change::Change;
use super::version::{Os, Version};
use crate::document::Window;
use crate::names::UnknownName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Something that is never done unless a person says so, for one machine: `--allow wipe=n2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Permission {
    /// Erase the machine's disk.
    Wipe(String),
    /// Take the machine out of the cluster, with the data that lie on it alone.
    Remove(String),
    /// Let the API be away while this control plane restarts, because too few voices are left without it.
    Outage(String),
    /// Go on although this machine is not Ready.
    Without(String),
    /// Let pods leave this machine against their budgets, when the deadline has passed.
    Evict(String),
    /// Take the roll-out over from a holder that gives no sign of life.
    Takeover(String),
    /// Found the cluster on this machine although the lock says that it was founded.
    Found(String),
}

impl Permission {
    /// The word and whom it is for.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Permission::Wipe(n) => ("wipe", n),
            Permission::Remove(n) => ("remove", n),
            Permission::Outage(n) => ("outage", n),
            Permission::Without(n) => ("without", n),
            Permission::Evict(n) => ("evict", n),
            Permission::Takeover(n) => ("takeover", n),
            Permission::Found(n) => ("found", n),
        }
    }

    /// Whether data are gone once it was used.
    pub fn erases(&self) -> bool {
        matches!(self, Permission::Wipe(_) | Permission::Remove(_))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, name) = self.parts();
        write!(f, "{word}={name}")
    }
}

impl FromStr for Permission {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Permission, UnknownName> {
        let unknown = || UnknownName { kind: "permission", name: text.to_string() };
        let (word, name) = text.split_once('=').filter(|(_, name)| !name.is_empty()).ok_or_else(unknown)?;
        let name = name.to_string();
        Ok(match word {
            "wipe" => Permission::Wipe(name),
            "remove" => Permission::Remove(name),
            "outage" => Permission::Outage(name),
            "without" => Permission::Without(name),
            "evict" => Permission::Evict(name),
            "takeover" => Permission::Takeover(name),
            "found" => Permission::Found(name),
            _ => return Err(unknown()),
        })
    }
}

impl TryFrom<String> for Permission {
    type Error = UnknownName;
    fn try_from(text: String) -> Result<Permission, UnknownName> {
        text.parse()
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> String {
        permission.to_string()
    }
}

/// What is waited for. Each is a fact that a person can go and look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum WaitingOn {
    /// A machine sleeps.
    Asleep {
        /// Which.
        node: String,
        /// Seconds since the epoch when its window opens, if it has one.
        wakes: Option<u64>,
    },
    /// A machine does not answer.
    Silent {
        /// Which.
        node: String,
        /// Seconds since it was seen last; none when it never was.
        for_seconds: Option<u64>,
    },
    /// Something is not known.
    Unknown {
        /// Of which machine; empty for the cluster.
        node: String,
        /// What.
        fact: String,
        /// Why it is not known.
        why: String,
    },
    /// Something was seen too long ago to act on.
    Stale {
        /// What.
        fact: String,
        /// Seconds.
        age: u64,
        /// Seconds that count as fresh.
        limit: u64,
    },
    /// The window.
    Window {
        /// When it may restart.
        window: Words,
        /// Seconds since the epoch when it opens next.
        opens: u64,
    },
    /// The rest of the window is too short.
    WindowTooShort {
        /// When it may restart.
        window: Words,
        /// Minutes that are left of it.
        left: u64,
        /// Minutes that the step takes.
        takes: u64,
        /// Seconds since the epoch when it opens next.
        opens: u64,
    },
    /// The local time, without which no window is known.
    Clock,
    /// A person said not to.
    Hold {
        /// Which machine.
        node: String,
        /// Seconds since the epoch.
        until: u64,
    },
    /// A machine is not Ready, and the next one is not begun before it is.
    NotReady {
        /// Which.
        node: String,
    },
    /// Too few voices of the datastore would be left.
    Quorum {
        /// Whose restart or leaving takes one away.
        node: String,
        /// Voices there are.
        voters: usize,
        /// Voices that answer.
        healthy: usize,
        /// Voices that are needed.
        needed: usize,
    },
    /// A person's permission.
    Permission {
        /// Which.
        allow: Permission,
    },
    /// A card that a person writes and puts in.
    Flash {
        /// For which machine.
        node: String,
    },
    /// A machine starts.
    Starting {
        /// Which.
        node: String,
    },
    /// Another machine answers in its place.
    Foreign {
        /// In whose place.
        node: String,
        /// What it says of itself.
        who: String,
    },
    /// A kubelet may not be newer than the API server.
    ApiServer {
        /// What it would run.
        needs: Version,
        /// What the API servers run.
        has: Option<Version>,
        /// Control planes that are behind.
        behind: Vec<String>,
    },
    /// The same thing on other machines first.
    Everywhere {
        /// What.
        what: String,
        /// Where it is missing.
        missing: Vec<String>,
    },
    /// A release that changes only the system, on a worker first.
    Canary {
        /// Which.
        os: Os,
        /// Workers that could be the first.
        workers: Vec<String>,
    },
    /// A release that is not there.
    Release {
        /// With this line of Kubernetes, `1.37`.
        kubernetes: String,
        /// Newer than this one.
        after: u64,
    },
    /// The release that is wanted is not at the update source.
    NotPublished {
        /// Its number.
        release: u64,
    },
    /// No way from what runs to what is wanted is known.
    NoWay {
        /// What runs.
        from: String,
        /// What is wanted.
        to: String,
        /// Why there is none.
        why: String,
    },
    /// What is wanted is older than what runs.
    Back {
        /// What runs.
        from: String,
        /// What is wanted.
        to: String,
    },
    /// It failed as often as is tried.
    Skipped {
        /// On which machine.
        node: String,
        /// Which.
        os: Os,
    },
    /// It tries a release now.
    Trial {
        /// Which machine.
        node: String,
        /// Which release.
        os: Os,
    },
    /// A budget lets no pod go.
    Budget {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Whose drain it stops.
        node: String,
    },
    /// The disk is too full.
    Space {
        /// Of which machine.
        node: String,
        /// Bytes.
        free: u64,
        /// Bytes.
        needs: u64,
    },
    /// Someone else rolls out.
    Holder {
        /// Who.
        who: String,
        /// The node at work, empty when none.
        node: String,
    },
    /// Who rolled out gives no sign of life. What they left in the middle wants a person's look.
    Attention {
        /// Who.
        who: String,
        /// The node at work, empty when none.
        node: String,
        /// Seconds since the last sign of life.
        silent_for: u64,
    },
    /// The cluster is not founded.
    Founding {
        /// Who founds it.
        node: String,
    },
    /// It would take the last control plane away.
    LastControlPlane {
        /// Which.
        node: String,
    },
    /// Another change of the same machine first.
    Earlier {
        /// Which machine.
        node: String,
        /// Which change.
        change: Change,
    },
    /// The Kubernetes API does not answer.
    Api {
        /// Why.
        why: String,
    },
    /// Only other machines were asked for.
    NotAsked,
    /// A fault of ours: nobody knows why.
    Unexplained,
}

/// Text that orders as text: a window in the file's words.
pub type Words = String;

/// A window in the file's words: `02:00-05:00`, `Sat,Sun 02:00-05:00`.
pub fn window_words(window: &Window) -> Words {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let days: Vec<&str> = window.days.iter().filter_map(|d| DAYS.get(usize::from(*d)).copied()).collect();
    let space = if days.is_empty() { "" } else { " " };
    let (from, to) = (window.from, window.to);
    format!("{}{space}{:02}:{:02}-{:02}:{:02}", days.join(","), from / 60, from % 60, to / 60, to % 60)
}

/// A span of time in the two largest units that matter: `45 s`, `3 min`, `2 h 5 min`, `4 d 2 h`.
pub fn span(seconds: u64) -> String {
    let (large, small, a, b) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3600 => return format!("{} min", seconds / 60),
        3600..86_400 => (seconds / 3600, seconds % 3600 / 60, "h", "min"),
        _ => (seconds / 86_400, seconds % 86_400 / 3600, "d", "h"),
    };
    if small == 0 { format!("{large} {a}") } else { format!("{large} {a} {small} {b}") }
}

/// Bytes in the largest unit that fits, `1.4 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

impl WaitingOn {
    /// The stable word for it, as in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            WaitingOn::Asleep { .. } => "asleep",
            WaitingOn::Silent { .. } => "silent",
            WaitingOn::Unknown { .. } => "unknown",
            WaitingOn::Stale { .. } => "stale",
            WaitingOn::Window { .. } => "window",
            WaitingOn::WindowTooShort { .. } => "window-too-short",
            WaitingOn::Clock => "clock",
            WaitingOn::Hold { .. } => "hold",
            WaitingOn::NotReady { .. } => "not-ready",
            WaitingOn::Quorum { .. } => "quorum",
            WaitingOn::Permission { .. } => "permission",
            WaitingOn::Flash { .. } => "flash",
            WaitingOn::Starting { .. } => "starting",
            WaitingOn::Foreign { .. } => "foreign",
            WaitingOn::ApiServer { .. } => "api-server",
            WaitingOn::Everywhere { .. } => "everywhere",
            WaitingOn::Canary { .. } => "canary",
            WaitingOn::Release { .. } => "release",
            WaitingOn::NotPublished { .. } => "not-published",
            WaitingOn::NoWay { .. } => "no-way",
            WaitingOn::Back { .. } => "back",
            WaitingOn::Skipped { .. } => "skipped",
            WaitingOn::Trial { .. } => "trial",
            WaitingOn::Budget { .. } => "budget",
            WaitingOn::Space { .. } => "space",
            WaitingOn::Holder { .. } => "holder",
            WaitingOn::Attention { .. } => "attention",
            WaitingOn::Founding { .. } => "founding",
            WaitingOn::LastControlPlane { .. } => "last-control-plane",
            WaitingOn::Earlier { .. } => "earlier",
            WaitingOn::Api { .. } => "api",
            WaitingOn::NotAsked => "not-asked",
            WaitingOn::Unexplained => "unexplained",
        }
    }

    /// Whether it is the window and nothing else, which a person may set aside with `--now`.
    pub fn is_window(&self) -> bool {
        matches!(self, WaitingOn::Window { .. } | WaitingOn::WindowTooShort { .. } | WaitingOn::Clock)
    }

    /// Whether it passes by itself: nobody has to do anything.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            WaitingOn::Asleep { .. }
                | WaitingOn::Window { .. }
                | WaitingOn::WindowTooShort { .. }
                | WaitingOn::Hold { .. }
                | WaitingOn::Starting { .. }
                | WaitingOn::Trial { .. }
                | WaitingOn::Holder { .. }
        )
    }

    /// What a person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            WaitingOn::Window { .. } | WaitingOn::WindowTooShort { .. } | WaitingOn::Clock => {
                "`bramble apply --now` does not wait for the window".to_string()
            }
            WaitingOn::Permission { allow } => format!("`--allow {allow}` permits it"),
            WaitingOn::Flash { node } => format!("`bramble flash {node}` writes its card"),
            WaitingOn::NotReady { node } => {
                format!(
                    "`bramble why {node}` says what is wrong; `--allow without={node}` goes on without it"
                )
            }
            WaitingOn::Attention { who, .. } => {
                format!("look at it, then `--allow takeover={who}` goes on in their place")
            }
            WaitingOn::Budget { node, .. } => {
                format!("run more replicas, or `--allow evict={node}`")
            }
            WaitingOn::Stale { .. } => "run it again: facts are looked at anew".to_string(),
            WaitingOn::Hold { node, .. } => format!("`bramble hold {node} --until now` ends it"),
            WaitingOn::Release { kubernetes, .. } => {
                format!("build and publish one: `bramble release` with Kubernetes {kubernetes} in the file")
            }
            WaitingOn::Skipped { node, .. } => {
                format!("`bramble why {node}` says more; `--allow without={node}` gives it to the others")
            }
            WaitingOn::Quorum { node, .. } => {
                format!("mend the others first; `--allow outage={node}` lets the API be away meanwhile")
            }
            WaitingOn::NotPublished { .. } => "`bramble release` publishes it".to_string(),
            _ => return None,
        })
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitingOn::Asleep { node, wakes: Some(_) } => {
                write!(f, "{node} is asleep and wakes when its window opens")
            }
            WaitingOn::Asleep { node, wakes: None } => write!(f, "{node} is asleep"),
            WaitingOn::Silent { node, for_seconds: Some(s) } => {
                write!(f, "{node} has not answered for {}", span(*s))
            }
            WaitingOn::Silent { node, for_seconds: None } => write!(f, "{node} has never answered"),
            WaitingOn::Unknown { node, fact, why } if node.is_empty() => {
                write!(f, "{fact} is not known: {why}")
            }
            WaitingOn::Unknown { node, fact, why } => write!(f, "{fact} of {node} is not known: {why}"),
            WaitingOn::Stale { fact, age, limit } => {
                write!(f, "{fact} was seen {} ago; at most {} count", span(*age), span(*limit))
            }
            WaitingOn::Window { window, .. } => write!(f, "window {window}"),
            WaitingOn::WindowTooShort { window, left, takes, .. } => {
                write!(f, "window {window} closes in {left} min, it takes {takes} min")
            }
            WaitingOn::Clock => f.write_str("the local time, to know the window"),
            WaitingOn::Hold { node, .. } => write!(f, "{node} is held by a person"),
            WaitingOn::NotReady { node } => write!(f, "{node} is not Ready"),
            WaitingOn::Quorum { voters, healthy, needed, .. } => {
                write!(f, "quorum: {healthy} of {voters} members answer, {needed} must be left")
            }
            WaitingOn::Permission { allow } => write!(f, "your permission: --allow {allow}"),
            WaitingOn::Flash { node } => write!(f, "a card for {node}"),
            WaitingOn::Starting { node } => write!(f, "{node} to start and join"),
            WaitingOn::Foreign { node, who } => write!(f, "another machine answers as {node}: {who}"),
            WaitingOn::ApiServer { needs, has, behind } => {
                let has = has.as_ref().map_or("does not answer".to_string(), |v| format!("is {v}"));
                write!(f, "API server {has}, and must not be older than {needs}")?;
                if behind.is_empty() { Ok(()) } else { write!(f, " ({})", list(behind)) }
            }
            WaitingOn::Everywhere { what, missing } => write!(f, "needs {what} on {} too", list(missing)),
            WaitingOn::Canary { os, workers } => write!(f, "{os} on a worker first ({})", list(workers)),
            WaitingOn::Release { kubernetes, after } => {
                write!(f, "a release after {after} with Kubernetes {kubernetes}")
            }
            WaitingOn::NotPublished { release } => write!(f, "release {release} at the update source"),
            WaitingOn::NoWay { from, to, why } => write!(f, "no way from {from} to {to}: {why}"),
            WaitingOn::Back { from, to } => write!(f, "{to} is older than {from}: going back is a rollback"),
            WaitingOn::Skipped { node, os } => write!(f, "{os} failed on {node} and is not tried again"),
            WaitingOn::Trial { node, os } => write!(f, "{node} tries {os} now"),
            WaitingOn::Budget { namespace, name, .. } => {
                write!(f, "budget {namespace}/{name} lets no pod go")
            }
            WaitingOn::Space { node, free, needs } => {
                write!(f, "{node} has {} free, {} are needed", size(*free), size(*needs))
            }
            WaitingOn::Holder { who, node } if node.is_empty() => write!(f, "{who} rolls out"),
            WaitingOn::Holder { who, node } => write!(f, "{who} rolls out, at {node}"),
            WaitingOn::Attention { who, node, silent_for } => {
                let at = if node.is_empty() { String::new() } else { format!(" at {node}") };
                write!(f, "needs attention: {who} stopped{at} {} ago", span(*silent_for))
            }
            WaitingOn::Founding { node } => write!(f, "{node} to found the cluster"),
            WaitingOn::LastControlPlane { node } => write!(f, "another control plane: {node} is the last"),
            WaitingOn::Earlier { node, change } => write!(f, "first {change} of {node}"),
            WaitingOn::Api { why } => write!(f, "the Kubernetes API: {why}"),
            WaitingOn::NotAsked => f.write_str("only other machines were asked for"),
            WaitingOn::Unexplained => f.write_str("a reason that bramble cannot name: please report it"),
        }
    }
}

/// At most four names; the rest is counted.
pub fn list(names: &[String]) -> String {
    if names.len() <= 4 {
        return names.join(", ");
    }
    format!("{} and {} more", names[..3].join(", "), names.len() - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_and_write() {
        for text in [
            "wipe=n2",
            "remove=n2",
            "outage=cp1",
            "without=n3",
            "evict=n3",
            "takeover=anna@desk",
            "found=cp1",
        ] {
            assert_eq!(text.parse::<Permission>().unwrap().to_string(), text);
        }
        for text in ["wipe", "wipe=", "erase=n2", "=n2"] {
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
        let json =
            serde_json::to_string(&WaitingOn::Permission { allow: Permission::Wipe("n2".into()) }).unwrap();
        assert_eq!(json, r#"{"for":"permission","allow":"wipe=n2"}"#);
    }

    #[test]
    fn the_word_is_what_is_stored() {
        let all = [
            WaitingOn::Clock,
            WaitingOn::Unexplained,
            WaitingOn::NotReady { node: "n1".into() },
            WaitingOn::WindowTooShort { window: "02:00-05:00".into(), left: 3, takes: 6, opens: 0 },
            WaitingOn::LastControlPlane { node: "n1".into() },
            WaitingOn::Api { why: "refused".into() },
        ];
        for one in all {
            let json = serde_json::to_value(&one).unwrap();
            assert_eq!(json["for"], one.code());
        }
    }

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!([5, 60, 7500, 360_000].map(span), ["5 s", "1 min", "2 h 5 min", "4 d 4 h"]);
        assert_eq!([512, 3 << 20, (1 << 30) + (1 << 29)].map(size), ["512 B", "3.0 MiB", "1.5 GiB"]);
        assert_eq!(window_words(&Window { days: vec![5, 6], from: 120, to: 300 }), "Sat,Sun 02:00-05:00");
    }
}
