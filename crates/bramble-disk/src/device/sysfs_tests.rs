#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

//! A stand-in for sysfs: directories of the same shape as the kernel's (Documentation/ABI), with values as real
//! machines show them.

use super::*;
use crate::device::Use;
use std::os::unix::fs::symlink;

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { dir: tempfile::tempdir().unwrap() };
        for path in ["sys/class/block", "sys/dev/block", "proc/self", "dev"] {
            fs::create_dir_all(machine.dir.path().join(path)).unwrap();
        }
        machine
    }

    fn roots(&self) -> Roots {
        let root = self.dir.path();
        Roots { sys: root.join("sys"), proc: root.join("proc"), dev: root.join("dev") }
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A block device at `way` below /sys/devices.
    fn block(&self, way: &str, number: &str, size: u64, attributes: &[(&str, &str)]) {
        let name = way.rsplit('/').next().unwrap();
        let at = format!("sys/devices/{way}");
        self.write(&format!("{at}/dev"), format!("{number}\n"));
        self.write(&format!("{at}/size"), format!("{}\n", size / 512));
        self.write(&format!("{at}/ro"), "0\n");
        self.write(&format!("{at}/removable"), "0\n");
        for (key, value) in attributes {
            self.write(&format!("{at}/{key}"), format!("{value}\n"));
        }
        let real = self.dir.path().join(&at);
        symlink(&real, self.dir.path().join(format!("sys/class/block/{name}"))).unwrap();
        symlink(&real, self.dir.path().join(format!("sys/dev/block/{number}"))).unwrap();
    }

    fn devices(&self) -> Vec<Device> {
        self.roots().devices().unwrap()
    }

    fn device(&self, name: &str) -> Device {
        self.devices().into_iter().find(|d| d.name == name).unwrap()
    }
}

const USB: &str = "pci0000:00/0000:00:14.0/usb2/2-1/2-1.4";

fn usb(machine: &Machine, product: &str, serial: &str) {
    machine.write(&format!("sys/devices/{USB}/manufacturer"), "Maker\n");
    machine.write(&format!("sys/devices/{USB}/product"), format!("{product}\n"));
    machine.write(&format!("sys/devices/{USB}/serial"), format!("{serial}\n"));
}

#[test]
fn a_card_in_a_reader_is_told_by_its_port_and_not_by_the_readers_serial() {
    let machine = Machine::new();
    usb(&machine, "USB3.0 Card Reader", "000000001532");
    let way = format!("{USB}/2-1.4:1.0/host6/target6:0:0/6:0:0:0/block/sdb");
    let attributes = [("removable", "1"), ("diskseq", "17"), ("device/vendor", "Generic ")];
    machine.block(&way, "8:16", 31_914_983_424, &attributes);
    machine.block(&format!("{way}/sdb1"), "8:17", 1 << 20, &[("partition", "1"), ("start", "8192")]);
    let found = machine.device("sdb");
    assert_eq!((found.bus, found.medium), (Bus::Usb, Medium::Changeable));
    assert_eq!(found.port, "usb:2-1.4:0");
    assert_eq!((found.size, found.sequence), (31_914_983_424, Some(17)));
    assert_eq!((found.sector, found.removable, found.read_only), (512, true, false));
    assert_eq!(found.title(), "Maker USB3.0 Card Reader");
    assert_eq!(found.serials, [Foreign::new("000000001532")]);
    assert_eq!((found.partitions.len(), found.partitions[0].start), (1, 8192 * 512));
    assert_eq!(machine.devices().len(), 1, "partitions are no disks");
    let part = Number { major: 8, minor: 17 };
    assert_eq!(machine.roots().find(part), Some(("sdb".into(), Some("sdb1".into()))));
    assert_eq!(machine.roots().find(Number { major: 8, minor: 16 }), Some(("sdb".into(), None)));
}

