//! From what is wanted, locked and seen to the steps that remain.

use crate::{Sources, digest};
use bramble_api::lock::Lock;
use bramble_api::names::Arch;
use bramble_api::plan::{CardStart, NotServed, Plan, Step, StepId, StepKind, Waiting};
use std::collections::BTreeSet;

/// A node as far as planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// Its processor.
    pub arch: Arch,
    /// Whether this version can make an image for its board.
    pub served: bool,
    /// Whether it is a control plane: those are started first.
    pub control_plane: bool,
}

/// What is wanted, reduced to what planning looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the cluster.
    pub cluster: String,
    /// Kubernetes version with `v`.
    pub kubernetes: String,
    /// Nodes in the file's order.
    pub nodes: Vec<PlannedNode>,
    /// Parts of the file that are not acted on.
    pub not_served: Vec<NotServed>,
    /// Digest of what Debian is asked for, by architecture; see [`crate::package_request_digest`].
    pub package_requests: std::collections::BTreeMap<Arch, String>,
}

/// What was seen of the site. May be stale; says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Seconds since the epoch when it was collected.
    pub observed_at: u64,
    /// Lab machines that are powered on.
    pub lab_running: BTreeSet<String>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Choose packages. With `update` also where the lock still fits.
    Lock {
        /// Choose anew even if the lock fits.
        update: bool,
    },
    /// Get everything that a build needs onto this computer.
    Fetch {
        /// For these architectures; all that the file uses when empty.
        archs: Vec<Arch>,
    },
    /// Build releases, and images for the named nodes.
    Build {
        /// For these architectures; all that the file uses when empty.
        archs: Vec<Arch>,
        /// Write disk images, with identities, for these.
        images: Vec<String>,
    },
    /// Build releases and put them where machines fetch them.
    Release {
        /// For these architectures; all that the file uses when empty.
        archs: Vec<Arch>,
    },
    /// Write nodes onto disks that were confirmed.
    Flash {
        /// Each node with the kernel name of its disk.
        disks: Vec<(String, String)>,
        /// What they start with.
        start: CardStart,
    },
    /// Bring the lab up.
    LabUp {
        /// These machines; all when empty.
        nodes: Vec<String>,
    },
    /// Write lab disks anew, as cards are flashed that were used before.
    LabFlash {
        /// Of these machines.
        nodes: Vec<String>,
        /// What they start with.
        start: CardStart,
    },
}

impl Purpose {
    /// The words for it on the command line.
    pub fn words(&self) -> &'static str {
        match self {
            Purpose::Lock { .. } => "lock",
            Purpose::Fetch { .. } => "fetch",
            Purpose::Build { .. } => "build",
            Purpose::Release { .. } => "release",
            Purpose::Flash { .. } => "flash",
            Purpose::LabUp { .. } => "lab up",
            Purpose::LabFlash { .. } => "lab flash",
        }
    }
}

/// Makes the plan. Pure: the same arguments give the same plan.
pub fn plan(
    wanted: &Wanted,
    sources: &Sources,
    lock: &Lock,
    inventory: &Inventory,
    purpose: &Purpose,
) -> Plan {
    let mut builder = Builder { wanted, lock, steps: Vec::new(), waiting: Vec::new() };
    match purpose {
        Purpose::Lock { update } => {
            for arch in builder.archs(&[]) {
                builder.lock(arch, *update);
            }
        }
        Purpose::Fetch { archs } => {
            for arch in builder.archs(archs) {
                builder.fetch(arch);
            }
        }
        Purpose::Build { archs, images } => {
            for arch in builder.archs(archs) {
                builder.release(arch);
            }
            for node in wanted.nodes.iter().filter(|n| images.contains(&n.name)) {
                builder.image(node);
            }
        }
        Purpose::Release { archs } => {
            for arch in builder.archs(archs) {
                let built = builder.release(arch);
                builder.step(
                    format!("publish-release/{arch}"),
                    StepKind::PublishRelease { arch },
                    vec![built],
                    format!("machines of {arch} update themselves from it"),
                );
            }
        }
        Purpose::Flash { disks, start } => {
            builder.flash(disks, *start);
        }
        Purpose::LabUp { nodes } => builder.lab(nodes, inventory),
        Purpose::LabFlash { nodes, start } => {
            for node in wanted.nodes.iter().filter(|n| nodes.contains(&n.name)) {
                builder.lab_flash(node, *start);
            }
        }
    }
    let Builder { steps, waiting, .. } = builder;
    Plan {
        format: 1,
        cluster: wanted.cluster.clone(),
        purpose: purpose.words().to_string(),
        inputs: digest(&(sources, lock)),
        steps,
        not_served: wanted.not_served.clone(),
        waiting,
    }
}

struct Builder<'a> {
    wanted: &'a Wanted,
    lock: &'a Lock,
    steps: Vec<Step>,
    waiting: Vec<Waiting>,
}

