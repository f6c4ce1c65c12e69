use super::index::Index;
use super::*;
use crate::tree::Node;

/// A module as small as they come: an ELF file with the two sections that are read.
fn elf(modinfo: &[&str], exports: &[&str]) -> Vec<u8> {
    let join = |parts: &[&str]| parts.iter().flat_map(|part| part.bytes().chain([0])).collect::<Vec<u8>>();
    let names = b"\0.modinfo\0.strtab\0.shstrtab\0".to_vec();
    let sections = [(1u32, join(modinfo)), (10, join(exports)), (18, names)];
    let mut out = vec![0; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut headers = vec![0; 64];
    for (name, bytes) in &sections {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4] = 1;
        header[24..32].copy_from_slice(&(out.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        headers.extend(header);
        out.extend(bytes);
    }
    let table = out.len() as u64;
    out[40..48].copy_from_slice(&table.to_le_bytes());
    out[60..62].copy_from_slice(&4u16.to_le_bytes());
    out[62..64].copy_from_slice(&3u16.to_le_bytes());
    out.extend(headers);
    out
}

/// Looks a key up in a table the way libkmod does; values in the order of the file.
fn look_up(table: &[u8], key: &str) -> Vec<String> {
    let word = |at: usize| u32::from_be_bytes(table[at..at + 4].try_into().unwrap());
    let text = |at: usize| {
        let end = at + table[at..].iter().position(|b| *b == 0).unwrap();
        (std::str::from_utf8(&table[at..end]).unwrap(), end + 1)
    };
    assert_eq!((word(0), word(4)), (0xB007_F457, 0x0002_0001));
    let mut offset = word(8);
    let mut rest = key;
    loop {
        let mut at = (offset & 0x0FFF_FFFF) as usize;
        if offset & 0x8000_0000 != 0 {
            let (prefix, next) = text(at);
            let Some(after) = rest.strip_prefix(prefix) else { return Vec::new() };
            (rest, at) = (after, next);
        }
        let mut child = 0;
        if offset & 0x2000_0000 != 0 {
            let (first, last) = (table[at], table[at + 1]);
            if let Some(letter) = rest.bytes().next().filter(|letter| (first..=last).contains(letter)) {
                child = word(at + 2 + 4 * usize::from(letter - first));
            }
            at += 2 + 4 * (usize::from(last - first) + 1);
        }
        if rest.is_empty() {
            let mut values = Vec::new();
            if offset & 0x4000_0000 != 0 {
                let count = word(at);
                at += 4;
                for _ in 0..count {
                    let (value, next) = text(at + 4);
                    values.push(value.to_string());
                    at = next;
                }
            }
            return values;
        }
        if child == 0 {
            return Vec::new();
        }
        rest = &rest[1..];
        offset = child;
    }
}

#[test]
fn every_key_of_a_table_is_found_and_no_other() {
    let mut index = Index::default();
    for (at, key) in
        ["ext4", "ext2", "ext", "e", "xfs", "virtio:d00000002v*", "virtio_blk"].iter().enumerate()
    {
        index.insert(key, &format!("value {at}"), at as u32);
    }
    index.insert("ext4", "first", 0);
    let table = index.write();
    assert_eq!(look_up(&table, "ext4"), ["first", "value 0"]);
    for (at, key) in ["ext2", "ext", "e", "xfs", "virtio:d00000002v*", "virtio_blk"].iter().enumerate() {
        assert_eq!(look_up(&table, key), [format!("value {}", at + 1)], "{key}");
    }
    for key in ["ex", "ext44", "virtio", "", "y"] {
        assert!(look_up(&table, key).is_empty(), "{key}");
    }
    assert!(look_up(&Index::default().write(), "x").is_empty());
}

struct Fixture {
    tree: Tree,
    cache: PathBuf,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let mut tree = Tree::new();
        let home = "/usr/lib/modules/7.0";
        for (path, modinfo, exports) in [
            (
                "kernel/fs/erofs/erofs.ko",
                &["alias=fs-erofs", "softdep=pre: crypto-crc32c", "depends=net-fs"][..],
                &[][..],
            ),
            ("kernel/fs/netfs/net-fs.ko", &["depends="][..], &["__ksymtab_netfs_read", "CXL"][..]),
            ("kernel/crypto/crc32c_generic.ko", &["alias=crypto-crc32c", "depends="][..], &[][..]),
            ("kernel/sound/core/snd.ko", &["depends="][..], &["__ksymtab_snd_card_new"][..]),
            ("kernel/sound/usb/snd-usb.ko", &["depends=snd"][..], &[][..]),
            (
                "kernel/fs/fuse/cuse.ko",
                &["alias=devname:cuse", "alias=char-major-10-203", "depends="][..],
                &[][..],
            ),
        ] {
            tree.file(format!("{home}/{path}"), 0o644, elf(modinfo, exports)).unwrap();
        }
        let order = "kernel/fs/netfs/net-fs.ko\nkernel/fs/erofs/erofs.ko\n";
        for (name, text) in [
            ("modules.order", order),
            ("modules.builtin", "kernel/fs/ext4/ext4.ko\n"),
            ("modules.builtin.modinfo", "ext4.alias=fs-ext4\0ext4.license=GPL\0"),
            ("vmlinuz", "MZ image"),
            ("System.map", "map"),
            ("dtb/broadcom/pi.dtb", "tree"),
        ] {
            tree.file(format!("{home}/{name}"), 0o644, text).unwrap();
        }
        tree.symlink("/usr/lib/linux-image-7.0", "modules/7.0/dtb").unwrap();
        let cache = std::env::temp_dir().join(format!("bramble-depmod-{name}-{}", std::process::id()));
        Fixture { tree, cache }
    }

    fn take(&mut self, keep: &[&str]) -> Result<Kernel, KernelError> {
        let keep: Vec<String> = keep.iter().map(|name| name.to_string()).collect();
        take(&mut self.tree, &[], &keep, &self.cache, &mut BTreeMap::new())
    }

    fn table(&self, name: &str) -> &[u8] {
        self.tree.read(format!("/usr/lib/modules/7.0/{name}")).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.cache);
    }
}

