//! Where the programs go on a machine, and which of them go there as container images.

use super::{KUBE, Program, ProgramsError};
use crate::names::{CNI_PLUGINS, IMAGE_COREDNS, IMAGE_PAUSE, IMAGE_PROBE};
use crate::oci::{Archive, Entry, Image, OciError, archive};
use crate::pause;
use bramble_api::names::Arch;

const CNI: &[&str] = &["bridge", "host-local", "loopback", "portmap"];

/// One path of the root image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed<'a> {
    /// A program's file, mode 0755.
    File {
        /// Absolute path.
        path: String,
        /// What lies there.
        program: &'a Program,
    },
    /// A symbolic link.
    Link {
        /// Absolute path.
        path: String,
        /// Where it leads.
        target: &'static str,
    },
}

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its program is missing or unreadable.
    #[error("reading the program of an image")]
    Program(#[source] ProgramsError),
    /// Its archive cannot be made.
    #[error("making the archive of an image")]
    Archive(#[source] OciError),
}

/// Where the units expect the programs. Those that only run in containers have no place.
pub fn place(programs: &[Program]) -> Vec<Placed<'_>> {
    let mut placed = Vec::new();
    for program in programs {
        let directory = match program.name.as_str() {
            "coredns" | "probe" => continue,
            name if CNI.contains(&name) => CNI_PLUGINS,
            _ => "/usr/bin",
        };
        placed.push(Placed::File { path: format!("{directory}/{}", program.name), program });
        if program.name == "kube" {
            placed.extend(
                KUBE.iter().map(|name| Placed::Link { path: format!("/usr/bin/{name}"), target: "kube" }),
            );
        }
    }
    placed
}

/// The container images of a release, with their file names below [`crate::names::IMAGES`].
///
/// The list `index` that belongs beside them is [`crate::oci::index`]'s.
pub fn images(arch: Arch, programs: &[Program]) -> Result<Vec<(Archive, &'static str)>, ImageError> {
    let content = |name: &str| -> Result<Option<Vec<u8>>, ImageError> {
        let Some(program) = programs.iter().find(|p| p.name == name) else { return Ok(None) };
        std::fs::read(&program.path).map(Some).map_err(|source| {
            ImageError::Program(ProgramsError::Store { path: program.path.clone(), source })
        })
    };
    let mut made = Vec::new();
    for (name, file, program, content) in [
        (IMAGE_PAUSE, "pause.tar", "pause", Some(pause::elf(arch))),
        (IMAGE_COREDNS, "coredns.tar", "coredns", content("coredns")?),
        // The test image is a luxury: release files do not have its program.
        (IMAGE_PROBE, "probe.tar", "probe", content("probe")?),
    ] {
        let Some(content) = content else { continue };
        let path = format!("/{program}");
        let image = Image {
            name,
            arch,
            entries: vec![Entry { path: path.clone(), mode: 0o755, content }],
            entrypoint: vec![path],
            // CoreDNS binds port 53 by a capability that the manifest leaves it, which only root keeps.
            user: if program == "coredns" { "0:0" } else { "65535:65535" },
        };
        made.push((archive(&image).map_err(ImageError::Archive)?, file));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str) -> Program {
        Program {
            name: name.into(),
            version: "v1".into(),
            source: "directory",
            key: String::new(),
            path: format!("/nowhere/{name}").into(),
            sha256: String::new(),
        }
    }

    #[test]
    fn units_find_what_they_start() {
        let programs = ["kube", "bridge", "coredns", "containerd"].map(program);
        let paths: Vec<String> = place(&programs)
            .into_iter()
            .map(|p| match p {
                Placed::File { path, .. } => path,
                Placed::Link { path, target } => format!("{path} -> {target}"),
            })
            .collect();
        assert_eq!(
            paths,
            [
                "/usr/bin/kube",
                "/usr/bin/etcd -> kube",
                "/usr/bin/kube-apiserver -> kube",
                "/usr/bin/kube-controller-manager -> kube",
                "/usr/bin/kube-proxy -> kube",
                "/usr/bin/kube-scheduler -> kube",
                "/usr/bin/kubectl -> kube",
                "/usr/bin/kubelet -> kube",
                "/usr/lib/cni/bridge",
                "/usr/bin/containerd",
            ]
        );
    }

    #[test]
    fn a_program_that_went_away_is_named() {
        let error = images(Arch::Amd64, &[program("coredns")]).map(|_| ());
        assert!(
            matches!(&error, Err(ImageError::Program(ProgramsError::Store { path, .. })) if path.ends_with("coredns")),
            "{error:?}"
        );
    }

    #[test]
    fn without_the_others_there_is_still_a_pause() -> Result<(), ImageError> {
        let made = images(Arch::Arm64, &[])?;
        assert_eq!(
            made.iter().map(|(a, f)| (a.name.as_str(), *f)).collect::<Vec<_>>(),
            [(IMAGE_PAUSE, "pause.tar")]
        );
        Ok(())
    }
}
