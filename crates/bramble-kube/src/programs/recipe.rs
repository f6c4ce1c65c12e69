//! What is built from Go modules, and how: the recipes of `dist/programs`, carried inside the tool.
//!
//! A recipe is a `go.mod` that pins every module by version, its `go.sum` that pins them by hash, and where a project's
//! own main cannot be used, a small `main.go` of ours.

use super::{COREDNS, ETCD, FLANNEL, KINE};

/// A group of programs that is built in one go, from one module.
pub(super) struct Recipe {
    /// Name, for people.
    pub(super) name: &'static str,
    /// Files of the module: name and text.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Go packages to build, and what the program of each is called.
    pub(super) packages: &'static [(&'static str, Built)],
    /// Build tags.
    pub(super) tags: &'static str,
    /// Variables to set with the linker: package path and name, value.
    pub(super) variables: &'static [(&'static str, &'static str)],
}

/// What comes out of a package.
pub(super) struct Built {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// A version of Kubernetes that there is a recipe for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supported {
    /// Version with `v`.
    pub version: &'static str,
    /// The etcd server that is built in.
    pub etcd: &'static str,
}

/// Every version of Kubernetes that this tool can build, the default first.
///
/// Another one is another directory beside `dist/programs/kube` (its `go.mod` names 33 modules that move together, and
/// its `go.sum` their hashes) and one line here.
pub const SUPPORTED: &[Supported] = &[Supported { version: "v1.36.3", etcd: ETCD }];

macro_rules! module {
    ($directory:literal: $($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../../../dist/programs/", $directory, "/", $name)))),+]
    };
}

const KUBERNETES: &str = "v1.36.3";

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        name: "kubernetes",
        files: module!("kube": "go.mod", "go.sum", "main.go"),
        packages: &[(".", Built { name: "kube", version: KUBERNETES })],
        tags: "providerless",
        variables: &[
            ("k8s.io/client-go/pkg/version.gitVersion", KUBERNETES),
            ("k8s.io/client-go/pkg/version.gitMajor", "1"),
            ("k8s.io/client-go/pkg/version.gitMinor", "36"),
            ("k8s.io/client-go/pkg/version.gitTreeState", "clean"),
            ("k8s.io/component-base/version.gitVersion", KUBERNETES),
            ("k8s.io/component-base/version.gitMajor", "1"),
            ("k8s.io/component-base/version.gitMinor", "36"),
            ("k8s.io/component-base/version.gitTreeState", "clean"),
        ],
    },
    Recipe {
        name: "containerd",
        files: module!("runtime": "go.mod", "go.sum"),
        packages: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", CONTAINERD),
            (
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                Built { name: "containerd-shim-runc-v2", version: super::CONTAINERD },
            ),
            (
                "github.com/containerd/containerd/v2/cmd/ctr",
                Built { name: "ctr", version: super::CONTAINERD },
            ),
            (
                "github.com/containernetworking/plugins/plugins/ipam/host-local",
                Built { name: "host-local", version: super::CNI },
            ),
            (
                "github.com/containernetworking/plugins/plugins/main/bridge",
                Built { name: "bridge", version: super::CNI },
            ),
            (
                "github.com/containernetworking/plugins/plugins/main/loopback",
                Built { name: "loopback", version: super::CNI },
            ),
            (
                "github.com/containernetworking/plugins/plugins/meta/portmap",
                Built { name: "portmap", version: super::CNI },
            ),
        ],
        // File systems that a Bramble machine does not have.
        tags: "no_btrfs no_zfs no_devmapper no_aufs netgo osusergo static_build",
        variables: &[
            ("github.com/containerd/containerd/v2/version.Version", super::CONTAINERD),
            ("github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion", super::CNI),
        ],
    },
    Recipe {
        name: "kine",
        files: module!("kine": "go.mod", "go.sum"),
        packages: &[("github.com/k3s-io/kine", Built { name: "kine", version: KINE })],
        tags: "",
        variables: &[],
    },
    Recipe {
        name: "flannel",
        files: module!("flannel": "go.mod", "go.sum", "main.go"),
        packages: &[(".", Built { name: "flanneld", version: FLANNEL })],
        tags: "",
        variables: &[],
    },
    Recipe {
        name: "coredns",
        files: module!("coredns": "go.mod", "go.sum", "main.go"),
        packages: &[(".", Built { name: "coredns", version: COREDNS })],
        tags: "",
        variables: &[],
    },
    Recipe {
        name: "probe",
        files: module!("probe": "go.mod", "main.go"),
        packages: &[(".", Built { name: "probe", version: "v1.0.0" })],
        tags: "",
        variables: &[],
    },
];

const CONTAINERD: Built = Built { name: "containerd", version: super::CONTAINERD };

impl Recipe {
    /// `-ldflags`: no symbol tables, and the variables.
    pub(super) fn linker_flags(&self) -> String {
        let variables = self.variables.iter().map(|(name, value)| format!(" -X {name}={value}"));
        std::iter::once("-s -w".to_string()).chain(variables).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned<'a>(recipe: &'a Recipe, module: &str) -> Option<&'a str> {
        let go_mod = recipe.files.iter().find(|(name, _)| *name == "go.mod")?.1;
        go_mod.lines().find_map(|line| {
            line.trim().trim_start_matches("require ").strip_prefix(module)?.split_whitespace().next()
        })
    }

    /// The versions that the table states are those that the modules pin.
    #[test]
    fn versions_are_those_of_the_modules() -> Result<(), Box<dyn std::error::Error>> {
        for (name, module, version) in [
            ("kubernetes", "k8s.io/kubernetes ", KUBERNETES),
            ("kubernetes", "go.etcd.io/etcd/server/v3 ", ETCD),
            ("containerd", "github.com/containerd/containerd/v2 ", super::super::CONTAINERD),
            ("containerd", "github.com/containernetworking/plugins ", super::super::CNI),
            ("kine", "github.com/k3s-io/kine ", KINE),
            ("flannel", "github.com/flannel-io/flannel ", FLANNEL),
            ("coredns", "github.com/coredns/coredns ", COREDNS),
        ] {
            let recipe = RECIPES.iter().find(|r| r.name == name).ok_or(name)?;
            assert_eq!(pinned(recipe, module), Some(version), "{module}");
        }
        Ok(())
    }

    #[test]
    fn no_module_asks_for_a_newer_go_than_is_built_with() -> Result<(), Box<dyn std::error::Error>> {
        let numbers = |text: &str| -> Vec<u32> { text.split('.').filter_map(|n| n.parse().ok()).collect() };
        let ours = numbers(super::super::go::TOOLCHAIN.trim_start_matches("go"));
        assert_eq!(ours.len(), 3);
        for recipe in RECIPES {
            let text = recipe.files[0].1.lines().find_map(|l| l.strip_prefix("go ")).ok_or(recipe.name)?;
            assert!(numbers(text) <= ours, "{}: {text}", recipe.name);
        }
        Ok(())
    }
}
