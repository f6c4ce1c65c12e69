//! What the building hands do for k3s: its release file, what a node is made to be, its registries.

use super::Builder;
use crate::vault::Vault;
use bramble_api::document::MachineDocument;
use bramble_api::event::Outcome;
use bramble_api::lock::LockedProgram;
use bramble_api::names::{Arch, Role};
use bramble_debian::assemble::{ExtraBody, ExtraFile};
use bramble_debian::tree::Content;
use bramble_effects::{Class, Context, Failure};
use bramble_kube::k3s::flags::Table;
use bramble_kube::k3s::identity::{self, Secrets};
use bramble_kube::k3s::registries::{self, Registry};
use bramble_kube::k3s::release::Entry;
use bramble_kube::k3s::source::{self, Source, SourceError};
use bramble_kube::k3s::{self, layout};
use bramble_kube::pki::Authority;
use bramble_kube::programs::{Program, ProgramsError, Progress};
use bramble_secrets::{SecretText, random_hex};
use bramble_spec::{Certificate, Distribution, EffectiveNode};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of the passwords in tokens and of nodes; k3s' own have as many.
const PASSWORD: usize = 16;

/// An archive of container images that machines carry.
#[derive(Clone)]
pub(super) struct ImageFile {
    /// As the user calls it.
    name: String,
    /// SHA-256, hexadecimal.
    sha256: String,
    content: Content,
}

impl ImageFile {
    pub(super) fn new(name: &str, content: Content) -> ImageFile {
        let sha256 = hex::encode(Sha256::digest(&content[..]));
        ImageFile { name: name.to_string(), sha256, content }
    }

    /// As the bill of materials has it.
    pub(super) fn locked(&self, version: &str) -> LockedProgram {
        LockedProgram {
            name: self.name.clone(),
            version: version.to_string(),
            source: "path".into(),
            key: self.sha256.clone(),
            sha256: self.sha256.clone(),
        }
    }
}

impl Builder<'_> {
    /// Whether the cluster is one of k3s.
    pub(super) fn is_k3s(&self) -> bool {
        self.cluster.spec.kubernetes.distribution == Distribution::K3s
    }

    /// The release file of an architecture. One that the lock does not have yet is taken apart, to see that it is what
    /// it should be.
    pub(super) fn k3s_program(
        &self,
        arch: Arch,
        version: &str,
        before: Option<&[LockedProgram]>,
        context: &Context<'_>,
    ) -> Result<Program, Failure> {
        let source = match &self.cluster.spec.kubernetes.source {
            bramble_spec::Source::Path(path) => Source::Path(self.project.directory.join(path)),
            _ => Source::Release,
        };
        let locked = before.and_then(|list| list.iter().find(|p| p.name == "k3s" && p.version == version));
        let tell = |p: Progress<'_>| {
            context.progress(
                p.done,
                p.total,
                bramble_api::event::Unit::Bytes,
                &format!("{}: {}", p.recipe, p.line),
            );
        };
        let pinned = locked.filter(|p| p.source == "release").map(|p| p.sha256.as_str());
        let cache = &self.project.cache;
        let program = source::fetch(arch, version, &source, pinned, cache, &tell, context.cancel.flag())
            .map_err(|e| failure(arch, version, e))?;
        let kubectl = kubectl_path(cache, &program.sha256);
        let here = std::env::consts::ARCH.parse::<Arch>().ok() == Some(arch);
        if locked.is_none_or(|p| p.sha256 != program.sha256) || (here && !kubectl.exists()) {
            let release = source::open(&program, arch).map_err(|e| failure(arch, version, e))?;
            if let Some(Entry::File { content, .. }) = release.entries.get("bin/k3s").filter(|_| here) {
                keep_kubectl(&kubectl, content)
                    .map_err(|e| Failure::user(format!("cannot write {}", kubectl.display())).source(e))?;
            }
        }
        Ok(program)
    }

    /// Archives of images that the file names, for an architecture.
    pub(super) fn k3s_images(&self, arch: Arch) -> Result<Vec<ImageFile>, Failure> {
        let named = self.cluster.spec.kubernetes.k3s.iter().flat_map(|k3s| &k3s.images);
        let other = Arch::ALL.into_iter().filter(|a| *a != arch).map(Arch::debian).collect::<Vec<_>>();
        let mut images = Vec::new();
        for image in named {
            let path = self.project.directory.join(image);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if other.iter().any(|other| name.contains(other)) {
                continue;
            }
            // Read, not mapped: it is the user's file, who may write to it.
            let content = std::fs::read(&path).map_err(|e| {
                Failure::user(format!("cannot read the archive of images {}", path.display()))
                    .source(e)
                    .hint("`kubernetes.k3s.images` names files relative to bramble.yaml")
            })?;
            images.push(ImageFile::new(&name, content.into()));
        }
        Ok(images)
    }

    /// Makes what a node needs to be itself.
    pub(super) fn issue_k3s_identity(&self, vault: &Vault, node: &EffectiveNode) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let cluster = self.cluster.metadata.name.to_string();
        let role = match node.role {
            bramble_spec::Role::ControlPlane => Role::ControlPlane,
            bramble_spec::Role::Worker => Role::Worker,
            bramble_spec::Role::Management => Role::Management,
        };
        let authorities = vault.authorities(&cluster, now)?;
        let secrets = cluster_secrets(vault, &cluster, now)?;
        let password = random_hex(PASSWORD).map_err(no_randomness)?;
        let files = identity::node_files(&authorities, &secrets, role, password.expose())
            .map_err(|e| Failure::user(format!("cannot make what {} needs for k3s", node.name)).source(e))?;
        vault.set_kubernetes(&node.name, &files)?;
        vault.save(now)?;
        Ok(Outcome::Done)
    }

    /// Where images come from: what the file says, and what it leaves to the secrets file.
    pub(super) fn k3s_registries(&self) -> Result<BTreeMap<String, String>, Failure> {
        let spec = &self.cluster.spec;
        let embedded = spec.kubernetes.k3s.as_ref().is_some_and(|k3s| k3s.embedded_registry);
        let mut all = Vec::new();
        for (name, registry) in &spec.network.registries.0 {
            let login = match (&registry.username, &registry.password) {
                // A rehearsal logs in nowhere.
                (Some(username), Some(password)) if self.lab.is_none() => {
                    let name = password.name.0.as_str();
                    let secret = (self.vault)()?.get(&["user", name]).ok_or_else(|| {
                        Failure::user(format!("the secrets file has no `user.{name}`"))
                            .hint("the password of a registry belongs there: `bramble secrets edit`")
                    })?;
                    Some((username.clone(), secret.expose().clone()))
                }
                _ => None,
            };
            let authority = registry.ca.as_ref().map(|ca| self.certificate(ca)).transpose()?;
            let mirrors = registry.mirrors.iter().map(ToString::to_string).collect();
            all.push(Registry { name: name.clone(), mirrors, login, authority });
        }
        Ok(registries::files(&all, embedded))
    }

    fn certificate(&self, certificate: &Certificate) -> Result<String, Failure> {
        match certificate {
            Certificate::Pem(text) => Ok(text.clone()),
            Certificate::File(path) => {
                let path = self.project.directory.join(path);
                std::fs::read_to_string(&path).map_err(|e| {
                    Failure::user(format!("cannot read the registry's authority {}", path.display()))
                        .source(e)
                })
            }
        }
    }

    /// Holds a machine's rendered configuration against k3s' own flags: k3s would pass over what it does not know.
    pub(super) fn check_k3s(&self, document: &MachineDocument) -> Result<(), Failure> {
        let version = self.cluster.spec.kubernetes.version.to_string();
        let checked =
            Table::of(&version).and_then(|table| table.check(document.machine.role, &k3s::render(document)));
        checked.map_err(|e| {
            Failure::bug(format!("the configuration of k3s for {} is wrong", document.machine.name)).source(e)
        })
    }
}