impl Builder<'_> {
    /// The asked architectures, or those of the nodes that can be served.
    fn archs(&self, asked: &[Arch]) -> Vec<Arch> {
        let used: BTreeSet<Arch> = if asked.is_empty() {
            self.wanted.nodes.iter().filter(|n| n.served).map(|n| n.arch).collect()
        } else {
            asked.iter().copied().collect()
        };
        used.into_iter().collect()
    }

    /// Adds a step unless it is there; returns its name.
    fn step(&mut self, id: String, kind: StepKind, after: Vec<StepId>, why: impl Into<String>) -> StepId {
        let id = StepId(id);
        if !self.steps.iter().any(|s| s.id == id) {
            self.steps.push(Step { id: id.clone(), kind, after, why: why.into() });
        }
        id
    }

    fn lock(&mut self, arch: Arch, update: bool) -> Option<StepId> {
        let wanted = self.wanted.package_requests.get(&arch);
        let why = match self.lock.packages.get(&arch) {
            None => format!("the lock has no packages for {arch}"),
            Some(set) if Some(&set.request) != wanted => {
                format!("the file asks for other packages for {arch} than the lock has")
            }
            Some(_) if update => format!("the newest packages for {arch} were asked for"),
            Some(_) => return None,
        };
        Some(self.step(format!("lock-packages/{arch}"), StepKind::LockPackages { arch }, vec![], why))
    }

    fn fetch(&mut self, arch: Arch) -> Vec<StepId> {
        let locked = self.lock(arch, false);
        let packages = self.step(
            format!("fetch-packages/{arch}"),
            StepKind::FetchPackages { arch },
            locked.into_iter().collect(),
            format!("an image for {arch} is made of them"),
        );
        let version = self.wanted.kubernetes.clone();
        let programs = self.step(
            format!("fetch-programs/{arch}"),
            StepKind::FetchPrograms { arch, version: version.clone() },
            vec![],
            format!("the file asks for Kubernetes {version}"),
        );
        vec![packages, programs]
    }

    fn release(&mut self, arch: Arch) -> StepId {
        let after = self.fetch(arch);
        self.step(
            format!("build-release/{arch}"),
            StepKind::BuildRelease { arch },
            after,
            format!("nodes of {arch} start from it"),
        )
    }

    /// `None` when this version has no image for the node's board; the plan says so.
    fn served(&mut self, node: &PlannedNode) -> bool {
        if !node.served {
            self.waiting.push(Waiting {
                subject: node.name.clone(),
                on: "this version of bramble makes no image for its board or distribution yet".to_string(),
            });
        }
        node.served
    }

    fn image(&mut self, node: &PlannedNode) {
        if !self.served(node) {
            return;
        }
        let release = self.release(node.arch);
        let name = &node.name;
        let identity = self.step(
            format!("issue-identity/{name}"),
            StepKind::IssueIdentity { node: name.clone() },
            vec![],
            "a machine joins with the keys on its card, not with a token",
        );
        self.step(
            format!("write-image/{name}"),
            StepKind::WriteImage { node: name.clone() },
            vec![release, identity],
            "an image file with this node's identity was asked for",
        );
    }

    /// Everything that can fail without a disk comes first; the disks are last and side by side.
    fn flash(&mut self, disks: &[(String, String)], start: CardStart) {
        let wanted = self.wanted;
        let mut ready = Vec::new();
        for (name, disk) in disks {
            let Some(node) = wanted.nodes.iter().find(|n| n.name == *name) else { continue };
            if !self.served(node) {
                continue;
            }
            let release = self.release(node.arch);
            let identity = self.step(
                format!("issue-identity/{name}"),
                StepKind::IssueIdentity { node: name.clone() },
                vec![],
                "a machine joins with the keys on its card, not with a token",
            );
            ready.push((name, disk, vec![release, identity]));
        }
        for (name, disk, after) in ready {
            self.step(
                format!("flash/{name}"),
                StepKind::FlashDisk { node: name.clone(), disk: disk.clone(), start },
                after,
                format!("{disk} is to become {name}"),
            );
        }
    }

    fn lab_flash(&mut self, node: &PlannedNode, start: CardStart) {
        if !self.served(node) {
            return;
        }
        let release = self.release(node.arch);
        self.step(
            format!("lab-flash/{}", node.name),
            StepKind::LabFlash { node: node.name.clone(), start },
            vec![release],
            match start {
                CardStart::Empty => "its disk is to be written anew",
                CardStart::KeepData => "its disk is to be written anew, data kept",
                CardStart::Found => "its disk is to be written anew, and found the cluster",
            },
        );
    }

    fn lab(&mut self, asked: &[String], inventory: &Inventory) {
        let wanted = self.wanted;
        let mut nodes: Vec<&PlannedNode> =
            wanted.nodes.iter().filter(|n| asked.is_empty() || asked.contains(&n.name)).collect();
        // Workers have nothing to reach before the control plane answers, and two cores are few.
        nodes.sort_by_key(|n| !n.control_plane);
        nodes.retain(|n| self.served(n));
        let mut disks = Vec::new();
        for node in &nodes {
            let release = self.release(node.arch);
            disks.push(self.step(
                format!("lab-disk/{}", node.name),
                StepKind::LabDisk { node: node.name.clone() },
                vec![release],
                "a lab machine starts from its own disk with the lab's identity",
            ));
        }
        let start = self.step(
            "lab-start".to_string(),
            StepKind::LabStart,
            disks,
            "switch, gateway and disks of the lab are one process on this computer",
        );
        for node in &nodes {
            let name = &node.name;
            let why = if inventory.lab_running.contains(name) { "is on; looked at again" } else { "is off" };
            self.step(
                format!("lab-power/{name}"),
                StepKind::LabPower { node: name.clone() },
                vec![start.clone()],
                format!("{name} {why}"),
            );
        }
        for node in &nodes {
            let name = &node.name;
            self.step(
                format!("lab-ready/{name}"),
                StepKind::LabReady { node: name.clone() },
                vec![StepId(format!("lab-power/{name}"))],
                "the lab is up when its nodes are Ready",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::lock::PackageSet;

    fn wanted() -> Wanted {
        let node = |name: &str, arch, served, control_plane| PlannedNode {
            name: name.into(),
            arch,
            served,
            control_plane,
        };
        Wanted {
            cluster: "home".into(),
            kubernetes: "v1.36.3".into(),
            nodes: vec![
                node("w", Arch::Amd64, true, false),
                node("cp", Arch::Amd64, true, true),
                node("pi", Arch::Arm64, false, false),
            ],
            not_served: vec![],
            package_requests: [(Arch::Amd64, "r1".to_string()), (Arch::Arm64, "r2".to_string())].into(),
        }
    }

    fn ids(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|s| s.id.0.as_str()).collect()
    }

    fn make(lock: &Lock, purpose: Purpose) -> Plan {
        let plan = plan(&wanted(), &Sources::default(), lock, &Inventory::default(), &purpose);
        assert_eq!(crate::lint(&plan), []);
        plan
    }

    #[test]
    fn a_lab_starts_the_control_plane_first_and_says_what_it_leaves_out() {
        let plan = make(&Lock::default(), Purpose::LabUp { nodes: vec![] });
        assert_eq!(
            ids(&plan),
            [
                "lock-packages/amd64",
                "fetch-packages/amd64",
                "fetch-programs/amd64",
                "build-release/amd64",
                "lab-disk/cp",
                "lab-disk/w",
                "lab-start",
                "lab-power/cp",
                "lab-power/w",
                "lab-ready/cp",
                "lab-ready/w",
            ]
        );
        assert_eq!(plan.waiting.len(), 1);
        assert_eq!(plan.waiting[0].subject, "pi");
    }

    #[test]
    fn flashing_a_lab_machine_touches_no_other() {
        let plan =
            make(&Lock::default(), Purpose::LabFlash { nodes: vec!["w".into()], start: CardStart::KeepData });
        assert_eq!(ids(&plan)[3..], ["build-release/amd64", "lab-flash/w"]);
    }

    #[test]
    fn disks_come_last_and_beside_each_other() {
        let disks =
            vec![("w".into(), "sdb".into()), ("cp".into(), "sdc".into()), ("pi".into(), "sdd".into())];
        let plan = make(&Lock::default(), Purpose::Flash { disks, start: CardStart::Empty });
        assert_eq!(
            ids(&plan)[3..],
            ["build-release/amd64", "issue-identity/w", "issue-identity/cp", "flash/w", "flash/cp"]
        );
        assert_eq!(plan.waiting[0].subject, "pi");
        assert!(plan.steps.iter().rev().take(2).all(|s| s.kind.side_by_side()));
    }

    #[test]
    fn a_release_is_built_before_it_is_published() {
        let plan = make(&Lock::default(), Purpose::Release { archs: vec![Arch::Amd64] });
        assert_eq!(ids(&plan)[3..], ["build-release/amd64", "publish-release/amd64"]);
        assert_eq!(plan.steps[4].after, [StepId("build-release/amd64".into())]);
    }

    #[test]
    fn a_lock_that_fits_is_left_alone_unless_an_update_is_asked_for() {
        let mut lock = Lock::default();
        lock.packages.insert(Arch::Amd64, PackageSet { request: "r1".into(), ..PackageSet::default() });
        assert_eq!(ids(&make(&lock, Purpose::Lock { update: false })), [] as [&str; 0]);
        assert_eq!(ids(&make(&lock, Purpose::Lock { update: true })), ["lock-packages/amd64"]);
        lock.packages.insert(Arch::Amd64, PackageSet { request: "old".into(), ..PackageSet::default() });
        assert_eq!(ids(&make(&lock, Purpose::Lock { update: false })), ["lock-packages/amd64"]);
    }

    #[test]
    fn an_image_is_written_only_for_who_was_named() {
        let plan = make(&Lock::default(), Purpose::Build { archs: vec![], images: vec!["cp".into()] });
        assert!(ids(&plan).contains(&"write-image/cp"));
        assert!(!ids(&plan).iter().any(|i| i.starts_with("issue-identity/w")));
    }
}
