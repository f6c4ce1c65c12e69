//! Building a release: from locked packages and programs to a root, a unified kernel image and a manifest.

use super::Builder;
use crate::keys::ReleaseKeys;
use bramble_api::document::Distribution;
use bramble_api::event::{Outcome, Unit};
use bramble_api::lock::AllocatedRelease;
use bramble_api::manifest::Kubernetes;
use bramble_api::names::{Arch, Role, path};
use bramble_debian::assemble::{self, AssembleInput, ExtraBody, ExtraFile};
use bramble_debian::scripts::Acceptance;
use bramble_debian::tree::Content;
use bramble_effects::{Context, Failure};
use bramble_image::firmware::{Firmware, Lines};
use bramble_image::release::{self, Release, ReleaseInput};
use bramble_kube::{k3s, upstream};
use bramble_spec::OrNone;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Unit of the agent, enabled on every machine.
const AGENT_UNIT: &str = include_str!("../../../../dist/units/bramble-agent.service");

/// Units that this system wants beyond what their packages enable.
const ENABLE: &[&str] = &["systemd-networkd.service", "systemd-resolved.service", "bramble-agent.service"];

/// Words for the kernel's command line on every machine. No login prompts: nobody has a password, and what is typed
/// would be gone at the next boot.
const CMDLINE: &[&str] = &["systemd.getty_auto=no"];

/// Units that stay off until the machine document or the user's workload wants them. Kubernetes' own are enabled
/// by the document.
const DISABLE: &[&str] = &[
    "getty@tty1.service",
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "iscsid.service",
    "iscsid.socket",
    "open-iscsi.service",
    "rpcbind.service",
    "rpcbind.socket",
    "nfs-client.target",
    "nfs-blkmap.service",
    "nftables.service",
    "wpa_supplicant.service",
    "e2scrub_reap.service",
    "e2scrub_all.timer",
    "fstrim.timer",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
];

/// Units that have no place on a machine whose root and /etc are made anew at every boot.
const MASK: &[&str] = &[
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-remount-fs.service",
    "systemd-boot-random-seed.service",
    "systemd-boot-update.service",
    "systemd-boot-check-no-failures.service",
    "systemd-update-done.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "ldconfig.service",
];

