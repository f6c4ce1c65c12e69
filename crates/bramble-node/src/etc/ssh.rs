//! Remote shell for root with keys only, or none at all.

use super::{Entry, file, link, private};
use bramble_api::document::Ssh;

const UNITS: &str = "/etc/systemd/system";

/// Without `ssh` nothing listens: the units are masked whatever the image enables.
pub fn render(ssh: Option<&Ssh>) -> Vec<Entry> {
    // It would start an sshd on a socket of its own, whatever the document says (systemd 256 and newer).
    let mut entries = vec![link("/etc/systemd/system-generators/systemd-ssh-generator", "/dev/null")];
    let Some(ssh) = ssh else {
        entries
            .extend(["ssh.service", "ssh.socket"].map(|unit| link(format!("{UNITS}/{unit}"), "/dev/null")));
        return entries;
    };
    let mut keys = ssh.authorized_keys.join("\n");
    keys.push('\n');
    let mut public = ssh.host_key_public.trim_end().to_string();
    public.push('\n');
    // OpenSSH refuses a private key whose last line is not ended.
    let mut secret = ssh.host_key.trim_end().to_string();
    secret.push('\n');
    entries.extend([
        private("/etc/ssh/ssh_host_ed25519_key", secret),
        file("/etc/ssh/ssh_host_ed25519_key.pub", public),
        file("/etc/ssh/authorized_keys.d/root", keys),
        // First in order: of a setting that is given twice sshd takes the first.
        file(
            "/etc/ssh/sshd_config.d/00-bramble.conf",
            "HostKey /etc/ssh/ssh_host_ed25519_key\n\
             AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u\n\
             AllowUsers root\n\
             PermitRootLogin prohibit-password\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n",
        ),
        link(format!("{UNITS}/multi-user.target.wants/ssh.service"), "/usr/lib/systemd/system/ssh.service"),
    ]);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_link(entries: &[Entry], wanted: &str, to: &str) -> bool {
        entries.iter().any(|e| matches!(e, Entry::Link { path, target } if path == wanted && target == to))
    }

    #[test]
    fn nothing_listens_unless_asked() {
        let none = render(None);
        assert!(has_link(&none, "/etc/systemd/system/ssh.service", "/dev/null"));
        assert!(has_link(&none, "/etc/systemd/system/ssh.socket", "/dev/null"));
        assert!(!none.iter().any(|entry| matches!(entry, Entry::File { .. })));
    }

    #[test]
    fn asked_for_it_lets_root_in_by_key() {
        let ssh = Ssh {
            authorized_keys: vec!["ssh-ed25519 A a".into(), "ssh-ed25519 B b".into()],
            host_key: "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----".into(),
            host_key_public: "ssh-ed25519 H".into(),
        };
        let entries = render(Some(&ssh));
        assert!(!has_link(&entries, "/etc/systemd/system/ssh.service", "/dev/null"));
        let file = |wanted: &str| {
            entries.iter().find_map(|entry| match entry {
                Entry::File { path, mode, content } if path == wanted => Some((*mode, content.clone())),
                _ => None,
            })
        };
        let (mode, key) = file("/etc/ssh/ssh_host_ed25519_key").unwrap();
        assert!(mode == 0o600 && key.ends_with(b"KEY-----\n"));
        assert_eq!(file("/etc/ssh/authorized_keys.d/root").unwrap().1, b"ssh-ed25519 A a\nssh-ed25519 B b\n");
    }
}
