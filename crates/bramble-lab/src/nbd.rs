//! The disk server: NBD, fixed newstyle, over a unix socket.
//!
//! Format: the NBD protocol, <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>. One export, no
//! TLS, simple replies, requests one after the other: the guest's requests are answered from the page cache, so
//! that waiting in line costs less than a second thread would.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::disk::{Disk, DiskError};
use crate::error::is_full;

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const REP_ERR_INVALID: u32 = 0x8000_0003;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES.
const EXPORT_FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_TRIM: u16 = 4;
const CMD_WRITE_ZEROES: u16 = 6;

const CMD_FLAG_FUA: u16 = 1;

/// The largest payload; what the protocol says every client can count on.
const MAX_PAYLOAD: u32 = 32 << 20;
/// Options carry a name of at most 4096 bytes and a few numbers.
const MAX_OPTION: u32 = 8192;

const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

/// Serves one client until it leaves or the disk loses its power. An error of this computer is told to the guest
/// and to `trouble`, which gets the sentence a person should see.
pub(crate) fn serve(stream: &UnixStream, disk: &Disk, trouble: &dyn Fn(&io::Error)) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 << 10, stream);
    let mut output = stream;
    if !negotiate(&mut input, &mut output, disk.size())? {
        return Ok(());
    }
    let mut payload = Vec::new();
    loop {
        let Some(request) = Request::read(&mut input)? else { return Ok(()) };
        let force = request.flags & CMD_FLAG_FUA != 0;
        payload.clear();
        let result = match request.command {
            CMD_DISC => return Ok(()),
            CMD_READ if request.length <= MAX_PAYLOAD => {
                // Room for the reply's head, so that head and data leave in one piece.
                payload.resize(16 + request.length as usize, 0);
                disk.read(request.offset, &mut payload[16..])
            }
            CMD_WRITE if request.length <= MAX_PAYLOAD => {
                payload.resize(request.length as usize, 0);
                input.read_exact(&mut payload)?;
                let result = disk.write(request.offset, &payload, force);
                payload.clear();
                result
            }
            // The payload would have to be read over: a client that sends so much has lost its way.
            CMD_WRITE => return Err(invalid("a write larger than agreed")),
            CMD_FLUSH => disk.flush(),
            CMD_TRIM | CMD_WRITE_ZEROES => disk.zero(request.offset, u64::from(request.length), force),
            _ => Err(DiskError::Outside),
        };
        let code = match result {
            Ok(()) => 0,
            Err(DiskError::NoPower) => return Ok(()),
            Err(DiskError::Outside) => EINVAL,
            Err(DiskError::System(error)) => {
                trouble(&error);
                if is_full(&error) { ENOSPC } else { EIO }
            }
        };
        payload.resize(if code == 0 { payload.len().max(16) } else { 16 }, 0);
        payload[..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
        payload[4..8].copy_from_slice(&code.to_be_bytes());
        payload[8..16].copy_from_slice(&request.cookie);
        output.write_all(&payload)?;
    }
}

struct Request {
    flags: u16,
    command: u16,
    cookie: [u8; 8],
    offset: u64,
    length: u32,
}

impl Request {
    /// The next request; `None` when the client has left.
    fn read(input: &mut impl Read) -> io::Result<Option<Request>> {
        let mut head = [0; 28];
        match input.read_exact(&mut head) {
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            other => other?,
        }
        if u32_at(&head, 0) != REQUEST_MAGIC {
            return Err(invalid("a request without its magic"));
        }
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let mut cookie = [0; 8];
        cookie.copy_from_slice(&head[8..16]);
        Ok(Some(Request {
            flags: word(4),
            command: word(6),
            cookie,
            offset: u64_at(&head, 16),
            length: u32_at(&head, 24),
        }))
    }
}

/// Agrees on the export; `false` when the client wants none.
fn negotiate(input: &mut impl Read, output: &mut impl Write, size: u64) -> io::Result<bool> {
    let mut hello = Vec::new();
    hello.extend(MAGIC.to_be_bytes());
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    output.write_all(&hello)?;
    let mut flags = [0; 4];
    input.read_exact(&mut flags)?;
    let no_zeroes = u32::from_be_bytes(flags) & u32::from(FLAG_NO_ZEROES) != 0;
    loop {
        let mut head = [0; 16];
        match input.read_exact(&mut head) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        let (option, length) = (u32_at(&head, 8), u32_at(&head, 12));
        if u64_at(&head, 0) != OPTION_MAGIC || length > MAX_OPTION {
            return Err(invalid("an option without its magic, or too long"));
        }
        let mut data = vec![0; length as usize];
        input.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut message = Vec::with_capacity(20 + data.len());
            message.extend(OPTION_REPLY_MAGIC.to_be_bytes());
            message.extend(option.to_be_bytes());
            message.extend(kind.to_be_bytes());
            message.extend((data.len() as u32).to_be_bytes());
            message.extend(data);
            output.write_all(&message)
        };
        match option {
            // The answer to the old form of "go" has no header.
            OPT_EXPORT_NAME => {
                let mut answer = export(size);
                if !no_zeroes {
                    answer.extend([0; 124]);
                }
                output.write_all(&answer)?;
                return Ok(true);
            }
            OPT_ABORT => {
                reply(REP_ACK, &[])?;
                return Ok(false);
            }
            OPT_LIST => {
                reply(REP_SERVER, &0u32.to_be_bytes())?;
                reply(REP_ACK, &[])?;
            }
            OPT_INFO | OPT_GO => {
                let Some(asked) = info_requests(&data) else {
                    reply(REP_ERR_INVALID, b"malformed")?;
                    continue;
                };
                let mut info = INFO_EXPORT.to_be_bytes().to_vec();
                info.extend(export(size));
                reply(REP_INFO, &info)?;
                if asked.contains(&INFO_BLOCK_SIZE) {
                    let mut info = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                    for bytes in [512, 4096, MAX_PAYLOAD] {
                        info.extend(bytes.to_be_bytes());
                    }
                    reply(REP_INFO, &info)?;
                }
                reply(REP_ACK, &[])?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            _ => reply(REP_ERR_UNSUP, b"not supported")?,
        }
    }
}