#[test]
fn a_stick_has_its_own_serial_only_when_that_is_sure() {
    for (product, removable, medium) in [
        ("Cruzer Fit", "1", Medium::Own),
        ("DataTraveler 3.0", "1", Medium::Own),
        ("Portable SSD T7", "0", Medium::Own),
        // It may be a reader under another name.
        ("Mass Storage Device", "1", Medium::Changeable),
        ("Flash Drive Card Reader", "1", Medium::Changeable),
        ("Multi-Card", "0", Medium::Changeable),
    ] {
        let machine = Machine::new();
        usb(&machine, product, "4C530001");
        let way = format!("{USB}/2-1.4:1.0/host6/target6:0:0/6:0:0:0/block/sdb");
        machine.block(&way, "8:16", 8 << 30, &[("removable", removable)]);
        assert_eq!(machine.device("sdb").medium, medium, "{product}");
    }
}

#[test]
fn two_slots_in_one_device_are_a_reader_whatever_it_is_called() {
    let machine = Machine::new();
    usb(&machine, "Cruzer Twin", "4C530001");
    for (lun, name, number) in [(0, "sdb", "8:16"), (1, "sdc", "8:32")] {
        let way = format!("{USB}/2-1.4:1.0/host6/target6:0:0/6:0:0:{lun}/block/{name}");
        machine.block(&way, number, 8 << 30, &[("removable", "1")]);
    }
    let devices = machine.devices();
    assert!(devices.iter().all(|d| d.medium == Medium::Changeable));
    assert_eq!(devices.iter().map(|d| d.port.as_str()).collect::<Vec<_>>(), ["usb:2-1.4:0", "usb:2-1.4:1"]);
}

#[test]
fn every_bus_is_told() {
    let machine = Machine::new();
    let cid = "03534453433332478012345678013a00";
    let mmc = "platform/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0";
    machine.block(mmc, "179:0", 8 << 30, &[("device/type", "SD"), ("device/cid", cid)]);
    let emmc = "platform/x/mmc_host/mmc1/mmc1:0001/block/mmcblk1";
    machine.block(emmc, "179:32", 8 << 30, &[("device/type", "MMC")]);
    machine.block(&format!("{emmc}/mmcblk1boot0"), "179:64", 4 << 20, &[]);
    let pci = "pci0000:00/0000:00:1d.0/0000:01:00.0";
    let wwid = ("wwid", "eui.0025385b01412345");
    machine.block(
        &format!("{pci}/nvme/nvme0/nvme0n1"),
        "259:0",
        1 << 40,
        &[wwid, ("device/serial", "S4EV  "), ("device/model", "Samsung SSD ")],
    );
    let ata = "pci0000:00/0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0/block/sda";
    machine.block(ata, "8:0", 1 << 40, &[("device/wwid", "naa.5002538e40a1b2c3")]);
    machine.write(&format!("sys/devices/{ata}/device/vpd_pg80"), b"\0\x80\0\x08  WD-123");
    machine.block("pci0000:00/0000:00:02.0/virtio1/block/vda", "254:0", 1 << 30, &[("serial", "abc")]);
    machine.block("virtual/block/loop0", "7:0", 1 << 30, &[("loop/backing_file", "/home/me/n1.img")]);
    machine.block("virtual/block/dm-0", "252:0", 1 << 30, &[("dm/uuid", "LVM-x"), ("dm/name", "vg-a")]);
    machine.block("virtual/block/md0", "9:0", 1 << 30, &[("md/level", "raid1")]);
    machine.block("virtual/block/zram0", "253:0", 1 << 30, &[]);
    let optical = "pci0000:00/0000:00:17.0/ata4/host3/target3:0:0/3:0:0:0/block/sr0";
    machine.block(optical, "11:0", 1 << 30, &[("device/type", "5")]);
    let seen: Vec<_> = machine.devices().into_iter().map(|d| (d.name, d.bus)).collect();
    let wanted = [
        ("dm-0", Bus::Mapped),
        ("loop0", Bus::Loop),
        ("md0", Bus::Mapped),
        ("mmcblk0", Bus::Sd),
        ("mmcblk1", Bus::Emmc),
        ("nvme0n1", Bus::Nvme),
        ("sda", Bus::Ata),
        ("sr0", Bus::Other),
        ("vda", Bus::Virtio),
        ("zram0", Bus::Other),
    ];
    assert_eq!(seen, wanted.map(|(n, b)| (n.to_string(), b)));
    assert_eq!(machine.device("mmcblk0").serials, [Foreign::new(cid)]);
    assert_eq!(machine.device("mmcblk0").port, "sd:mmc0");
    assert_eq!(machine.device("nvme0n1").serials, [Foreign::new("S4EV")]);
    assert_eq!(machine.device("nvme0n1").port, "nvme:0000:01:00.0");
    assert_eq!(machine.device("sda").serials, [Foreign::new("WD-123")]);
    assert_eq!(machine.device("sda").wwids, [Foreign::new("naa.5002538e40a1b2c3")]);
    assert_eq!(machine.device("vda").serials, [Foreign::new("abc")]);
    assert_eq!(machine.device("loop0").backing, Some("/home/me/n1.img".into()));
}

