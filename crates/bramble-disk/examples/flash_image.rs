//! Writes an image file onto a disk as `bramble flash` does: what is no hole of the file, verified. For `bench/flash.py`.
//!
//! usage: flash_image IMAGE DEVICE [TOKEN]
//!
//! Without the token it prints the one that confirms the device. Loop devices are allowed.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use bramble_disk::card::{Card, CardId, State};
use bramble_disk::device::linux::Linux;
use bramble_disk::flash::choose::choose;
use bramble_disk::flash::journal::Journals;
use bramble_disk::flash::{Content, Job, Request, flash};
use bramble_effects::Cancel;
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

struct Image {
    file: File,
    /// Bytes of the file.
    length: u64,
    /// Bytes of the disk.
    size: u64,
}

impl Content for Image {
    fn size(&self) -> u64 {
        self.size
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Ok(start) = rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.length);
            ranges.push(start..end);
            at = end;
        }
        ranges
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let length = self.length.saturating_sub(offset).min(out.len() as u64) as usize;
        self.file.read_exact_at(&mut out[..length], offset)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [image, device] =
        [arguments.get(1), arguments.get(2)].map(|a| a.cloned().ok_or("IMAGE DEVICE [TOKEN]"));
    let (image, device) = (image?, device?);
    let site = Linux::default();
    let request = Request {
        node: "image".into(),
        device: Some(device.into()),
        confirm: arguments.get(3).cloned().into_iter().collect(),
        allow_loop: true,
        ..Request::default()
    };
    let confirmed = choose(&site, &request, None, &Cancel::default()).map_err(|e| {
        use bramble_disk::flash::choose::ChooseError;
        match e {
            ChooseError::Refused(refusal) => format!("{refusal}; {}", refusal.hint()),
            other => other.to_string(),
        }
    })?;
    let file = File::open(image)?;
    let (length, size) = (file.metadata()?.len(), confirmed.identity().size);
    let content = Image { file, length, size };
    let id = confirmed.card().map_or(CardId([1; 16]), |c| c.id);
    let (cluster, node) = ("bench".to_string(), "image".to_string());
    let card = Card {
        id,
        state: State::Writing,
        cluster,
        node,
        incarnation: String::new(),
        size: length,
        written_at: 0,
    };
    let journals = Journals::new(&std::env::temp_dir().join("bramble-bench-journals"));
    let job = Job { confirmed, content: &content, card, journals: &journals, patience: Duration::ZERO };
    let began = Instant::now();
    let report = flash(&site, &request, &job, &Cancel::default(), &|_| {})?;
    println!(
        "{{\"written\": {}, \"verified\": {}, \"writing\": {:.3}, \"verifying\": {:.3}, \"all\": {:.3}}}",
        report.written,
        report.verified,
        report.writing.as_secs_f64(),
        report.verifying.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