impl Builder<'_> {
    fn release_directory(&self, arch: Arch) -> PathBuf {
        self.out.join(arch.debian())
    }

    /// The release of an architecture as it was built.
    pub(super) fn release(&self, arch: Arch) -> Result<Release, Failure> {
        let directory = self.release_directory(arch);
        release::open(&directory).map_err(|e| {
            Failure::user(format!("there is no usable release in {}", directory.display())).source(e)
        })
    }

    /// Builds the release of an architecture, unless what is there was made from the same inputs.
    pub(super) fn build_release(&self, arch: Arch, context: &Context<'_>) -> Result<Outcome, Failure> {
        let agent = self.agent_bytes(arch)?;
        let (debs, snapshot) = self.debs(arch)?;
        let programs = self.program_files(arch, context)?;
        let program_list = programs.list();
        let key = (self.vault)()?.signing_key()?;
        let keys = ReleaseKeys::of((self.vault)()?)?;
        (self.vault)()?.save(self.clock.now())?;
        let mut cmdline: Vec<String> = CMDLINE.iter().map(|word| word.to_string()).collect();
        cmdline.extend(bramble_plan::kernel_args(self.cluster, arch));
        cmdline.extend(self.cmdline.iter().cloned());
        let boards = bramble_plan::boards(self.cluster, arch);
        let firmware_lines = bramble_plan::firmware_lines(self.cluster, arch);
        let users = self.lock().users.clone();
        let accepted = self.accepted();
        let floor = match &self.cluster.spec.os.settings.updates {
            Some(OrNone::Is(updates)) => u64::from(updates.floor),
            _ => 0,
        };
        let cluster = self.cluster.metadata.name.to_string();
        let inputs = bramble_plan::digest(&(
            env!("CARGO_PKG_VERSION"),
            hex::encode(Sha256::digest(&agent)),
            debs.iter().map(|(p, _)| &p.sha256).collect::<Vec<_>>(),
            program_list.iter().map(|p| &p.sha256).collect::<Vec<_>>(),
            (&cmdline, &boards, &cluster, arch, snapshot, self.kernel_modules(arch)),
            &firmware_lines,
            (ENABLE, DISABLE, MASK, AGENT_UNIT),
            accepted.iter().map(|a| (&a.package, &a.sha256, &a.stands)).collect::<Vec<_>>(),
            programs.images.iter().map(|(image, _)| &image.digest).collect::<Vec<_>>(),
            self.kubernetes_files().files.iter().map(|f| (&f.path, &f.content)).collect::<Vec<_>>(),
            (keys.anchor(&cluster), floor),
        ));
        let directory = self.release_directory(arch);
        let before = self.lock().allocated.releases.get(&arch).cloned().unwrap_or_default();
        let same = before.inputs == inputs;
        // The same inputs make the same release again only where files are placed as they were then.
        let placed_by = if same && before.placed_by.is_none() {
            None
        } else {
            self.placed_by(arch, before.placed_by.as_deref().filter(|_| same))?
        };
        let placed = placed_by.as_ref().map(|placed| placed.digest.clone());
        let again = same && placed == before.placed_by;
        // A lock that was not committed after a release must not make its number be used twice.
        let version = if again { before.version } else { before.version.max(self.newest(arch)?) + 1 };
        if floor > version {
            return Err(Failure::user(format!(
                "os.updates.floor is {floor}, and this would be release {version}"
            ))
            .hint("the floor is the number of a release that exists"));
        }
        let made_from = match &placed {
            None => inputs.clone(),
            Some(placed) => bramble_plan::digest(&(&inputs, placed)),
        };
        let there = release::open(&directory).ok().filter(|there| there.is_signed_by(&key));
        // What is there may be placed by a release that is not at hand now, and was not asked for.
        let as_locked = before.placed_by.as_ref().filter(|_| same && self.publishing.from.is_empty());
        let as_locked = as_locked.map(|placed| bramble_plan::digest(&(&inputs, placed)));
        if there.is_some_and(|there| there.inputs == made_from || Some(&there.inputs) == as_locked.as_ref()) {
            return Ok(Outcome::Unchanged);
        }
        if same && !again {
            context.note(format!(
                "release {} cannot be built again: the release that its files were placed by is not at hand (--from); this \
                 becomes release {version}",
                before.version
            ));
        }
        if let Some(placed) = &placed_by {
            context.note(format!("files are placed where release {} has them", placed.version));
        }
        context.progress(0, 0, Unit::Items, "laying out the root");
        let mut extra_files = self.extra_files(&programs)?;
        let anchor = serde_json::to_vec(&keys.anchor(&cluster))
            .map_err(|e| Failure::bug("the keys cannot be written").source(e))?;
        extra_files.push(ExtraFile {
            path: path::ANCHOR.to_string(),
            body: ExtraBody::File { mode: 0o644, content: anchor.into() },
        });
        let mut assembled = assemble::assemble(&AssembleInput {
            arch,
            debs,
            programs: program_list.clone(),
            epoch: snapshot,
            release: version.to_string(),
            users,
            accepted_scripts: accepted,
            enable: ENABLE.iter().map(|s| s.to_string()).collect(),
            disable: DISABLE.iter().map(|s| s.to_string()).collect(),
            mask: MASK.iter().map(|s| s.to_string()).collect(),
            modules: self.kernel_modules(arch),
            extra_files,
            cache: self.project.cache.clone(),
        })
        .map_err(|e| {
            let failure = Failure::user(format!("cannot lay out the root for {arch}")).source(e);
            failure.hint("`bramble lock --update` may have newer packages; a script you have read can be accepted in os.acceptScripts")
        })?;
        let firmware = Firmware::take(&mut assembled.tree);
        context.progress(0, 0, Unit::Items, "writing root, verity tree and kernel image");
        let kubernetes = Some(Kubernetes {
            distribution: if self.is_k3s() { Distribution::K3s } else { Distribution::Upstream },
            version: self.cluster.spec.kubernetes.version.to_string(),
            first_when_changed: Role::ControlPlane,
            first_otherwise: Role::Worker,
        });
        let input = ReleaseInput {
            inputs: made_from,
            cluster,
            version,
            floor,
            time: snapshot,
            arch,
            boards,
            tree: &assembled.tree,
            kernel: &assembled.kernel,
            agent: &agent,
            firmware: &firmware,
            firmware_lines: firmware_lines.into_iter().map(|(board, lines)| Lines { board, lines }).collect(),
            cmdline,
            signing_key: &key,
            trusted: keys.trusted.iter().map(|key| key.0).collect(),
            kubernetes,
            tool: env!("CARGO_PKG_VERSION").to_string(),
            sbom: &assembled.sbom,
            out: directory,
        };
        let built = release::build_after(&input, placed_by.as_ref().map(|placed| &placed.placement))
            .map_err(|e| Failure::user(format!("cannot write the release for {arch}")).source(e))?;
        {
            let mut lock = self.lock();
            lock.users = assembled.users;
            // Rehearsing uses up no number.
            if self.lab.is_none() {
                lock.allocated.releases.insert(arch, AllocatedRelease { version, inputs, placed_by: placed });
            }
        }
        self.keep_lock()?;
        for sentence in summary(&assembled.report, &built) {
            context.note(sentence);
        }
        Ok(Outcome::Done)
    }

    /// Modules that any machine of the architecture asks for in the file: they stay though no board needs them.
    fn kernel_modules(&self, arch: Arch) -> Vec<String> {
        bramble_plan::kernel_modules(self.cluster, arch)
    }

    fn agent_bytes(&self, arch: Arch) -> Result<Vec<u8>, Failure> {
        let path = (self.agent)(arch).ok_or_else(|| {
            Failure::user(format!("the agent for {arch} is not there")).hint(format!(
                "in a checkout: scripts/agent.sh {arch}; or name it in BRAMBLE_AGENT_{}",
                arch.debian().to_uppercase()
            ))
        })?;
        std::fs::read(&path)
            .map_err(|e| Failure::user(format!("cannot read the agent {}", path.display())).source(e))
    }

    fn accepted(&self) -> Vec<Acceptance> {
        let accepted = &self.cluster.spec.os.accept_scripts;
        accepted
            .iter()
            .map(|a| Acceptance {
                package: a.package.0.clone(),
                sha256: a.sha256.to_string(),
                stands: match &a.substitutes {
                    bramble_spec::Substitutes::None => vec![],
                    bramble_spec::Substitutes::Named(names) => names.clone(),
                },
            })
            .collect()
    }

    /// What the distribution has in every machine's root beside its programs.
    fn kubernetes_files(&self) -> upstream::Rendered {
        if self.is_k3s() { k3s::image_files() } else { upstream::image_files() }
    }

    /// Everything in the root that is not Debian's.
    fn extra_files(&self, programs: &super::ProgramFiles) -> Result<Vec<ExtraFile>, Failure> {
        let file = |path: &str, mode: u16, content: Content| ExtraFile {
            path: path.to_string(),
            body: ExtraBody::File { mode, content },
        };
        let mut extra = vec![
            file(
                "/usr/lib/systemd/system/bramble-agent.service",
                0o644,
                AGENT_UNIT.as_bytes().to_vec().into(),
            ),
            ExtraFile { path: path::DATA.to_string(), body: ExtraBody::Dir { mode: 0o755 } },
            ExtraFile {
                path: "/usr/lib/systemd/system-shutdown/bramble-node".to_string(),
                body: ExtraBody::Symlink { target: path::AGENT.to_string() },
            },
        ];
        let kubernetes = self.kubernetes_files();
        for rendered in kubernetes.files {
            extra.push(file(&rendered.path, rendered.mode as u16, rendered.content.into()));
        }
        for (path, target) in kubernetes.links {
            extra.push(ExtraFile { path, body: ExtraBody::Symlink { target } });
        }
        for placed in programs.placed()? {
            extra.push(placed);
        }
        Ok(extra)
    }
}

/// What a build did, in a few lines.
fn summary(report: &assemble::Report, built: &Release) -> Vec<String> {
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let sizes: Vec<String> =
        built.sizes.iter().map(|(part, bytes)| format!("{part} {}", mb(*bytes))).collect();
    let times: Vec<String> = report
        .steps
        .iter()
        .map(|(step, millis)| (step.to_string(), *millis))
        .chain(built.steps.iter().map(|(step, millis)| (step.to_string(), *millis)))
        .map(|(step, millis)| format!("{step} {millis} ms"))
        .collect();
    vec![
        format!("{} packages, {} files", report.packages, report.nodes),
        sizes.join(", "),
        format!("the slot is {} % full", built.slot_percent),
        times.join(", "),
    ]
}
