//! A pack over connections that break, into a sink that remembers.

use super::*;
use bramble_api::names::Slot;
use bramble_api::release::{Pack, Part};
use bramble_pack::{BLOCK, write};
use bramble_upgrade::journal::COPY;
use bramble_upgrade::media::{Refusal as MediumRefusal, Scheme};
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// splitmix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn blocks(&mut self, count: usize) -> Vec<u8> {
        (0..count * BLOCK / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}

/// What a server does wrong.
#[derive(Clone, Copy)]
enum Wrong {
    /// Nothing.
    None,
    /// It ends each connection after at most so many bytes.
    Breaks(u64),
    /// It knows no ranges.
    NoRanges,
    /// Its copy has another byte here.
    Byte(usize),
    /// Its copy ends here.
    Short(usize),
}

/// Serves `file` as `/pack` with its fault; counts the connections.
fn serve(mut file: Vec<u8>, fault: Wrong, connections: Arc<AtomicU64>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    match fault {
        Wrong::Byte(at) => file[at] ^= 1,
        Wrong::Short(at) => file.truncate(at),
        _ => {}
    }
    std::thread::spawn(move || {
        let mut random = Random(7);
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            connections.fetch_add(1, Ordering::Relaxed);
            let mut request = vec![0; 4096];
            let got = socket.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..got]).to_ascii_lowercase();
            let range =
                request.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
            let from = match fault {
                Wrong::NoRanges => 0,
                _ => range.unwrap_or(0usize),
            };
            if from > 0 && from >= file.len() {
                let _ = socket.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            let (status, end) = match from {
                0 => ("200 OK".to_string(), file.len()),
                _ => (
                    format!("206 P\r\nContent-Range: bytes {from}-{}/{}", file.len() - 1, file.len()),
                    file.len(),
                ),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", end - from);
            let end = match fault {
                Wrong::Breaks(most) => end.min(from + 1 + (random.next() % most) as usize),
                _ => end,
            };
            let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&file[from..end]));
        }
    });
    Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap()
}

/// The running release's slot.
struct Old {
    root: Vec<u8>,
    boot: Vec<u8>,
}

impl Media for Old {
    fn scheme(&self) -> Scheme {
        Scheme::Uefi
    }
    fn size(&self, area: Area) -> u64 {
        if matches!(area, Area::Root(_)) { self.root.len() as u64 } else { self.boot.len() as u64 }
    }
    fn read(&mut self, area: Area, offset: u64, out: &mut [u8]) -> Result<(), MediumRefusal> {
        let bytes = match area {
            Area::Root(Slot::A) => &self.root,
            Area::Boot(Slot::A) => &self.boot,
            _ => {
                return Err(MediumRefusal {
                    act: format!("read {area:?}"),
                    why: "not the running slot".into(),
                });
            }
        };
        out.copy_from_slice(&bytes[offset as usize..offset as usize + out.len()]);
        Ok(())
    }
    fn write(&mut self, _: Area, _: u64, _: &[u8]) -> Result<(), MediumRefusal> {
        unreachable!("a download does not write by itself")
    }
    fn flush(&mut self) -> Result<(), MediumRefusal> {
        Ok(())
    }
    fn journal(&mut self, _: usize) -> Vec<u8> {
        Vec::new()
    }
    fn write_journal(&mut self, _: usize, _: &[u8; COPY]) -> Result<(), MediumRefusal> {
        Ok(())
    }
}

#[derive(Default)]
struct Slots {
    root: Vec<u8>,
    boot: Vec<u8>,
}

impl Sink for Slots {
    fn root(&mut self, blocks: &[u8]) -> Result<(), Verdict> {
        self.root.extend_from_slice(blocks);
        Ok(())
    }
    fn boot(&mut self, blocks: &[u8]) -> Result<(), Verdict> {
        self.boot.extend_from_slice(blocks);
        Ok(())
    }
}

/// An earlier release, the new one, and its pack.
struct Site {
    old: Vec<u8>,
    old_boot: Vec<u8>,
    new: Vec<u8>,
    boot: Vec<u8>,
    pack: Vec<u8>,
    offer: Offer,
    have: Digest,
}

