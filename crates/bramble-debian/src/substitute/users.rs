//! System users and groups: base-passwd's masters, `sysusers.d(5)`, and the few packages that still call adduser.
//!
//! Numbers that are given here are locked by name: a name keeps its number for ever, also while no package uses it,
//! since files on a machine's data partition carry the number and not the name.

use super::{Package, SubstituteError, find, tree, words};
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

const SELF: &str = "users";
const MASTERS: &str = "/usr/share/base-passwd";
const NOLOGIN: &str = "/usr/sbin/nologin";

/// Numbers for system accounts: Debian gives 100-999 to them (policy 9.2.2), systemd-sysusers from the top down.
const FIRST: u32 = 100;
const LAST: u32 = 999;

/// Accounts that packages make by calling adduser, which has no declarative form in trixie:
/// package, user or `-` for a group alone, primary group, home.
const ADDUSER: &[(&str, &str, &str, &str)] = &[
    ("nfs-common", "statd", "nogroup", "/var/lib/nfs"),
    ("openssh-client", "-", "_ssh", ""),
    ("prometheus-node-exporter", "prometheus", "prometheus", "/var/lib/prometheus"),
    ("rpcbind", "_rpc", "nogroup", "/run/rpcbind"),
    ("wpasupplicant", "-", "netdev", ""),
];

/// The accounts of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
    locked: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Number of a user.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|u| u.name == name).map(|u| u.uid)
    }

    /// Number of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|g| g.name == name).map(|g| g.gid)
    }

    /// Name of a user.
    pub fn user_name(&self, uid: u32) -> Option<&str> {
        self.users.iter().find(|u| u.uid == uid).map(|u| u.name.as_str())
    }

    /// Name of a group.
    pub fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups.iter().find(|g| g.gid == gid).map(|g| g.name.as_str())
    }

    /// Every number that was given by us, now or earlier, by name.
    pub fn locked(&self) -> &BTreeMap<String, u32> {
        &self.locked
    }

    /// A number that no user, group or locked name has, from the top down; the locked one if the name has one.
    fn number(&mut self, name: &str) -> Result<u32, SubstituteError> {
        if let Some(id) = self.locked.get(name) {
            return Ok(*id);
        }
        let taken: BTreeSet<u32> = self.users.iter().flat_map(|u| [u.uid, u.gid]).collect();
        let taken: BTreeSet<u32> = taken
            .into_iter()
            .chain(self.groups.iter().map(|g| g.gid))
            .chain(self.locked.values().copied())
            .collect();
        let id = (FIRST..=LAST)
            .rev()
            .find(|id| !taken.contains(id))
            .ok_or_else(|| SubstituteError::NoIdLeft { name: name.into() })?;
        self.locked.insert(name.into(), id);
        Ok(id)
    }

    /// Refuses a locked number that Debian has come to use for something else.
    fn free(&self, name: &str, id: u32) -> Result<(), SubstituteError> {
        let user = self.users.iter().find(|u| u.uid == id && u.name != name).map(|u| &u.name);
        let group = self.groups.iter().find(|g| g.gid == id && g.name != name).map(|g| &g.name);
        match user.or(group) {
            Some(holder) => Err(SubstituteError::IdTaken { name: name.into(), id, holder: holder.clone() }),
            None => Ok(()),
        }
    }

    fn add_group(&mut self, name: &str, fixed: Option<u32>) -> Result<u32, SubstituteError> {
        if let Some(gid) = self.gid(name) {
            return Ok(gid);
        }
        let gid = match fixed {
            Some(gid) => gid,
            None => self.number(name)?,
        };
        // A fixed number may be shared with a user of another name (`_apt` and `shadow` have 42), ours may not.
        match fixed {
            Some(gid) if self.groups.iter().any(|g| g.gid == gid) => {
                let holder = self.group_name(gid).unwrap_or_default().to_string();
                return Err(SubstituteError::IdTaken { name: name.into(), id: gid, holder });
            }
            Some(_) => {}
            None => self.free(name, gid)?,
        }
        self.groups.push(Group { name: name.into(), gid, members: Vec::new() });
        Ok(gid)
    }

    fn add_user(&mut self, user: NewUser<'_>) -> Result<(), SubstituteError> {
        if self.uid(user.name).is_some() {
            return Ok(());
        }
        let uid = match user.uid {
            Some(uid) => uid,
            None => {
                let uid = self.number(user.name)?;
                self.free(user.name, uid)?;
                uid
            }
        };
        let gid = match user.gid {
            Some(gid) => gid,
            // A group of the user's own has the user's number.
            None => self.add_group(user.name, user.uid)?,
        };
        let text =
            |text: Option<&str>, default: &str| text.filter(|t| *t != "-").unwrap_or(default).to_string();
        self.users.push(User {
            name: user.name.into(),
            uid,
            gid,
            gecos: text(user.gecos, ""),
            home: text(user.home, "/"),
            shell: text(user.shell, NOLOGIN),
        });
        Ok(())
    }
}

