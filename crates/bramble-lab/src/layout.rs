//! Where a lab keeps its files, and its sockets, whose paths may have only 108 bytes.

use rustix::fs::{Mode, OFlags};
use rustix::process::getuid;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::process::ProcessId;
use crate::spec::fnv64;

/// `sun_path` has 108 bytes on Linux and 104 on macOS, the terminating zero counted; names in the directory take
/// up to 16.
const RUNTIME_MAX: usize = 104 - 1 - 16;

/// The files below a lab's directory. All of it is private to the user: machine documents lie in the disks.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: PathBuf) -> Layout {
        Layout { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory, mode 0700.
    pub(crate) fn make(&self) -> io::Result<()> {
        private_dir(&self.dir)
    }

    pub(crate) fn spec(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    /// Held locked by the host for as long as it lives.
    pub(crate) fn host_lock(&self) -> PathBuf {
        self.dir.join("host.lock")
    }

    pub(crate) fn host_record(&self) -> PathBuf {
        self.dir.join("host.json")
    }

    pub(crate) fn host_log(&self) -> PathBuf {
        self.dir.join("host.log")
    }

    pub(crate) fn firmware(&self) -> PathBuf {
        self.dir.join("firmware")
    }

    pub(crate) fn machines(&self) -> PathBuf {
        self.dir.join("machines")
    }

    pub(crate) fn machine(&self, name: &str) -> PathBuf {
        self.machines().join(name)
    }

    pub(crate) fn console_log(&self, name: &str) -> PathBuf {
        self.machine(name).join("console.log")
    }

    pub(crate) fn qemu_log(&self, name: &str) -> PathBuf {
        self.machine(name).join("qemu.log")
    }

    /// The QEMU process of the machine, while it has power.
    pub(crate) fn pid(&self, name: &str) -> PathBuf {
        self.machine(name).join("qemu.json")
    }

    pub(crate) fn vars(&self, name: &str) -> PathBuf {
        self.machine(name).join("vars.fd")
    }

    pub(crate) fn snapshots(&self, name: &str) -> PathBuf {
        self.machine(name).join("snapshots")
    }

    /// Everything that a lab puts into its directory.
    pub(crate) fn everything(&self) -> Vec<PathBuf> {
        vec![
            self.machines(),
            self.firmware(),
            self.spec(),
            self.host_record(),
            self.host_log(),
            self.host_lock(),
        ]
    }

    /// Makes the directory for sockets: below `$XDG_RUNTIME_DIR`, or below the directory for temporary files when
    /// there is none or its path is too long.
    ///
    /// Below a directory that others can write, a name can be taken by somebody else: what is there must be a
    /// directory of this user that nobody else can enter.
    pub(crate) fn make_runtime(&self) -> io::Result<PathBuf> {
        let hash = fnv64(self.dir.as_os_str().as_bytes());
        let uid = getuid().as_raw();
        let places = [
            std::env::var_os("XDG_RUNTIME_DIR")
                .map(|d| PathBuf::from(d).join(format!("bramble-{hash:016x}"))),
            Some(std::env::temp_dir().join(format!("bramble-{uid}-{hash:016x}"))),
            Some(PathBuf::from(format!("/tmp/bramble-{uid}-{hash:016x}"))),
        ];
        let mut last = io::Error::from(io::ErrorKind::InvalidFilename);
        for place in places.into_iter().flatten().filter(|p| p.as_os_str().len() <= RUNTIME_MAX) {
            match private_dir(&place) {
                Ok(()) => return Ok(place),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Makes a directory with mode 0700, or accepts one that is this user's own and closed to others.
fn private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let meta = dir.metadata()?;
    if meta.uid() != getuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory is another user's"));
    }
    if meta.mode() & 0o077 != 0 {
        rustix::fs::fchmod(&dir, Mode::RWXU)?;
    }
    Ok(())
}

/// What the host leaves for its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostRecord {
    pub(crate) process: ProcessId,
    /// Where the sockets are: the environment of a client may name another place.
    pub(crate) runtime: PathBuf,
}

impl HostRecord {
    pub(crate) fn read(layout: &Layout) -> Option<HostRecord> {
        serde_json::from_slice(&std::fs::read(layout.host_record()).ok()?).ok()
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.runtime.join("control")
    }
}

/// Replaces a file's content in one step: a reader sees the old or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_data()?;
    std::fs::rename(&fresh, path)
}

/// The last `most` bytes of a file as text; empty when it cannot be read.
pub(crate) fn tail(path: &Path, most: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_string()
}
