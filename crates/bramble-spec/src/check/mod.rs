//! What no single value can be wrong about: values against each other.

mod kubernetes;
mod machines;
mod network;
mod talos;
mod view;

use crate::decode::Context;
use crate::diagnostic::Diagnostic;
use crate::places::Places;
use crate::scalar::{OrNone, ToolVersion};
use crate::tree::{Mark, Node};
use crate::types::{OsSettings, Proxy, Registries};
use view::View;

/// Compares the values of a file with each other.
pub(crate) fn check(root: &Node, places: &Places, cx: &mut Context) {
    let mut check = Check { view: View::of(root), places, cx };
    check.tool();
    check.network();
    check.kubernetes();
    check.machines();
    check.system();
}

/// The acts of checking share what they look at and where they report.
struct Check<'a> {
    view: View<'a>,
    places: &'a Places,
    cx: &'a mut Context,
}

impl Check<'_> {
    fn at(&self, path: &str) -> Mark {
        self.places.value_or_parent(path)
    }

    fn line(&self, path: &str) -> u32 {
        self.at(path).line
    }

    fn error(&mut self, code: &'static str, path: &str, message: String, label: &str, hint: &str) {
        let mark = self.at(path);
        let diagnostic = Diagnostic::error(code, mark, message).label(label);
        self.cx.push(match hint {
            "" => diagnostic,
            hint => diagnostic.hint(hint),
        });
    }

    fn warning(&mut self, code: &'static str, path: &str, message: String, label: &str, hint: &str) {
        let mark = self.at(path);
        self.cx.push(Diagnostic::warning(code, mark, message).label(label).hint(hint));
    }

    fn tool(&mut self) {
        let path = "spec.minimumToolVersion";
        let Some(wanted) = self.view.read::<ToolVersion>(path) else { return };
        let Ok(own) = env!("CARGO_PKG_VERSION").parse::<ToolVersion>() else { return };
        if wanted.value > own {
            self.error(
                "tool-too-old",
                path,
                format!("the file wants Bramble {} or newer, and this is {own}", wanted.value),
                "newer than this program",
                "install a newer Bramble; if the file was changed by mistake, lower the version",
            );
        }
    }

    /// What is stated about the operating system, at any level.
    fn system(&mut self) {
        let roles = ["control-plane", "worker", "management"].map(|role| format!("spec.defaults.{role}.os"));
        let nodes: Vec<String> = self.view.nodes.iter().map(|m| format!("{}.os", m.path)).collect();
        for path in ["spec.os".to_string()].into_iter().chain(roles).chain(nodes) {
            let ssh = format!("{path}.ssh.authorizedKeys");
            let os = self.read_os(&path);
            for (index, line) in os.iter().flat_map(|os| os.firmware.iter().flatten()).enumerate() {
                if let Some((label, hint)) = bad_firmware_line(line) {
                    let path = format!("{path}.firmware[{index}]");
                    self.error(
                        "bad-value",
                        &path,
                        format!("`{line}` cannot stand in config.txt"),
                        label,
                        hint,
                    );
                }
            }
            if os.is_some_and(|os| matches!(&os.ssh, Some(OrNone::Is(ssh)) if ssh.authorized_keys.is_empty()))
            {
                self.error(
                    "ssh-without-keys",
                    &ssh,
                    "ssh is asked for, and nobody has a key".into(),
                    "empty",
                    "add the line of your `~/.ssh/id_ed25519.pub`, or say `ssh: none`",
                );
            }
        }
        if let Some(proxy) = self.view.read::<OrNone<Proxy>>("spec.network.proxy")
            && let OrNone::Is(Proxy { http: None, https: None, .. }) = proxy.value
        {
            self.error(
                "proxy-without-address",
                &proxy.path,
                "a proxy is asked for, and none is named".into(),
                "wants `http` or `https`",
                "`proxy: { http: \"http://proxy.home.arpa:3128\" }`, or `proxy: none`",
            );
        }
        let Some(registries) = self.view.read::<Registries>("spec.network.registries") else { return };
        for (name, registry) in &registries.value.0 {
            if registry.username.is_some() != registry.password.is_some() {
                self.error(
                    "half-credentials",
                    &format!("{}.{name}", registries.path),
                    format!("`{name}` has half of a login"),
                    "wants `username` and `password`",
                    "state both: `username: me`, `password: { secret: registry }`",
                );
            }
        }
    }

    fn read_os(&self, path: &str) -> Option<OsSettings> {
        if let Some(machine) = self.view.nodes.iter().find(|m| path.starts_with(&format!("{}.", m.path))) {
            return machine.own("os").map(|at| at.value);
        }
        match path {
            "spec.os" => self.view.read::<crate::ClusterOs>(path).map(|at| at.value.settings),
            _ => self.view.read(path).map(|at| at.value),
        }
    }
}

/// Words of config.txt that the build sets itself.
pub const OWN_FIRMWARE_WORDS: &[&str] = &[
    "arm_64bit",
    "auto_initramfs",
    "boot_ramdisk",
    "cmdline",
    "fixup_file",
    "include",
    "initramfs",
    "kernel",
    "kernel_old",
    "os_prefix",
    "start_file",
    "upstream_kernel",
];

/// Longest line of config.txt that firmware reads.
const FIRMWARE_LINE: usize = 98;

/// What is wrong with a line of config.txt, and what to do.
fn bad_firmware_line(line: &str) -> Option<(&'static str, &'static str)> {
    if line.len() > FIRMWARE_LINE {
        return Some(("too long", "firmware reads no more than 98 characters of a line"));
    }
    let word = line.trim_start().split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or("");
    OWN_FIRMWARE_WORDS.contains(&word).then_some((
        "set by the build",
        "remove it; words for the kernel's command line go to `os.kernelArgs`",
    ))
}
