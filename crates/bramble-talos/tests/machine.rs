//! The client of the machine API against Talos' own stubs, for 1.13 and 1.14.
//!
//! The machines are `tests/conformance/talos-fake`: wire, config loader, validation and roles are Talos' own code, the
//! machine behind them is pretended. `scripts/conformance.sh` builds them and runs these tests; alone they are left out.

#![expect(clippy::print_stdout, reason = "what was asked, for whoever runs the script")]

mod fake;

use bramble_secrets::{Secret, SecretText};
use bramble_talos::apply::{self, Act, ActError, Founding, KnownBy, Wanted};
use bramble_talos::config::{Disk, Install, Machine, Role, documents};
use bramble_talos::machine::{
    Bootstrapped, CallError, Client, Code, Credentials, Met, Mode, Reboot, Wipe, meet,
};
use bramble_talos::{Bundle, Release, pki};
use fake::Fake;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const RELEASES: [(Release, &str, &str); 2] =
    [(Release::V1_13, "1.13", "v1.13.9"), (Release::V1_14, "1.14", "v1.14.1")];
const KUBERNETES: &str = "1.36.3";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

static OURS: OnceLock<Bundle> = OnceLock::new();

/// A cluster of pretended machines.
struct Site {
    release: Release,
    program: &'static str,
    version: &'static str,
    bundle: Bundle,
    directory: tempfile::TempDir,
}

impl Site {
    fn new(
        (release, program, version): (Release, &'static str, &'static str),
    ) -> Result<Site, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        // A bundle takes seconds to make; one does for every site.
        let bundle = OURS.get_or_init(|| Bundle::generate(Release::V1_13, now()).unwrap()).clone();
        std::fs::write(directory.path().join("secrets.yaml"), bundle.write().expose())?;
        Ok(Site { release, program, version, bundle, directory })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn config(&self, role: Role, name: &str) -> SecretText {
        let mut machine = Machine::plain(self.release, role, "home", "https://127.0.0.1:6443", KUBERNETES);
        machine.hostname = Some(name.into());
        machine.install = Some(Install {
            image: Some(format!("factory.talos.dev/metal-installer/x:{}", self.version)),
            disk: Disk { path: Some("/dev/mmcblk0".into()), ..Disk::default() },
        });
        documents(&machine, &self.bundle).text()
    }

    /// A machine in maintenance mode.
    fn fresh(&self, arguments: &[&str]) -> Result<Fake, String> {
        let secrets = self.path("secrets.yaml");
        let all =
            [&["--listen", "127.0.0.1:0", "--secrets", &secrets, "--talos-version", self.version], arguments]
                .concat();
        Fake::start(self.program, &all)
    }

    /// A machine that has a config.
    fn configured(&self, role: Role, arguments: &[&str]) -> Result<Fake, Box<dyn std::error::Error>> {
        let path = self.path("machine.yaml");
        std::fs::write(&path, self.config(role, "fake-1").expose())?;
        Ok(self.fresh(&[&["--config", &path], arguments].concat())?)
    }

    fn credentials(&self, role: &str) -> Credentials {
        let client =
            pki::client_certificate(&self.bundle.machine, &[role], now(), Duration::from_secs(3600)).unwrap();
        Credentials { authority: self.bundle.machine.certificate.clone(), client }
    }

    /// An administrator's connection.
    fn admin(&self, fake: &Fake) -> Result<Client, Box<dyn std::error::Error>> {
        self.client(fake.address, pki::ADMIN)
    }

    fn client(&self, address: SocketAddr, role: &str) -> Result<Client, Box<dyn std::error::Error>> {
        match meet(address, Some(&self.credentials(role)), now(), &Arc::default())? {
            Met::Ours(client) => Ok(client),
            Met::Maintenance(_) => Err("it is in maintenance mode".into()),
            Met::Foreign => Err("it is foreign".into()),
        }
    }

    fn wanted(&self, fake: &Fake, role: Role, name: &str, mac: &str) -> Wanted {
        Wanted {
            name: name.into(),
            address: fake.address,
            role,
            version: self.version.parse().unwrap(),
            known_by: KnownBy { macs: vec![mac.into()], ..KnownBy::default() },
            config: self.config(role, name),
        }
    }
}

