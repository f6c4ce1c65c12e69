//! Which release follows which, and what goes with what: tables, and functions over them.

use bramble_spec::Version;

/// A line of Talos releases whose documents this crate writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.13: one large document and some for the network.
    V1_13,
    /// 1.14: documents for nearly everything.
    V1_14,
}

/// A line of releases: its minor, the oldest minor that it upgrades from, and the minors of Kubernetes that it runs
/// (`compatibility/talos1NN` of Talos' machinery).
struct Line {
    minor: u16,
    upgrades_from: u16,
    kubernetes: (u16, u16),
}

const LINES: [Line; 3] = [
    Line { minor: 12, upgrades_from: 10, kubernetes: (30, 35) },
    Line { minor: 13, upgrades_from: 11, kubernetes: (31, 36) },
    Line { minor: 14, upgrades_from: 12, kubernetes: (32, 37) },
];

/// The newest patch of each line that was known when this was written; hops go through them.
const NEWEST: [(u16, u16); 3] = [(12, 11), (13, 9), (14, 1)];

/// A line of Talos releases, for whoever plans a way through several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLine {
    /// Its minor.
    pub minor: u16,
    /// The newest patch that was known when this was written.
    pub newest: u16,
    /// The oldest minor that it upgrades from.
    pub upgrades_from: u16,
    /// Minors of Kubernetes 1 that it runs, first and last.
    pub kubernetes: (u16, u16),
}

/// Every line of the table, oldest first.
pub fn lines() -> Vec<KnownLine> {
    let newest = |minor| NEWEST.iter().find(|(m, _)| *m == minor).map_or(0, |(_, patch)| *patch);
    let known = |line: &Line| KnownLine {
        minor: line.minor,
        newest: newest(line.minor),
        upgrades_from: line.upgrades_from,
        kubernetes: line.kubernetes,
    };
    LINES.iter().map(known).collect()
}

impl Release {
    /// The line that a release belongs to; `None` for one that is not served.
    pub fn of(version: &Version) -> Option<Release> {
        match (version.major, version.minor) {
            (1, 13) => Some(Release::V1_13),
            (1, 14) => Some(Release::V1_14),
            _ => None,
        }
    }

    /// Minors of Kubernetes 1 that it runs, first and last.
    pub fn kubernetes(self) -> (u16, u16) {
        let minor = self.minor();
        LINES.iter().find(|line| line.minor == minor).map_or((0, 0), |line| line.kubernetes)
    }

    /// Its minor number.
    pub fn minor(self) -> u16 {
        match self {
            Release::V1_13 => 13,
            Release::V1_14 => 14,
        }
    }
}

/// Why there is no way from one release to another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// It would go back.
    #[error("{from} is newer than {to}: going back is a rollback or a new installation, no upgrade")]
    Back {
        /// What runs.
        from: String,
        /// What was asked for.
        to: String,
    },
    /// A release outside the table.
    #[error("no way to {to} from {from} is known")]
    Unknown {
        /// What runs.
        from: String,
        /// What was asked for.
        to: String,
    },
    /// Kubernetes that the Talos does not run.
    #[error("Talos {talos} runs Kubernetes 1.{first} to 1.{last}, not {kubernetes}")]
    Kubernetes {
        /// The Talos.
        talos: String,
        /// The Kubernetes.
        kubernetes: String,
        /// First minor that it runs.
        first: u16,
        /// Last minor that it runs.
        last: u16,
    },
}

/// The releases of Talos to install one after another, the last being `to`; none when `from` is `to`. Every minor
/// between is gone through, by its newest patch, as Talos' documentation asks.
///
/// # Errors
/// Ways back, and releases that are not in the table.
pub fn talos_hops(from: &Version, to: &Version) -> Result<Vec<Version>, NoWay> {
    let number = |v: &Version| (v.major, v.minor, v.patch);
    let texts = || (from.to_string(), to.to_string());
    if number(from) > number(to) {
        let (from, to) = texts();
        return Err(NoWay::Back { from, to });
    }
    if number(from) == number(to) {
        return Ok(Vec::new());
    }
    let unknown = || {
        let (from, to) = texts();
        NoWay::Unknown { from, to }
    };
    let line = |minor: u16| LINES.iter().find(|line| line.minor == minor);
    if from.major != 1 || to.major != 1 || line(to.minor).is_none() {
        return Err(unknown());
    }
    let mut hops = Vec::new();
    for minor in from.minor + 1..to.minor {
        let (_, patch) = NEWEST.iter().find(|(m, _)| *m == minor).ok_or_else(unknown)?;
        hops.push(Version { major: 1, minor, patch: *patch, ..to.clone() });
    }
    hops.push(to.clone());
    let first = hops.first().and_then(|hop| line(hop.minor));
    match first {
        Some(line) if line.upgrades_from <= from.minor => Ok(hops),
        _ => Err(unknown()),
    }
}

