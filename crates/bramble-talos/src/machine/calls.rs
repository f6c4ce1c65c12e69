//! What a machine can be asked, in words of ours.

use super::client::{Client, LONG, SHORT, method};
use super::error::CallError;
use super::proto::{self, Nothing};
use bramble_secrets::{Secret, SecretText};
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;
use tonic::Code;

/// What the kernel calls the start it has had; it proves a reboot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// `common.ContainerDriver` and namespace of Talos' own images.
const SYSTEM: proto::Containerd = proto::Containerd { driver: 0, namespace: 1 };
/// An installer that is quiet for so long is dead: it writes two gigabytes on a slow card in half of that.
const INSTALLER: Duration = Duration::from_secs(900);
/// An image that comes no further for so long will not come.
const PULL: Duration = Duration::from_secs(600);
/// No kubeconfig is larger.
const KUBECONFIG: u64 = 1 << 20;

/// What runs on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// With `v`.
    pub version: String,
    /// Its processor, as Go names it.
    pub arch: String,
    /// `metal`, `nocloud`, ...
    pub platform: String,
}

/// How a config takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At once; 1.13 reboots by itself where it must.
    Auto,
    /// At once, or not at all.
    NoReboot,
    /// With the next reboot.
    Staged,
    /// At once, and back after this long.
    Try(Duration),
}

impl Mode {
    /// Zero, which is what is sent when nothing is said, would be a reboot.
    fn number(self) -> i32 {
        match self {
            Mode::Auto => 1,
            Mode::NoReboot => 2,
            Mode::Staged => 3,
            Mode::Try(_) => 4,
        }
    }
}

/// What became of a config.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The machine reboots for it, or would.
    pub reboots: bool,
    /// What it finds odd about it.
    pub warnings: Vec<String>,
    /// What it says. After a dry run, the difference: it may hold secrets.
    pub details: SecretText,
}

/// What the machine says to being told to begin etcd.
#[derive(Debug, PartialEq, Eq)]
pub enum Bootstrapped {
    /// It does.
    Begun,
    /// It has data of etcd: that was done before.
    Already,
    /// It cannot yet: its clock, its container runtime or its installation is not ready.
    NotYet(String),
}

/// A service of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `etcd`, `kubelet`, ...
    pub id: String,
    /// `Running`, `Preparing`, ...
    pub state: String,
    /// `None` when nothing checks it.
    pub healthy: Option<bool>,
    /// What its last check said.
    pub message: String,
}

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Its machine.
    pub hostname: String,
    /// Where its peers reach it.
    pub peers: Vec<String>,
    /// It does not vote yet.
    pub learner: bool,
}

/// How a member of etcd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub id: u64,
    /// Who leads; 0 when nobody does.
    pub leader: u64,
    /// Bytes of its database.
    pub size: i64,
    /// How far its log is, and how far that is applied.
    pub raft: (u64, u64),
    /// It does not vote yet.
    pub learner: bool,
    /// What it complains of.
    pub errors: Vec<String>,
}

/// How a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// The quick way, where it has one.
    Default,
    /// Through the firmware.
    PowerCycle,
}

/// What a reset leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wipe {
    /// Config and data go; the system stays, and comes back to its seed or to maintenance mode.
    StateAndData,
    /// The whole disk of the system: nothing boots from it again.
    SystemDisk,
}

macro_rules! machine {
    ($name:literal) => {
        method!("machine.MachineService", $name)
    };
}

impl Client {
    /// What runs there. Answered in maintenance mode too.
    ///
    /// # Errors
    /// See [`CallError`], here and below.
    pub fn version(&self) -> Result<Running, CallError> {
        let version: proto::Version = self.ask(machine!("Version"), Nothing {}, SHORT)?;
        let info = version.version.unwrap_or_default();
        let platform = version.platform.unwrap_or_default().name;
        Ok(Running { version: info.tag, arch: info.arch, platform })
    }

    /// Gives it a config, or with `dry_run` asks what it would do with it. In maintenance mode it takes what it is
    /// given and goes on to install; the connection is then gone.
    pub fn apply(&self, config: &SecretText, mode: Mode, dry_run: bool) -> Result<Applied, CallError> {
        let try_mode_timeout = match mode {
            Mode::Try(time) => {
                Some(proto::Duration { seconds: time.as_secs().try_into().unwrap_or(i64::MAX), nanos: 0 })
            }
            _ => None,
        };
        let question = proto::ApplyConfigurationRequest {
            data: config.expose().as_bytes().to_vec(),
            mode: mode.number(),
            dry_run,
            try_mode_timeout,
        };
        let answer: proto::ApplyConfiguration = self.ask(machine!("ApplyConfiguration"), question, LONG)?;
        let details = Secret::new(answer.mode_details);
        Ok(Applied { reboots: answer.mode == 0, warnings: answer.warnings, details })
    }