#[test]
fn mounts_swap_and_members_are_found_by_number_by_path_and_by_holder() {
    let machine = Machine::new();
    for (name, number) in [("sda", "8:0"), ("sdb", "8:16"), ("sdc", "8:32"), ("sdd", "8:48"), ("sde", "8:64")]
    {
        let way = format!("pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/{name}");
        machine.block(&way, number, 1 << 40, &[]);
        let minor: u32 = number.split_once(':').unwrap().1.parse::<u32>().unwrap() + 1;
        let part = [("partition", "1"), ("start", "2048")];
        machine.block(&format!("{way}/{name}1"), &format!("8:{minor}"), 1 << 30, &part);
    }
    machine.block(
        "virtual/block/dm-0",
        "252:0",
        1 << 30,
        &[("dm/uuid", "CRYPT-LUKS2-1"), ("dm/name", "home")],
    );
    machine.write("sys/class/block/sdb1/holders/dm-0", "");
    machine.write("sys/fs/btrfs/1234-abcd/devices/sdd1", "");
    machine.write(
        "proc/self/mountinfo",
        "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
         26 1 252:0 / /home rw - xfs /dev/mapper/home rw\n\
         27 1 0:40 / /data rw - btrfs /dev/sdd1 rw\n",
    );
    machine.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sdc1 partition 1 0 -2\n");
    assert_eq!(machine.device("sda").uses[0], Use::System { at: "/".into() });
    assert_eq!(machine.device("sdb").uses[0], Use::System { at: "/home".into() });
    assert!(machine.device("sdb").uses.contains(&Use::Member { of: "LUKS", name: "home".into() }));
    assert_eq!(machine.device("sdc").uses, [Use::Swap { name: "sdc1".into() }]);
    let uses = machine.device("sdd").uses;
    assert!(uses.contains(&Use::Mounted { name: "sdd1".into(), at: "/data".into() }));
    assert!(uses.contains(&Use::Member { of: "btrfs", name: "1234-abcd".into() }));
    assert_eq!(machine.device("sde").uses, []);
}

#[test]
fn what_goes_away_while_it_is_listed_is_not_there() {
    let machine = Machine::new();
    symlink("nowhere", machine.dir.path().join("sys/class/block/sdz")).unwrap();
    assert_eq!(machine.devices(), []);
}

/// This computer's own sysfs, whatever it has: the root file system's disk is the system's.
#[test]
fn the_disk_that_this_computer_runs_from_is_seen() {
    let devices = match Roots::default().devices() {
        Ok(devices) if !devices.is_empty() => devices,
        _ => return println!("SKIPPED: this computer shows no block devices"),
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = uses::mounts(&mounts).into_iter().rev().find(|m| m.at == "/").unwrap();
    let Some((disk, _)) = Roots::default().find(root.number) else {
        return println!("SKIPPED: / is on no disk that this computer shows ({})", root.source);
    };
    let device = devices.iter().find(|d| d.name == disk).unwrap();
    assert!(device.uses.contains(&Use::System { at: "/".into() }), "{device:?}");
}