struct NewUser<'a> {
    name: &'a str,
    uid: Option<u32>,
    gid: Option<u32>,
    gecos: Option<&'a str>,
    home: Option<&'a str>,
    shell: Option<&'a str>,
}

/// Works out the accounts and writes passwd, group, their shadows and the empty subuid and subgid. `locked` holds the
/// numbers of earlier images.
///
/// # Errors
/// A line that is not understood, or a number that two names want.
pub fn apply(
    root: &mut Tree,
    packages: &[Package],
    locked: &BTreeMap<String, u32>,
) -> Result<Accounts, SubstituteError> {
    let mut accounts = masters(root, locked)?;
    let mut files: Vec<(Vec<u8>, String)> = root
        .list("/usr/lib/sysusers.d")
        .into_iter()
        .filter(|(path, _)| path.name().ends_with(b".conf"))
        .map(|(path, _)| (path.name().to_vec(), path.to_text()))
        .collect();
    files.sort();
    for (_, file) in files {
        let text = root.read_text(&file).unwrap_or_default().to_string();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            sysusers_line(&mut accounts, line).map_err(|e| e.into_error(&file))?;
        }
    }
    for (package, user, group, home) in ADDUSER {
        if find(packages, package).is_none() {
            continue;
        }
        let gid = accounts.add_group(group, None)?;
        if *user != "-" {
            accounts.add_user(NewUser {
                name: user,
                uid: None,
                gid: Some(gid),
                gecos: None,
                home: Some(home),
                shell: None,
            })?;
        }
    }
    write(root, &accounts)?;
    Ok(accounts)
}

fn masters(root: &Tree, locked: &BTreeMap<String, u32>) -> Result<Accounts, SubstituteError> {
    let mut accounts = Accounts { locked: locked.clone(), ..Accounts::default() };
    let bad = |file: &str, reason: &str| SubstituteError::Input {
        substitute: SELF,
        path: crate::tree::TreePath::new(format!("{MASTERS}/{file}")).unwrap_or_default(),
        reason: reason.to_string(),
    };
    for (file, fields) in [("group.master", 4), ("passwd.master", 7)] {
        let text = root.read_text(format!("{MASTERS}/{file}")).ok_or_else(|| bad(file, "is missing"))?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let parts: Vec<&str> = line.split(':').collect();
            let number = |at: usize| parts.get(at).and_then(|n| n.parse::<u32>().ok());
            match (parts.len(), number(2), number(3)) {
                (n, Some(gid), _) if n == fields && fields == 4 => {
                    let members = parts[3].split(',').filter(|m| !m.is_empty()).map(str::to_string).collect();
                    accounts.groups.push(Group { name: parts[0].into(), gid, members });
                }
                (n, Some(uid), Some(gid)) if n == fields => accounts.users.push(User {
                    name: parts[0].into(),
                    uid,
                    gid,
                    gecos: parts[4].into(),
                    home: parts[5].into(),
                    shell: parts[6].into(),
                }),
                _ => return Err(bad(file, &format!("has the line {line:?}"))),
            }
        }
    }
    Ok(accounts)
}

enum LineError {
    Line(String),
    Other(SubstituteError),
}