/// The files of the root that hold a release, and images beside it.
pub(super) fn placed(program: &Program, arch: Arch, images: &[ImageFile]) -> Result<Vec<ExtraFile>, Failure> {
    let release = source::open(program, arch).map_err(|e| failure(arch, &program.version, e))?;
    let paths: Vec<String> = images.iter().map(|i| layout::image_path(&i.name, &i.sha256)).collect();
    let mut extra = Vec::new();
    for (image, path) in images.iter().zip(&paths) {
        let body = ExtraBody::File { mode: 0o644, content: image.content.clone() };
        extra.push(ExtraFile { path: path.clone(), body });
    }
    for placed in layout::place(release, &paths) {
        let body = match placed.entry {
            Entry::Link { target } => ExtraBody::Symlink { target },
            Entry::File { mode, content } => ExtraBody::File { mode, content: content.into() },
        };
        extra.push(ExtraFile { path: placed.path, body });
    }
    Ok(extra)
}

/// What the cluster has beside its authorities, made at its first use. The caller saves.
///
/// ```yaml
/// k3s: { serverPassword, agentPassword, etcdPeer: { certificate, key } }
/// ```
fn cluster_secrets(vault: &Vault, cluster: &str, now: u64) -> Result<Secrets, Failure> {
    let password = |key: &str| -> Result<String, Failure> {
        let place = ["k3s", key];
        if let Some(kept) = vault.get(&place) {
            return Ok(kept.expose().clone());
        }
        let made = random_hex(PASSWORD).map_err(no_randomness)?;
        let text = made.expose().clone();
        vault.set(&place, made)?;
        Ok(text)
    };
    let at = |key: &'static str| ["k3s", "etcdPeer", key];
    let etcd_peer = match (vault.get(&at("certificate")), vault.get(&at("key"))) {
        (Some(certificate), Some(key)) => Authority {
            certificate: certificate.expose().clone(),
            key: key.expose().clone(),
            trusted: Vec::new(),
        },
        _ => {
            let made = identity::etcd_peer(cluster, now)
                .map_err(|e| Failure::bug("cannot make the authority of etcd's members").source(e))?;
            vault.set(&at("certificate"), SecretText::new(made.certificate.clone()))?;
            vault.set(&at("key"), SecretText::new(made.key.clone()))?;
            made
        }
    };
    Ok(Secrets {
        server_password: password("serverPassword")?,
        agent_password: password("agentPassword")?,
        etcd_peer,
    })
}

fn no_randomness(error: bramble_secrets::NoRandomness) -> Failure {
    Failure::bug("this computer gives no random numbers").source(error)
}

fn failure(arch: Arch, version: &str, error: SourceError) -> Failure {
    let hint = error.hint().map(str::to_string);
    let cancelled = matches!(error, SourceError::Programs(ProgramsError::Cancelled));
    let class = if cancelled { Class::Interrupted } else { Class::User };
    Failure { class, hint, ..Failure::user(format!("cannot get k3s {version} for {arch}")).source(error) }
}

/// Keeps the release's own program, whole or not at all.
fn keep_kubectl(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&new, content)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(new, path)
}

/// Where `kubectl` of a release is kept for this computer: the release's own program, which is kubectl when told so.
pub(super) fn kubectl_path(cache: &Path, sha256: &str) -> std::path::PathBuf {
    cache.join("programs").join(format!("{sha256}-k3s")).join("k3s")
}