/// The releases of Kubernetes to go through, the last being `to`: one minor after another. `patches` says the newest
/// patch of a minor, where it is known; `.0` else.
///
/// # Errors
/// Ways back, and a release that this Talos does not run.
pub fn kubernetes_hops(
    from: &Version,
    to: &Version,
    talos: Release,
    patches: &dyn Fn(u16) -> Option<u16>,
) -> Result<Vec<Version>, NoWay> {
    let number = |v: &Version| (v.major, v.minor, v.patch);
    if number(from) > number(to) {
        return Err(NoWay::Back { from: from.to_string(), to: to.to_string() });
    }
    runs(talos, to)?;
    Ok(steps(from, to, patches))
}

/// What a machine runs: its Talos and its Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Talos.
    pub talos: Version,
    /// Kubernetes.
    pub kubernetes: Version,
}

/// One upgrade of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Of Talos, to this release.
    Talos(Version),
    /// Of Kubernetes, to this release.
    Kubernetes(Version),
}

/// The upgrades from what runs to what is wanted, in their order. Kubernetes goes no further than a Talos on the way
/// needs before that Talos comes; the rest of it comes last. `patches` as in [`kubernetes_hops`].
///
/// # Errors
/// Ways back, releases that are not in the table, and a pair that does not go together at its end.
pub fn way(from: &Runs, to: &Runs, patches: &dyn Fn(u16) -> Option<u16>) -> Result<Vec<Hop>, NoWay> {
    let unknown = |talos: &Version| NoWay::Unknown { from: from.talos.to_string(), to: talos.to_string() };
    let range = |talos: &Version| {
        let line = LINES.iter().find(|line| talos.major == 1 && line.minor == talos.minor);
        line.map(|line| line.kubernetes).ok_or_else(|| unknown(talos))
    };
    let (mut hops, mut now) = (Vec::new(), from.kubernetes.clone());
    let mut running = from.talos.clone();
    for hop in talos_hops(&from.talos, &to.talos)? {
        let (first, _) = range(&hop)?;
        if now.minor < first {
            // The Talos before must run it too, for as long as it is the Talos.
            let patch = patches(first).unwrap_or(0);
            let needed = Version { major: 1, minor: first, patch, ..now.clone() };
            // A Talos that is older than the table is believed to run what its successor begins with.
            if let Ok(range) = range(&running) {
                within(&running, range, &needed)?;
            }
            hops.extend(steps(&now, &needed, patches).into_iter().map(Hop::Kubernetes));
            now = needed;
        }
        hops.push(Hop::Talos(hop.clone()));
        running = hop;
    }
    within(&to.talos, range(&to.talos)?, &to.kubernetes)?;
    let number = |v: &Version| (v.major, v.minor, v.patch);
    if number(&now) > number(&to.kubernetes) {
        return Err(NoWay::Back { from: now.to_string(), to: to.kubernetes.to_string() });
    }
    hops.extend(steps(&now, &to.kubernetes, patches).into_iter().map(Hop::Kubernetes));
    Ok(hops)
}

/// Every minor between, and the last itself; none when it is there.
fn steps(from: &Version, to: &Version, patches: &dyn Fn(u16) -> Option<u16>) -> Vec<Version> {
    if (from.major, from.minor, from.patch) == (to.major, to.minor, to.patch) {
        return Vec::new();
    }
    let between = from.minor + 1..to.minor;
    let patched = |minor| Version { major: 1, minor, patch: patches(minor).unwrap_or(0), ..to.clone() };
    between.map(patched).chain([to.clone()]).collect()
}

/// That a Kubernetes is one of those that a Talos runs.
fn within(talos: &Version, (first, last): (u16, u16), kubernetes: &Version) -> Result<(), NoWay> {
    if kubernetes.major == 1 && (first..=last).contains(&kubernetes.minor) {
        return Ok(());
    }
    let talos = format!("{}.{}", talos.major, talos.minor);
    Err(NoWay::Kubernetes { talos, kubernetes: kubernetes.to_string(), first, last })
}