impl LineError {
    fn into_error(self, file: &str) -> SubstituteError {
        match self {
            LineError::Line(reason) => SubstituteError::Input {
                substitute: SELF,
                path: crate::tree::TreePath::new(file).unwrap_or_default(),
                reason,
            },
            LineError::Other(error) => error,
        }
    }
}

impl From<SubstituteError> for LineError {
    fn from(error: SubstituteError) -> Self {
        LineError::Other(error)
    }
}

/// One line of `sysusers.d(5)`: type, name, id, GECOS, home, shell.
fn sysusers_line(accounts: &mut Accounts, line: &str) -> Result<(), LineError> {
    let words = words(line);
    let word = |at: usize| words.get(at).map(String::as_str).filter(|w| *w != "-");
    let odd = || LineError::Line(format!("has the line {line:?}, which is not understood"));
    let name = word(1).ok_or_else(odd)?;
    if name.contains('%') {
        return Err(odd());
    }
    // `u!` is a user that is locked altogether; no user of ours can log in by password anyway.
    match words[0].trim_end_matches('!') {
        "g" => {
            let fixed = word(2).map(|id| id.parse().map_err(|_| odd())).transpose()?;
            accounts.add_group(name, fixed)?;
        }
        "u" => {
            let (uid, group) = match word(2) {
                None => (None, None),
                Some(ids) => {
                    let (uid, group) =
                        ids.split_once(':').map_or((ids, None), |(uid, group)| (uid, Some(group)));
                    let uid = if uid == "-" { None } else { Some(uid.parse().map_err(|_| odd())?) };
                    (uid, group)
                }
            };
            let gid = match group {
                None => None,
                Some(group) => match group.parse() {
                    Ok(gid) => Some(gid),
                    Err(_) => Some(accounts.gid(group).ok_or_else(odd)?),
                },
            };
            accounts.add_user(NewUser { name, uid, gid, gecos: word(3), home: word(4), shell: word(5) })?;
        }
        "m" => {
            let group = word(2).ok_or_else(odd)?;
            accounts.add_group(group, None)?;
            accounts.add_user(NewUser {
                name,
                uid: None,
                gid: None,
                gecos: None,
                home: None,
                shell: None,
            })?;
            if let Some(group) = accounts.groups.iter_mut().find(|g| g.name == group)
                && !group.members.iter().any(|m| m == name)
            {
                group.members.push(name.to_string());
            }
        }
        // A range to take numbers from; ours come from the lock.
        "r" => {}
        _ => return Err(odd()),
    }
    Ok(())
}

fn write(root: &mut Tree, accounts: &Accounts) -> Result<(), SubstituteError> {
    let tree = tree(SELF);
    let mut passwd = String::new();
    let mut shadow = String::new();
    for u in &accounts.users {
        passwd += &format!("{}:x:{}:{}:{}:{}:{}\n", u.name, u.uid, u.gid, u.gecos, u.home, u.shell);
        // The day of the last change stays empty (password ageing off): a day in the future of a machine whose clock
        // is wrong would lock it, and a day at all would change with every release.
        shadow +=
            &format!("{}:{}:::::::\n", u.name, if u.uid < FIRST || u.uid == 65534 { "*" } else { "!*" });
    }
    let mut group = String::new();
    let mut gshadow = String::new();
    for g in &accounts.groups {
        let members = g.members.join(",");
        group += &format!("{}:x:{}:{members}\n", g.name, g.gid);
        gshadow += &format!("{}:{}::{members}\n", g.name, if g.gid < FIRST { "*" } else { "!" });
    }
    for (path, mode, text) in [
        ("/etc/passwd", 0o644, passwd),
        ("/etc/group", 0o644, group),
        ("/etc/shadow", 0o640, shadow),
        ("/etc/gshadow", 0o640, gshadow),
        ("/etc/subuid", 0o644, String::new()),
        ("/etc/subgid", 0o644, String::new()),
    ] {
        let at = root.file(path, mode, text).map_err(tree)?;
        if mode == 0o640 {
            let shadow = accounts
                .gid("shadow")
                .ok_or(SubstituteError::NoSuchName { substitute: SELF, name: "shadow".into() })?;
            root.own(at, 0, shadow, mode).map_err(tree)?;
        }
    }
    Ok(())
}
