//! The gateway's time server (RFC 5905, client and server mode). A pure function of question and time.

/// Seconds between 1900 and 1970.
const ERA: i128 = 2_208_988_800;

const MODE_CLIENT: u8 = 3;
const MODE_SERVER: u8 = 4;

/// The answer to a client's question at `now`, nanoseconds since 1970; `None` when it is no question.
pub(crate) fn answer(question: &[u8], now: i128) -> Option<[u8; 48]> {
    let question = question.get(..48)?;
    let version = (question[0] >> 3) & 7;
    if question[0] & 7 != MODE_CLIENT || version == 0 || version > 4 {
        return None;
    }
    let now = timestamp(now);
    let mut answer = [0; 48];
    answer[0] = version << 3 | MODE_SERVER;
    // One step from a reference; poll as asked; precise to a microsecond; no delay to the reference to speak of.
    (answer[1], answer[2], answer[3]) = (2, question[2], (-20i8) as u8);
    answer[7] = 1;
    answer[11] = 1;
    answer[12..16].copy_from_slice(b"LAB\0");
    answer[16..24].copy_from_slice(&now);
    answer[24..32].copy_from_slice(&question[40..48]);
    answer[32..40].copy_from_slice(&now);
    answer[40..48].copy_from_slice(&now);
    Some(answer)
}

/// Seconds since 1900, modulo 2^32, and their 2^32nd parts.
fn timestamp(nanos: i128) -> [u8; 8] {
    let seconds = nanos.div_euclid(1_000_000_000) + ERA;
    let fraction = (nanos.rem_euclid(1_000_000_000) << 32) / 1_000_000_000;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(seconds.rem_euclid(1 << 32) as u32).to_be_bytes());
    bytes[4..].copy_from_slice(&(fraction as u32).to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_time_and_its_own_stamp_back() {
        let mut question = [0; 48];
        question[0] = 4 << 3 | MODE_CLIENT;
        question[40..48].copy_from_slice(b"my stamp");
        // RFC 5905, figure 4: 1 Jan 1970 is 2,208,988,800 and 1 Jan 2000 is 3,155,673,600.
        let answer = answer(&question, 946_684_800_500_000_000).unwrap();
        assert_eq!(answer[0], 4 << 3 | MODE_SERVER);
        assert_eq!(&answer[24..32], b"my stamp");
        assert_eq!(answer[40..44], 3_155_673_600u32.to_be_bytes());
        assert_eq!(answer[44..48], [0x80, 0, 0, 0]);
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        assert_eq!(answer(&[0; 48], 0), None);
        assert_eq!(answer(&[4 << 3 | MODE_SERVER; 48], 0), None);
        assert_eq!(answer(&[4 << 3 | MODE_CLIENT; 47], 0), None);
    }
}
