//! Building a release: from locked packages and programs to a root, a unified kernel image and a manifest.

use super::Builder;
use bramble_api::event::{Outcome, Unit};
use bramble_api::lock::AllocatedRelease;
use bramble_api::names::{Arch, path};
use bramble_debian::assemble::{self, AssembleInput, ExtraBody, ExtraFile};
use bramble_debian::scripts::Acceptance;
use bramble_debian::tree::Content;
use bramble_effects::{Context, Failure};
use bramble_image::firmware::{Firmware, Lines};
use bramble_image::release::{self, Release, ReleaseInput};
use bramble_kube::{k3s, upstream};
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
        (self.vault)()?.save(self.clock.now())?;
        let mut cmdline: Vec<String> = CMDLINE.iter().map(|word| word.to_string()).collect();
        cmdline.extend(bramble_plan::kernel_args(self.cluster, arch));
        cmdline.extend(self.cmdline.iter().cloned());
        let boards = bramble_plan::boards(self.cluster, arch);
        let firmware_lines = bramble_plan::firmware_lines(self.cluster, arch);
        let users = self.lock().users.clone();
        let accepted = self.accepted();
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
        ));
        let directory = self.release_directory(arch);
        let before = self.lock().allocated.releases.get(&arch).cloned().unwrap_or_default();
        let version = if before.inputs == inputs { before.version } else { before.version + 1 };
        if release::open(&directory).is_ok_and(|r| r.inputs == inputs && r.is_signed_by(&key)) {
            return Ok(Outcome::Unchanged);
        }
        context.progress(0, 0, Unit::Items, "laying out the root");
        let extra_files = self.extra_files(&programs)?;
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
        let kubernetes = Some(self.cluster.spec.kubernetes.version.to_string());
        let built = release::build(&ReleaseInput {
            inputs: inputs.clone(),
            cluster,
            version,
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
            kubernetes,
            tool: env!("CARGO_PKG_VERSION").to_string(),
            sbom: &assembled.sbom,
            out: directory,
        })
        .map_err(|e| Failure::user(format!("cannot write the release for {arch}")).source(e))?;
        {
            let mut lock = self.lock();
            lock.users = assembled.users;
            // Rehearsing uses up no number.
            if self.lab.is_none() {
                lock.allocated.releases.insert(arch, AllocatedRelease { version, inputs });
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