fn site() -> Site {
    let mut random = Random(1);
    let old = random.blocks(3000);
    let mut new = old.clone();
    // A fifth of it changes, some of it moves, some becomes zeros.
    new[100 * BLOCK..700 * BLOCK].copy_from_slice(&random.blocks(600));
    new.copy_within(2000 * BLOCK..2100 * BLOCK, 900 * BLOCK);
    new[1500 * BLOCK..1550 * BLOCK].fill(0);
    let (old_boot, boot) = (random.blocks(60), random.blocks(61));
    let have = Digest::of(b"the earlier release's manifest");
    let images = |root, boot| {
        [
            write::Image { kind: ImageKind::Root, bytes: root },
            write::Image { kind: ImageKind::Uki, bytes: boot },
        ]
    };
    let salt = [9; 32];
    let earlier =
        write::Earlier { version: 1, manifest: have, images: write::index(&salt, &images(&old, &old_boot)) };
    let mut pack = Vec::new();
    let settings = write::Settings { level: 1, frame_blocks: 16 };
    let written = write::write(&mut pack, 2, &salt, &images(&new, &boot), &[earlier], &settings).unwrap();
    let offer = Offer {
        format: 1,
        cluster: "home".into(),
        arch: Arch::Amd64,
        version: 2,
        manifest: Part { path: "manifest".into(), size: 0, sha256: Digest::of(b"") },
        pack: Pack {
            path: "pack".into(),
            size: written.size,
            sha256: written.sha256,
            head_size: written.head_size,
            head_sha256: written.head_sha256,
        },
        issued: 0,
        best_before: None,
    };
    Site { old, old_boot, new, boot, pack, offer, have }
}

/// Downloads; gives what the sink has, and the bytes that came.
fn download(site: &Site, url: &Url, have: Digest) -> (Result<(), Verdict>, Slots, u64, Applied) {
    let mut client = Client::default();
    let mut earlier = Old { root: site.old.clone(), boot: site.old_boot.clone() };
    let mut came = 0;
    let mut tell = |bytes| came += bytes;
    let mut slots = Slots::default();
    let mut download = Download::new(
        &mut client,
        url,
        &site.offer,
        ImageKind::Uki,
        (have, Slot::A),
        &mut earlier,
        &mut tell,
    );
    let poured = download.pour(&mut slots);
    let applied = download.applied;
    (poured, slots, came, applied)
}

#[test]
fn a_download_that_breaks_a_thousand_times_fetches_nothing_twice() {
    let site = site();
    let connections = Arc::new(AtomicU64::new(0));
    let most = 2 * site.pack.len() as u64 / 3 / 1100;
    let url = serve(site.pack.clone(), Wrong::Breaks(most), connections.clone());
    // From nothing: the longest way.
    let (poured, slots, came, applied) = download(&site, &url, Digest::of(b"another release"));
    assert_eq!(poured, Ok(()));
    assert!(slots.root == site.new && slots.boot == site.boot);
    assert!(connections.load(Ordering::Relaxed) > 1000, "{connections:?} connections");
    // The head comes beside what is applied.
    assert_eq!(came, applied.fetched + site.offer.pack.head_size);
}

#[test]
fn a_recipe_costs_what_changed() {
    let site = site();
    let url = serve(site.pack.clone(), Wrong::None, Arc::default());
    let (poured, slots, came, _) = download(&site, &url, site.have);
    assert_eq!(poured, Ok(()));
    assert!(slots.root == site.new && slots.boot == site.boot);
    assert!(came < (661 + 20) * BLOCK as u64, "{came} bytes came");
}

#[test]
fn a_server_without_ranges_is_read_to_the_end() {
    let site = site();
    let connections = Arc::new(AtomicU64::new(0));
    let url = serve(site.pack.clone(), Wrong::NoRanges, connections.clone());
    for have in [site.have, Digest::of(b"another release")] {
        let (poured, slots, ..) = download(&site, &url, have);
        assert_eq!(poured, Ok(()));
        assert!(slots.root == site.new && slots.boot == site.boot);
    }
}

#[test]
fn wrong_bytes_anywhere_and_a_pack_that_ends_early_are_refused() {
    let site = site();
    let mut random = Random(3);
    for _ in 0..40 {
        let at = (random.next() % site.pack.len() as u64) as usize;
        let url = serve(site.pack.clone(), Wrong::Byte(at), Arc::default());
        let (poured, slots, ..) = download(&site, &url, Digest::of(b"another release"));
        match poured {
            Err(verdict) => assert_eq!(verdict.reason, Reason::BadPack, "byte {at}: {verdict}"),
            // A section of a way that is not gone.
            Ok(()) => assert!(slots.root == site.new && slots.boot == site.boot, "byte {at}"),
        }
    }
    let url = serve(site.pack.clone(), Wrong::Short(site.pack.len() - 10), Arc::default());
    let (poured, ..) = download(&site, &url, Digest::of(b"another release"));
    assert_eq!(poured.unwrap_err().reason, Reason::Source);
}

#[test]
fn only_time_of_waiting_makes_a_source_slow() {
    let mut pace = Pace::default();
    let half = SLOW_TIME / 2;
    assert!(!pace.drips(half, 10));
    assert!(pace.drips(half, 10), "20 bytes in all that time");
    assert!(!pace.drips(half, SLOW_BYTES) && !pace.drips(half, 0), "enough came");
    assert!(!pace.drips(half, 10), "and it begins anew");
}