#[test]
fn the_kernel_leaves_the_tree_and_its_tables_stay() {
    let mut fixture = Fixture::new("tables");
    let kernel = fixture.take(&[]).unwrap();
    assert_eq!((kernel.version.as_str(), kernel.image.as_slice()), ("7.0", &b"MZ image"[..]));
    assert_eq!(kernel.device_trees.keys().collect::<Vec<_>>(), ["broadcom/pi.dtb"]);
    for gone in
        ["modules/7.0/vmlinuz", "modules/7.0/System.map", "modules/7.0/dtb", "modules/7.0/kernel/sound"]
    {
        assert!(!fixture.tree.exists(format!("/usr/lib/{gone}")), "{gone}");
    }
    let dep = String::from_utf8(fixture.table("modules.dep").to_vec()).unwrap();
    assert!(
        dep.starts_with("kernel/fs/netfs/net-fs.ko:\nkernel/fs/erofs/erofs.ko: kernel/fs/netfs/net-fs.ko\n"),
        "{dep}"
    );
    assert_eq!(look_up(fixture.table("modules.alias.bin"), "fs_erofs"), ["erofs"]);
    assert_eq!(look_up(fixture.table("modules.symbols.bin"), "symbol:netfs_read"), ["net_fs"]);
    assert!(look_up(fixture.table("modules.symbols.bin"), "symbol:CXL").is_empty());
    assert_eq!(look_up(fixture.table("modules.builtin.alias.bin"), "fs_ext4"), ["ext4"]);
    assert_eq!(look_up(fixture.table("modules.builtin.bin"), "ext4"), [""]);
    assert!(fixture.table("modules.devname").ends_with(b"cuse cuse c10:203\n"));
    assert!(fixture.table("modules.softdep").ends_with(b"softdep erofs pre: crypto-crc32c\n"));
}

#[test]
fn a_closure_follows_hard_and_soft_dependencies_in_the_order_of_loading() {
    let kernel = Fixture::new("closure").take(&[]).unwrap();
    let names =
        |names: &[&str]| kernel.closure(names).unwrap().into_iter().map(|m| m.name).collect::<Vec<_>>();
    assert_eq!(names(&["erofs", "net-fs", "ext4"]), ["net_fs", "crc32c_generic", "erofs"]);
    assert_eq!(names(&["fs-erofs"]), names(&["erofs"]));
    assert!(kernel.has("net-fs") && kernel.has("ext4") && !kernel.has("snd"));
    let error = kernel.closure(&["erofs", "nope", "snd"]).unwrap_err();
    assert!(matches!(error, KernelError::NoModule { names, .. } if names == ["nope", "snd"]));
}

#[test]
fn what_the_user_names_stays_with_all_that_it_needs() {
    let mut fixture = Fixture::new("keep");
    let kernel = fixture.take(&["snd-usb"]).unwrap();
    assert!(kernel.has("snd_usb") && kernel.has("snd"));
    assert!(fixture.tree.exists("/usr/lib/modules/7.0/kernel/sound/core/snd.ko"));
    let error = Fixture::new("unknown").take(&["sdn"]).unwrap_err();
    assert!(matches!(error, KernelError::NoModule { names, .. } if names == ["sdn"]));
}

#[test]
fn the_cache_gives_what_a_scan_gives() {
    let mut first = Fixture::new("cache");
    first.take(&[]).unwrap();
    let mut second = Fixture::new("cache");
    // Contents that would fail to scan: the cache is what answers.
    let path = "/usr/lib/modules/7.0/kernel/fs/erofs/erofs.ko";
    second.tree.file(path, 0o644, "no module").unwrap();
    second.take(&[]).unwrap();
    assert_eq!(first.table("modules.dep"), second.table("modules.dep"));
    std::fs::remove_dir_all(&second.cache).unwrap();
    let mut third = Fixture::new("cache");
    third.tree.file(path, 0o644, "no module").unwrap();
    assert!(matches!(third.take(&[]), Err(KernelError::BadModule { .. })));
}

#[test]
fn no_kernel_and_two_kernels_are_errors() {
    let mut none = Tree::new();
    none.insert("/usr/lib/modules", Node::dir(0o755)).unwrap();
    let taken = |tree: &mut Tree| take(tree, &[], &[], Path::new("/nonexistent"), &mut BTreeMap::new());
    assert!(matches!(taken(&mut none), Err(KernelError::NotOne { found }) if found.is_empty()));
    let mut two = Tree::new();
    for version in ["1", "2"] {
        two.file(format!("/usr/lib/modules/{version}/modules.order"), 0o644, "").unwrap();
    }
    assert!(matches!(taken(&mut two), Err(KernelError::NotOne { found }) if found.len() == 2));
}