/// Tries until it works: a machine that reboots is away for a while.
fn until<T>(
    mut each: impl FnMut() -> Result<T, Box<dyn std::error::Error>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        match each() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > limit => return Err(error),
            Err(_) => std::thread::yield_now(),
        }
    }
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn maintenance_mode_tells_who_it_is_and_takes_a_config() -> Outcome {
    for release in RELEASES {
        let site = Site::new(release)?;
        let fake = site.fresh(&["--mac", "02:00:00:00:00:0a"])?;
        let Met::Maintenance(client) = meet(fake.address, None, now(), &Arc::default())? else {
            return Err("not in maintenance mode".into());
        };
        assert_eq!(client.fingerprint().map(|f| f.0.as_str()), Some(fake.fingerprint.as_str()));
        let running = client.version()?;
        assert_eq!((running.version.as_str(), running.arch.as_str()), (site.version, "arm64"));
        let hardware = client.hardware()?;
        assert_eq!(hardware.macs, ["02:00:00:00:00:0a"]);
        assert_eq!(hardware.serial, "02000000000a");
        assert_eq!(hardware.uuid, "00000000-0000-4000-8000-02000000000a");
        assert_eq!(hardware.disks[0].serial, "0x02000000000a");
        assert_eq!((hardware.disks[0].path.as_str(), hardware.disks[0].size), ("/dev/mmcblk0", 64 << 30));
        assert_eq!(client.stage()?.stage, "maintenance");
        // What only an administrator may, nobody may here.
        for refused in [client.reboot(Reboot::Default).err(), client.config().err(), client.boot_id().err()] {
            assert_eq!(refused.and_then(|e| e.code()), Some(Code::PermissionDenied));
        }
        let bad = client.apply(&Secret::new("machine: [".into()), Mode::Auto, false);
        assert_eq!(bad.err().and_then(|e| e.code()), Some(Code::InvalidArgument));
        let config = site.config(Role::ControlPlane, "n1");
        assert!(client.apply(&config, Mode::Auto, true)?.details.expose().contains("Dry run"));
        assert!(!client.apply(&config, Mode::Auto, false)?.reboots);
        let admin = until(|| site.admin(&fake))?;
        assert_eq!(admin.config()?.map(|c| c.expose().clone()), Some(config.expose().clone()));
        assert_eq!(admin.stage()?.stage, "booting");
    }
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn every_call_is_answered() -> Outcome {
    for release in RELEASES {
        let site = Site::new(release)?;
        let fake = site.configured(Role::ControlPlane, &[])?;
        let admin = site.admin(&fake)?;
        let config = site.config(Role::ControlPlane, "fake-1");
        let same = admin.apply(&config, Mode::Auto, true)?;
        assert!(same.details.expose().contains("No changes"), "{}", same.details.expose());
        let services = admin.services()?;
        let etcd = services.iter().find(|s| s.id == "etcd").ok_or("no etcd")?;
        assert_eq!((etcd.state.as_str(), etcd.healthy), ("Preparing", None));
        assert_eq!(admin.etcd_member()?, None);
        assert_eq!(admin.etcd_status().err().and_then(|e| e.code()), Some(Code::DeadlineExceeded));
        assert_eq!(admin.bootstrap(false)?, Bootstrapped::Begun);
        assert_eq!(admin.bootstrap(false)?, Bootstrapped::Already);
        let stage = admin.stage()?;
        assert_eq!((stage.stage.as_str(), stage.ready), ("running", true));
        let members = admin.etcd_members()?;
        assert_eq!(members[0].hostname, "fake-1");
        let status = admin.etcd_status()?;
        assert_eq!((status.id, status.leader, status.learner), (members[0].id, members[0].id, false));
        assert_eq!(admin.etcd_member()?, Some(format!("{:016x}", status.id)));
        assert_eq!(admin.etcd_remove(7).err().and_then(|e| e.code()), Some(Code::NotFound));
        let mut snapshot = Vec::new();
        assert_eq!(admin.etcd_snapshot(&mut snapshot)?, snapshot.len() as u64);
        admin.etcd_recover(std::io::Cursor::new(snapshot))?;
        assert!(fake.wait("recover-upload")?.contains("\"intact\":true"));
        assert!(admin.kubeconfig()?.expose().contains("client-key-data"));
        assert_eq!(admin.schematic()?, Some("0".repeat(64)));
        assert_eq!(admin.addresses()?, ["127.0.0.1/24"]);
        let mut log = Vec::new();
        let mut keep = |piece: &[u8]| {
            log.extend_from_slice(piece);
            ControlFlow::Continue(())
        };
        admin.logs("etcd", false, Some(10), &mut keep)?;
        admin.dmesg(false, &mut keep)?;
        assert_eq!(String::from_utf8(log)?, "etcd: line 1\netcd: line 2\nkern: line 1\nkern: line 2\n");
        let mut lines = 0;
        admin.logs("etcd", true, None, &mut |_| {
            lines += 1;
            if lines == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        // Another release beside the one that runs, and back.
        let mut told = Vec::new();
        let image = "factory.talos.dev/metal-installer/x:v1.14.9";
        admin.pull(image, &mut |_| {})?;
        assert!(
            admin.pull("registry/missing:v1", &mut |_| {}).err().and_then(|e| e.code())
                == Some(Code::NotFound)
        );
        assert!(admin.upgrade("registry/broken:v1", &mut |_| {}).is_err());
        admin.upgrade(image, &mut |line| told.push(line.to_string()))?;
        assert!(told.iter().any(|line| line.contains("running Talos installer")), "{told:?}");
        let before = admin.boot_id()?;
        admin.reboot(Reboot::Default)?;
        let admin = until(|| {
            let admin = site.admin(&fake)?;
            if admin.boot_id()? == before { Err("not rebooted yet".into()) } else { Ok(admin) }
        })?;
        assert_eq!(admin.version()?.version, "v1.14.9");
        admin.rollback()?;
        let admin = until(|| {
            let admin = site.admin(&fake)?;
            if admin.version()?.version == site.version { Ok(admin) } else { Err("not back yet".into()) }
        })?;
        admin.reset(Wipe::StateAndData, true, true)?;
        until(|| match meet(fake.address, None, now(), &Arc::default())? {
            Met::Maintenance(_) => Ok(()),
            _ => Err("not wiped yet".into()),
        })?;
        println!("{}: every call answered", site.version);
    }
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_machine_of_another_cluster_is_told_nothing() -> Outcome {
    for release in RELEASES {
        let (site, mut other) = (Site::new(release)?, Site::new(release)?);
        other.bundle = Bundle::generate(release.0, now())?;
        std::fs::write(other.path("secrets.yaml"), other.bundle.write().expose())?;
        let fake = other.configured(Role::ControlPlane, &[])?;
        let credentials = site.credentials(pki::ADMIN);
        let stop = Arc::default();
        assert!(matches!(meet(fake.address, Some(&credentials), now(), &stop)?, Met::Foreign));
        assert!(matches!(meet(fake.address, None, now(), &stop)?, Met::Foreign));
        let wanted = site.wanted(&fake, Role::ControlPlane, "fake-1", "d8:3a:dd:00:00:01");
        for act in [
            apply::push(&wanted, fake.address, &fake.fingerprint, &credentials, now(), &stop).err(),
            apply::configure(&wanted, true, &credentials, now(), &stop).err(),
            apply::bootstrap(&wanted, &credentials, now(), &stop).err(),
        ] {
            assert!(matches!(act, Some(ActError::Other { .. })), "{act:?}");
        }
        assert_eq!(apply::configured_ones(&[fake.address], now(), &stop), [fake.address]);
        assert_eq!((fake.count("applied"), fake.count("bootstrapped")), (0, 0));
        // An authority of ours in the place of the client's alone does not open it either.
        let reader = other.client(fake.address, "os:reader")?;
        assert_eq!(reader.bootstrap(false).err().and_then(|e| e.code()), Some(Code::PermissionDenied));
    }
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_machine_that_is_not_the_one_meant_keeps_its_peace() -> Outcome {
    let site = Site::new(RELEASES[1])?;
    let fake = site.fresh(&["--mac", "02:00:00:00:00:0a"])?;
    let (credentials, stop) = (site.credentials(pki::ADMIN), Arc::default());
    let stranger = site.wanted(&fake, Role::ControlPlane, "n1", "02:00:00:00:00:0b");
    let pushed = apply::push(&stranger, fake.address, &fake.fingerprint, &credentials, now(), &stop);
    assert!(matches!(pushed, Err(ActError::Other { .. })));
    let right = site.wanted(&fake, Role::ControlPlane, "n1", "02:00:00:00:00:0a");
    let pushed = apply::push(&right, fake.address, "another key", &credentials, now(), &stop);
    assert!(matches!(pushed, Err(ActError::Other { .. })));
    assert_eq!(fake.count("applied"), 0);
    apply::push(&right, fake.address, &fake.fingerprint, &credentials, now(), &stop)?;
    fake.wait("applied")?;
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn bootstrap_has_three_answers() -> Outcome {
    for release in RELEASES {
        let site = Site::new(release)?;
        let early = site.configured(Role::ControlPlane, &["--bootstrap-delay", "1h"])?;
        assert!(
            matches!(site.admin(&early)?.bootstrap(false)?, Bootstrapped::NotYet(why) if why.contains("not available"))
        );
        let worker = site.configured(Role::Worker, &[])?;
        assert_eq!(
            site.admin(&worker)?.bootstrap(false).err().and_then(|e| e.code()),
            Some(Code::Unimplemented)
        );
        // The answer is lost, not the act.
        let lossy = site.configured(Role::ControlPlane, &["--lose", "Bootstrap:1"])?;
        let lost = site.admin(&lossy)?.bootstrap(false);
        assert!(lost.as_ref().is_err_and(CallError::passing), "{lost:?}");
        assert_eq!(until(|| Ok(site.admin(&lossy)?.bootstrap(false)?))?, Bootstrapped::Already);
        assert_eq!(lossy.count("bootstrapped"), 1);
    }
    Ok(())
}

/// Each method once unavailable: the error names it, may pass, and the second try is answered.
#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_fault_in_any_call_passes() -> Outcome {
    type Call = fn(&Client) -> Result<(), CallError>;
    let calls: [(&str, Call); 15] = [
        ("Version", |c| c.version().map(drop)),
        ("ServiceList", |c| c.services().map(drop)),
        ("Bootstrap", |c| match c.bootstrap(false)? {
            Bootstrapped::NotYet(why) => Err(CallError::Refused {
                method: "Bootstrap",
                address: c.address(),
                code: Code::Unavailable,
                source: bramble_talos::machine::Refusal(why),
            }),
            _ => Ok(()),
        }),
        ("EtcdMemberList", |c| c.etcd_members().map(drop)),
        ("EtcdStatus", |c| c.etcd_status().map(drop)),
        ("EtcdSnapshot", |c| c.etcd_snapshot(&mut std::io::sink()).map(drop)),
        ("EtcdRecover", |c| c.etcd_recover(std::io::Cursor::new(vec![0; 4096]))),
        ("Kubeconfig", |c| c.kubeconfig().map(drop)),
        ("Read", |c| c.boot_id().map(drop)),
        ("Get", |c| c.stage().map(drop)),
        ("List", |c| c.disks().map(drop)),
        ("Logs", |c| c.logs("etcd", false, None, &mut |_| ControlFlow::Continue(()))),
        ("Dmesg", |c| c.dmesg(false, &mut |_| ControlFlow::Continue(()))),
        ("Pull", |c| c.pull("registry/image:v1.14.9", &mut |_| {})),
        ("Upgrade", |c| c.upgrade("registry/image:v1.14.9", &mut |_| {})),
    ];
    let mut tried = 0;
    for release in RELEASES {
        let site = Site::new(release)?;
        let faults: Vec<String> = calls.iter().map(|(name, _)| format!("{name}=14:1")).collect();
        let mut arguments: Vec<&str> = faults.iter().flat_map(|f| ["--fault", f.as_str()]).collect();
        arguments.extend(["--fault", "ApplyConfiguration=14:1", "--fault", "Reboot=12:1"]);
        let fake = site.configured(Role::ControlPlane, &arguments)?;
        let admin = site.admin(&fake)?;
        for (name, call) in calls {
            let error = call(&admin).err().ok_or(name)?;
            assert!(error.passing() && error.to_string().contains(name), "{name}: {error}");
            call(&admin).map_err(|e| format!("{name}: {e}"))?;
            tried += 1;
        }
        let config = site.config(Role::ControlPlane, "fake-1");
        assert!(admin.apply(&config, Mode::NoReboot, false).is_err_and(|e| e.passing()));
        admin.apply(&config, Mode::NoReboot, false)?;
        let unknown = admin.reboot(Reboot::Default).err().ok_or("no fault")?;
        assert!(!unknown.passing() && unknown.code() == Some(Code::Unimplemented));
        tried += 2;
    }
    println!("{tried} calls met a fault and were answered after it");
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_call_stops_when_it_is_asked_to() -> Outcome {
    let site = Site::new(RELEASES[1])?;
    let fake = site.configured(Role::ControlPlane, &[])?;
    let stop = Arc::new(AtomicBool::new(false));
    let Met::Ours(admin) = meet(fake.address, Some(&site.credentials(pki::ADMIN)), now(), &stop)? else {
        return Err("not ours".into());
    };
    let mut lines = 0;
    let ended = admin.logs("etcd", true, None, &mut |_| {
        lines += 1;
        stop.store(lines == 2, Ordering::SeqCst);
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(CallError::Stopped { .. })), "{ended:?}");
    drop(fake);
    stop.store(false, Ordering::SeqCst);
    let gone = admin.version();
    assert!(gone.as_ref().is_err_and(CallError::passing), "{gone:?}");
    Ok(())
}

/// A machine that is not where the file has it is found by its hardware, and by nothing else.
#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_machine_at_another_address_is_found() -> Outcome {
    let site = Site::new(RELEASES[1])?;
    let fake = site.fresh(&["--mac", "02:00:00:00:00:0a"])?;
    let other = site.fresh(&["--mac", "02:00:00:00:00:0b"])?;
    let foreign = site.configured(Role::Worker, &["--mac", "02:00:00:00:00:0a"])?;
    let mut wanted = site.wanted(&fake, Role::ControlPlane, "n1", "02:00:00:00:00:0a");
    // Nobody listens there.
    wanted.address = SocketAddr::from(([127, 0, 0, 1], 1));
    let (credentials, stop) = (site.credentials(pki::ADMIN), Arc::default());
    let wanted = [wanted];
    let find = |places: &[SocketAddr]| {
        let seen = apply::look(&wanted, &credentials, now(), &stop);
        let seen = apply::find(&wanted, seen, places, now(), &stop);
        apply::decide(&wanted, &seen, &Founding::default())
    };
    assert!(find(&[other.address, foreign.address]).acts.is_empty());
    let decision = find(&[other.address, fake.address]);
    let found = matches!(decision.acts.as_slice(), [Act::Push { address, .. }] if *address == fake.address);
    assert!(found, "{decision:?}");
    // One that answers where it should is not looked for elsewhere.
    let third = site.fresh(&["--mac", "02:00:00:00:00:0a"])?;
    assert!(find(&[fake.address, third.address]).acts.is_empty());
    Ok(())
}

/// Look, decide, act, as the command does, with a fault or a lost answer at each call of a bootstrap.
#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_site_comes_up_whatever_call_fails() -> Outcome {
    let faults: [&[&str]; 8] = [
        &[],
        &["--lose", "ApplyConfiguration:1"],
        &["--lose", "Bootstrap:1"],
        &["--lose", "Version:2", "--lose", "Get:3"],
        &["--fault", "ApplyConfiguration=14:2", "--fault", "Bootstrap=9:2"],
        &["--fault", "Bootstrap=14:2", "--fault", "EtcdMemberList=4:1"],
        &["--fault", "Get=14:5", "--fault", "List=14:2"],
        &["--fault", "Version=14:3", "--bootstrap-delay", "1s"],
    ];
    for release in RELEASES {
        for faults in faults {
            let site = Site::new(release)?;
            let etcd = site.path("etcd");
            let mut machines = Vec::new();
            let mut wanted = Vec::new();
            for number in 1..=5 {
                let (name, mac) = (format!("n{number}"), format!("02:00:00:00:00:0{number}"));
                let role = if number < 4 { Role::ControlPlane } else { Role::Worker };
                let own =
                    ["--etcd", etcd.as_str(), "--hostname", &name, "--mac", &mac, "--reboot-time", "100ms"];
                let fake = site.fresh(&[&own, faults].concat())?;
                wanted.push(site.wanted(&fake, role, &name, &mac));
                machines.push(fake);
            }
            let credentials = site.credentials(pki::ADMIN);
            let stop = Arc::default();
            let mut founding = Founding::default();
            let limit = Instant::now() + Duration::from_secs(120);
            loop {
                let decision =
                    apply::decide(&wanted, &apply::look(&wanted, &credentials, now(), &stop), &founding);
                founding = decision.founding.clone();
                if decision.settled() {
                    break;
                }
                if Instant::now() > limit {
                    return Err(format!("{faults:?}: {decision:?}").into());
                }
                for act in &decision.acts {
                    let one = wanted.iter().find(|w| w.name == act.node()).ok_or("unknown")?;
                    let result = match act {
                        Act::Push { address, fingerprint, .. } => {
                            apply::push(one, *address, fingerprint, &credentials, now(), &stop).map(drop)
                        }
                        Act::Configure { .. } => {
                            apply::configure(one, false, &credentials, now(), &stop).map(drop)
                        }
                        Act::Bootstrap { .. } => apply::bootstrap(one, &credentials, now(), &stop).map(drop),
                    };
                    if let Err(error) = result {
                        assert!(error.passing(), "{faults:?}: {error}");
                    }
                }
            }
            assert!(founding.founded);
            let begun: usize = machines.iter().map(|m| m.count("bootstrapped")).sum();
            let second: usize = machines.iter().map(|m| m.count("second-etcd")).sum();
            assert_eq!((begun, second), (1, 0), "{faults:?}");
        }
        println!("{}: {} sites of five machines came up, each founded once", release.2, faults.len());
    }
    Ok(())
}