    /// Tells it to begin etcd, as the first of its cluster; with `recover`, from the snapshot that
    /// [`Client::etcd_recover`] gave it.
    pub fn bootstrap(&self, recover: bool) -> Result<Bootstrapped, CallError> {
        let question = proto::BootstrapRequest { recover_etcd: recover, recover_skip_hash_check: false };
        match self.ask::<_, Nothing>(machine!("Bootstrap"), question, LONG) {
            Ok(Nothing {}) => Ok(Bootstrapped::Begun),
            Err(CallError::Refused { code: Code::AlreadyExists, .. }) => Ok(Bootstrapped::Already),
            Err(CallError::Refused {
                code: Code::FailedPrecondition | Code::Unavailable, source, ..
            }) => Ok(Bootstrapped::NotYet(source.0)),
            Err(error) => Err(error),
        }
    }

    /// Its services.
    pub fn services(&self) -> Result<Vec<Service>, CallError> {
        let list: proto::ServiceList = self.ask(machine!("ServiceList"), Nothing {}, SHORT)?;
        let service = |s: proto::ServiceInfo| {
            let health = s.health.unwrap_or_default();
            let healthy = (!health.unknown).then_some(health.healthy);
            Service { id: s.id, state: s.state, healthy, message: health.last_message }
        };
        Ok(list.services.into_iter().map(service).collect())
    }