fn export(size: u64) -> Vec<u8> {
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend(EXPORT_FLAGS.to_be_bytes());
    bytes
}

/// The information that an INFO or GO asks for: after the name, a count and so many numbers.
fn info_requests(data: &[u8]) -> Option<Vec<u16>> {
    let name = u32::from_be_bytes(data.get(..4)?.try_into().ok()?) as usize;
    let rest = data.get(4usize.checked_add(name)?..)?;
    let count = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
    let numbers = rest.get(2..)?;
    if numbers.len() != count * 2 {
        return None;
    }
    Some(numbers.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the disk's client sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskRecord;
    use std::thread::JoinHandle;

    /// A client that has got as far as the flags.
    fn client(dir: &std::path::Path) -> (UnixStream, JoinHandle<io::Result<()>>) {
        let record = DiskRecord::create(dir, 1 << 20, &[]).unwrap();
        let disk = Disk::open("m", dir, &record).unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || serve(&far, &disk, &|e| panic!("{e}")));
        let mut hello = [0; 18];
        near.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"NBDMAGICIHAVEOPT\0\x03");
        near.write_all(&3u32.to_be_bytes()).unwrap();
        (near, thread)
    }

    fn option(stream: &mut UnixStream, option: u32, data: &[u8]) {
        stream.write_all(b"IHAVEOPT").unwrap();
        stream.write_all(&option.to_be_bytes()).unwrap();
        stream.write_all(&(data.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(data).unwrap();
    }

    fn option_reply(stream: &mut UnixStream) -> (u32, Vec<u8>) {
        let mut head = [0; 20];
        stream.read_exact(&mut head).unwrap();
        let mut data = vec![0; u32_at(&head, 16) as usize];
        stream.read_exact(&mut data).unwrap();
        (u32_at(&head, 12), data)
    }

    fn request(
        stream: &mut UnixStream,
        command: u16,
        flags: u16,
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> u32 {
        let mut head = REQUEST_MAGIC.to_be_bytes().to_vec();
        head.extend(flags.to_be_bytes());
        head.extend(command.to_be_bytes());
        head.extend(*b"a cookie");
        head.extend(offset.to_be_bytes());
        head.extend(length.to_be_bytes());
        stream.write_all(&[&head, data].concat()).unwrap();
        let mut reply = [0; 16];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply[8..], b"a cookie");
        u32_at(&reply, 4)
    }

    #[test]
    fn the_whole_conversation() {
        let dir = tempfile::tempdir().unwrap();
        let (mut stream, thread) = client(dir.path());
        option(&mut stream, 8, &[]);
        assert_eq!(option_reply(&mut stream).0, REP_ERR_UNSUP, "structured replies");
        option(&mut stream, OPT_GO, &[0, 0, 0, 9, 0]);
        assert_eq!(option_reply(&mut stream).0, REP_ERR_INVALID);
        option(&mut stream, OPT_GO, &[0, 0, 0, 0, 0, 1, 0, 3]);
        assert_eq!(option_reply(&mut stream), (REP_INFO, [&[0, 0][..], &export(1 << 20)].concat()));
        let sizes = [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0];
        assert_eq!(option_reply(&mut stream), (REP_INFO, sizes.to_vec()));
        assert_eq!(option_reply(&mut stream), (REP_ACK, vec![]));

        assert_eq!(request(&mut stream, CMD_WRITE, CMD_FLAG_FUA, 4096, 512, &[7; 512]), 0);
        assert_eq!(request(&mut stream, CMD_WRITE_ZEROES, 0, 4096, 256, &[]), 0);
        assert_eq!(request(&mut stream, CMD_READ, 0, 4096, 512, &[]), 0);
        let mut data = [9; 512];
        stream.read_exact(&mut data).unwrap();
        assert_eq!((data[0], data[255], data[256], data[511]), (0, 0, 7, 7));
        assert_eq!(request(&mut stream, CMD_FLUSH, 0, 0, 0, &[]), 0);
        assert_eq!(request(&mut stream, CMD_READ, 0, 1 << 20, 512, &[]), EINVAL);
        assert_eq!(request(&mut stream, CMD_WRITE, 0, u64::MAX, 512, &[1; 512]), EINVAL);
        assert_eq!(request(&mut stream, 99, 0, 0, 0, &[]), EINVAL);
        drop(stream);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_client_that_lost_its_way_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let (mut stream, thread) = client(dir.path());
        option(&mut stream, OPT_EXPORT_NAME, b"any");
        stream.read_exact(&mut [0; 10]).unwrap();
        stream.write_all(&[0xaa; 28]).unwrap();
        assert!(thread.join().unwrap().is_err());
        let (stream, thread) = client(dir.path());
        drop(stream);
        thread.join().unwrap().unwrap();
    }
}