/// Whether a Talos runs a Kubernetes.
///
/// # Errors
/// The range that it runs, when it does not.
pub fn runs(talos: Release, kubernetes: &Version) -> Result<(), NoWay> {
    let (first, last) = talos.kubernetes();
    if kubernetes.major == 1 && (first..=last).contains(&kubernetes.minor) {
        return Ok(());
    }
    let talos = format!("1.{}", talos.minor());
    Err(NoWay::Kubernetes { talos, kubernetes: kubernetes.to_string(), first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn hops(from: &str, to: &str) -> String {
        match talos_hops(&v(from), &v(to)) {
            Ok(hops) => hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn talos_goes_through_every_minor() {
        assert_eq!(hops("v1.14.0", "v1.14.0"), "");
        assert_eq!(hops("v1.13.2", "v1.14.1"), "v1.14.1");
        assert_eq!(hops("v1.12.3", "v1.14.1"), "v1.13.9 v1.14.1");
        assert_eq!(hops("v1.11.0", "v1.14.0"), "v1.12.11 v1.13.9 v1.14.0");
        assert_eq!(hops("v1.10.0", "v1.13.9"), "no way to v1.13.9 from v1.10.0 is known");
        assert_eq!(hops("v1.14.0", "v1.15.0"), "no way to v1.15.0 from v1.14.0 is known");
        assert!(hops("v1.14.0", "v1.13.9").contains("newer"));
    }

    #[test]
    fn kubernetes_goes_along_as_far_as_talos_needs_it_to() {
        let runs = |text: &str| {
            let (talos, kubernetes) = text.split_once(' ').unwrap();
            Runs { talos: v(talos), kubernetes: v(kubernetes) }
        };
        let all = |from: &str, to: &str| {
            let patch = |minor| (minor == 31).then_some(9);
            let hop = |hop: &Hop| match hop {
                Hop::Talos(version) => format!("talos {version}"),
                Hop::Kubernetes(version) => format!("kubernetes {version}"),
            };
            match way(&runs(from), &runs(to), &patch) {
                Ok(hops) => hops.iter().map(hop).collect::<Vec<_>>().join(", "),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(all("v1.14.1 v1.36.3", "v1.14.1 v1.36.3"), "");
        assert_eq!(all("v1.13.9 v1.36.1", "v1.14.1 v1.37.0"), "talos v1.14.1, kubernetes v1.37.0");
        assert_eq!(
            all("v1.12.0 v1.30.4", "v1.14.1 v1.33.2"),
            "kubernetes v1.31.9, talos v1.13.9, kubernetes v1.32.0, talos v1.14.1, kubernetes v1.33.2"
        );
        // Older than the table: nothing is known of what it runs, and the way goes on.
        assert_eq!(all("v1.11.0 v1.29.0", "v1.12.11 v1.30.0"), "kubernetes v1.30.0, talos v1.12.11");
        assert_eq!(
            all("v1.13.9 v1.36.1", "v1.13.9 v1.37.0"),
            "Talos 1.13 runs Kubernetes 1.31 to 1.36, not v1.37.0"
        );
        assert!(all("v1.14.1 v1.37.0", "v1.14.1 v1.36.3").contains("newer"));
        assert!(all("v1.14.1 v1.37.0", "v1.13.9 v1.36.3").contains("newer"));
        assert!(all("v1.12.0 v1.30.0", "v1.14.1 v1.31.0").contains("not v1.31.0"));
    }

    #[test]
    fn kubernetes_goes_one_minor_at_a_time_within_what_talos_runs() {
        let way = |from: &str, to: &str, talos| {
            kubernetes_hops(&v(from), &v(to), talos, &|minor| (minor == 35).then_some(7))
                .map(|hops| hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(way("v1.34.1", "v1.36.3", Release::V1_13), "v1.35.7 v1.36.3");
        assert_eq!(way("v1.36.1", "v1.36.3", Release::V1_14), "v1.36.3");
        assert_eq!(
            way("v1.36.0", "v1.37.0", Release::V1_13),
            "Talos 1.13 runs Kubernetes 1.31 to 1.36, not v1.37.0"
        );
        assert!(way("v1.36.1", "v1.35.0", Release::V1_14).contains("newer"));
    }
}