    /// What names its present start: another one after every reboot.
    pub fn boot_id(&self) -> Result<String, CallError> {
        let mut text = Vec::new();
        let question = proto::ReadRequest { path: BOOT_ID.into() };
        self.stream(machine!("Read"), question, Some(SHORT), &mut |piece: proto::Data| {
            text.extend(piece.bytes);
            Ok(if text.len() > 256 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(String::from_utf8_lossy(&text).trim().to_string())
    }

    /// The members of its etcd, as it knows them itself.
    pub fn etcd_members(&self) -> Result<Vec<Member>, CallError> {
        let question = proto::EtcdMemberListRequest { query_local: false };
        let list: proto::EtcdMembers = self.ask(machine!("EtcdMemberList"), question, SHORT)?;
        let member = |m: proto::EtcdMember| Member {
            id: m.id,
            hostname: m.hostname,
            peers: m.peer_urls,
            learner: m.is_learner,
        };
        Ok(list.members.into_iter().map(member).collect())
    }

    /// How its member of etcd does.
    pub fn etcd_status(&self) -> Result<MemberStatus, CallError> {
        let status: proto::EtcdStatus = self.ask(machine!("EtcdStatus"), Nothing {}, SHORT)?;
        let status = status.member_status.unwrap_or_default();
        Ok(MemberStatus {
            id: status.member_id,
            leader: status.leader,
            size: status.db_size,
            raft: (status.raft_index, status.raft_applied_index),
            learner: status.is_learner,
            errors: status.errors,
        })
    }

    /// Takes a member out of etcd.
    pub fn etcd_remove(&self, member: u64) -> Result<(), CallError> {
        let question = proto::EtcdRemoveMemberByIdRequest { member_id: member };
        self.ask::<_, Nothing>(machine!("EtcdRemoveMemberByID"), question, LONG).map(drop)
    }

    /// Writes a snapshot of etcd's database, and gives its size. It holds every Secret of the cluster.
    ///
    /// A stream that ends early looks like one that ends: etcd puts the SHA-256 of all before behind its pages of 512
    /// bytes, and that is checked.
    pub fn etcd_snapshot(&self, to: &mut dyn std::io::Write) -> Result<u64, CallError> {
        let mut check = super::snapshot::Check::default();
        self.stream(machine!("EtcdSnapshot"), Nothing {}, Some(LONG), &mut |piece: proto::Data| {
            check.take(&piece.bytes);
            to.write_all(&piece.bytes)?;
            Ok(ControlFlow::Continue(()))
        })?;
        check.end().map_err(|what| CallError::Nonsense {
            method: "EtcdSnapshot",
            address: self.address(),
            what,
        })
    }

    /// Gives it a snapshot to begin etcd from. Then comes [`Client::bootstrap`].
    pub fn etcd_recover(&self, from: impl Read + Send + 'static) -> Result<(), CallError> {
        self.upload(machine!("EtcdRecover"), from, INSTALLER)
    }

    /// Has it fetch an installer, while everything runs.
    pub fn pull(&self, image: &str, told: &mut dyn FnMut(&str)) -> Result<(), CallError> {
        let question = proto::PullRequest { containerd: Some(SYSTEM), image_ref: image.into() };
        let method = method!("machine.ImageService", "Pull");
        self.stream(method, question, Some(PULL), &mut |answer: proto::PullResponse| {
            if let Some(progress) = answer.pull_progress {
                told(&progress.layer_id);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Has it write another release beside the one that runs; the next reboot starts it. It looks at nothing else:
    /// whether etcd can spare the machine is for the caller to know.
    pub fn upgrade(&self, image: &str, told: &mut dyn FnMut(&str)) -> Result<(), CallError> {
        let source = Some(proto::InstallSource { image_name: image.into() });
        let question = proto::LifecycleUpgradeRequest { containerd: Some(SYSTEM), source };
        let method = method!("machine.LifecycleService", "Upgrade");
        let mut ended = None;
        self.stream(method, question, Some(INSTALLER), &mut |answer: proto::LifecycleUpgradeResponse| {
            let progress = answer.progress.unwrap_or_default();
            if let Some(line) = progress.message {
                told(&line);
            }
            ended = progress.exit_code.or(ended);
            Ok(ControlFlow::Continue(()))
        })?;
        let nonsense = |what| CallError::Nonsense { method: method.name, address: self.address(), what };
        match ended {
            Some(0) => Ok(()),
            Some(_) => Err(nonsense("the installer failed; nothing is changed, and its last lines say why")),
            None => Err(nonsense("the installer did not say how it ended")),
        }
    }

    /// Reboots it.
    pub fn reboot(&self, how: Reboot) -> Result<(), CallError> {
        let mode = match how {
            Reboot::Default => 0,
            Reboot::PowerCycle => 1,
        };
        self.ask::<_, Nothing>(machine!("Reboot"), proto::RebootRequest { mode }, SHORT).map(drop)
    }

    /// Switches it off; with `force`, without waiting for its pods.
    pub fn shutdown(&self, force: bool) -> Result<(), CallError> {
        self.ask::<_, Nothing>(machine!("Shutdown"), proto::ShutdownRequest { force }, SHORT).map(drop)
    }

    /// Wipes it and, unless `reboot` is false, starts it again. `graceful`: it leaves etcd and its pods first.
    pub fn reset(&self, wipe: Wipe, graceful: bool, reboot: bool) -> Result<(), CallError> {
        let partition = |label: &str| proto::PartitionToWipe { label: label.into(), wipe: true };
        let (partitions, mode) = match wipe {
            Wipe::StateAndData => (vec![partition("STATE"), partition("EPHEMERAL")], 0),
            Wipe::SystemDisk => (vec![], 1),
        };
        let question = proto::ResetRequest {
            graceful,
            reboot,
            system_partitions_to_wipe: partitions,
            user_disks_to_wipe: vec![],
            mode,
        };
        self.ask::<_, Nothing>(machine!("Reset"), question, SHORT).map(drop)
    }

    /// Has it start the release that it had before.
    pub fn rollback(&self) -> Result<(), CallError> {
        self.ask::<_, Nothing>(machine!("Rollback"), Nothing {}, LONG).map(drop)
    }

    /// What a service has logged; with `follow`, and what it goes on to log, until `each` has enough.
    pub fn logs(
        &self,
        service: &str,
        follow: bool,
        tail: Option<u32>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), CallError> {
        let question = proto::LogsRequest {
            namespace: "system".into(),
            id: service.into(),
            driver: 0,
            follow,
            tail_lines: tail.map_or(-1, |lines| lines.try_into().unwrap_or(i32::MAX)),
        };
        let quiet = (!follow).then_some(SHORT);
        self.stream(machine!("Logs"), question, quiet, &mut |piece: proto::Data| Ok(each(&piece.bytes)))
    }

    /// What its kernel has said; with `follow`, and what it goes on to say.
    pub fn dmesg(
        &self,
        follow: bool,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), CallError> {
        let question = proto::DmesgRequest { follow, tail: false };
        let quiet = (!follow).then_some(SHORT);
        self.stream(machine!("Dmesg"), question, quiet, &mut |piece: proto::Data| Ok(each(&piece.bytes)))
    }

    /// A kubeconfig as the machine makes it, good for a year.
    pub fn kubeconfig(&self) -> Result<SecretText, CallError> {
        let mut packed = Vec::new();
        self.stream(machine!("Kubeconfig"), Nothing {}, Some(LONG), &mut |piece: proto::Data| {
            packed.extend(piece.bytes);
            Ok(if packed.len() as u64 > KUBECONFIG {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        super::kubeconfig::unpack(&packed, KUBECONFIG).map_err(|source| CallError::Local {
            method: "Kubeconfig",
            address: self.address(),
            source,
        })
    }
}
